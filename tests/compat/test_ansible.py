"""Ansible's Docker modules: a site brought up, brought up again without a change, and taken down."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = ROOT / ".venv-ansible/bin/ansible-playbook"
_RECAP = re.compile(r"^localhost\s*:(.*)$", re.MULTILINE)


def play(name: str, host: str, directory: Path, **values: str) -> tuple[dict[str, int], str]:
    """Run a playbook. Returns the counts of its recap, and what it printed."""
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".venv-ansible/collections"),
        "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(directory / "tmp"),
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
        "LC_ALL": "C.UTF-8",
    }
    extra = {"engine": host, "directory": str(directory), "ansible_python_interpreter": sys.executable, **values}
    argv = [
        PLAYBOOK,
        "-D",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        json.dumps(extra),
        f"{ROOT}/tests/compat/ansible/{name}",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=100, check=False)
    text = done.stdout + done.stderr
    found = _RECAP.search(text)
    assert found is not None, text
    return {key: int(value) for key, value in (pair.split("=") for pair in found.group(1).split())}, text


@pytest.mark.skipif(not PLAYBOOK.exists(), reason="Ansible is not installed: scripts/setup-ansible")
def test_a_site_twice(engine_host: str, docker: Callable[..., Any], tmp_path: Path) -> None:
    saved = docker(engine_host, "save", "-o", str(tmp_path / "busybox.tar"), "busybox:latest")
    assert saved.code == 0, saved.err
    runtime = docker(engine_host, "info", "-f", "{{.DefaultRuntime}}").out.strip()
    try:
        first, text = play("site.yml", engine_host, tmp_path, runtime=runtime)
        assert first["failed"] == 0, text
        assert first["changed"] == 10, text
        before = docker(engine_host, "ps", "-q", "--no-trunc").out.split()
        again, text = play("site.yml", engine_host, tmp_path, runtime=runtime)
        assert (again["failed"], again["changed"]) == (0, 0), text
        assert docker(engine_host, "ps", "-q", "--no-trunc").out.split() == before
    finally:
        removed, text = play("remove.yml", engine_host, tmp_path)
    assert removed["failed"] == 0, text
    assert docker(engine_host, "ps", "-aq", "--filter", "name=site-").out == ""
    assert docker(engine_host, "volume", "ls", "-q", "--filter", "name=site-").out == ""
    assert docker(engine_host, "network", "ls", "-q", "--filter", "name=site-").out == ""
    assert docker(engine_host, "images", "-q", "site.test/*").out == ""
    gone, text = play("remove.yml", engine_host, tmp_path)
    assert (gone["failed"], gone["changed"]) == (0, 0), text
