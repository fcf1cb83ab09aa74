"""The stock docker command line, run against an engine by tests."""

from __future__ import annotations

import os
import subprocess


def docker(host: str, *argv: str, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run it with no configuration of the user's; the caller judges the exit code."""
    return subprocess.run(
        ["docker", "-H", host, *argv],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "DOCKER_CONFIG": "/nonexistent"},
        check=False,
    )


def out(host: str, *argv: str, stdin: str = "") -> str:
    """What it prints, trimmed; the exit code must be 0."""
    done = docker(host, *argv, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
