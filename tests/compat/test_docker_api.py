"""The docker-api gem, through which Chef's docker cookbook and Test Kitchen speak: tests/compat/docker_api.rb."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

SCRIPT = Path(__file__).with_name("docker_api.rb")


def test_a_site_twice(engine_host: str) -> None:
    ruby = shutil.which("ruby")
    if ruby is None or subprocess.run([ruby, "-rdocker", "-e", ""], capture_output=True, check=False).returncode:
        pytest.skip("not installed: ruby-docker-api, ruby-multi-json")
    environment = {**os.environ, "DOCKER_URL": engine_host, "DOCKER_HOST": engine_host, "LC_ALL": "C.UTF-8"}
    done = subprocess.run([ruby, SCRIPT], capture_output=True, text=True, env=environment, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr
