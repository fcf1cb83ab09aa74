"""The whole idea in one story: a directory becomes a container, its changes a version, and it moves to another engine.

Exercises the command line against two engines that share nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root


@pytest.fixture
def engines(scratch: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """Two engines with data roots of their own."""
    first, second = (
        Daemon(scratch / name, bridge=f"tt{name}0", source=REPOSITORY / "src") for name in ("moveA", "moveB")
    )
    try:
        first.start()
        second.start()
        yield first, second
    finally:
        first.destroy()
        second.destroy()


def tare(engine: Daemon) -> Callable[..., bytes]:
    """The command line with an engine of its own."""

    def call(*words: str, data: bytes | None = None) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", "tare.cli", *words],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "DOCKER_HOST": engine.host},
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return call


def test_a_container_is_versioned_on_one_engine_and_runs_on_another(
    engines: tuple[Daemon, Daemon], rootfs_tar: bytes
) -> None:
    here, there = tare(engines[0]), tare(engines[1])
    here("import", "-", "base:1", data=rootfs_tar)
    here("run", "--name", "work", "base:1", "sh", "-c", "echo v2 > /etc/version; rm /bin/true")
    assert here("diff", "work").decode().splitlines() == ["C /bin", "D /bin/true", "C /etc", "A /etc/version"]
    here("commit", "-m", "second version", "work", "base:2")
    assert here("run", "--rm", "base:2", "cat", "/etc/version") == b"v2\n"
    assert here("run", "--rm", "base:1", "ls", "/bin/true") == b"/bin/true\n"
    comments = here("history", "--format", "{{.Comment}}", "base:2").decode().splitlines()
    assert comments[0] == "second version"
    assert len(comments) == 2

    there("import", "-c", "CMD cat /etc/version", "-", "moved:1", data=here("export", "work"))
    assert there("run", "--rm", "moved:1") == b"v2\n"
    loaded = there("load", data=here("save", "base:2")).decode()
    assert "Loaded image: base:2" in loaded
    assert there("images", "-q", "--no-trunc", "base:2") == here("images", "-q", "--no-trunc", "base:2")
    assert there("run", "--rm", "base:2", "cat", "/etc/version") == b"v2\n"
