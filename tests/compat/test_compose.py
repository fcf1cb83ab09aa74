"""docker-compose (Debian's 1.29) brings up an application of three services: networks, volumes, health, scaling, logs.

It is told to speak API 1.44 (docs/compat.md says why). The services are the test image's own programs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tare.testing.stockclient import docker, out

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        shutil.which("docker-compose") is None or shutil.which("docker") is None,
        reason="docker-compose is not installed: apt-get install docker-compose",
    ),
]
PROJECT = """\
version: "2.4"
services:
  db:
    image: busybox
    command: sh -c 'echo started >>/data/log; echo db ready; touch /data/ready; exec nc -ll -p 5000 -e cat /data/log'
    volumes: ["data:/data"]
    networks: {back: {aliases: [database]}}
    healthcheck: {test: ["CMD", "test", "-e", "/data/ready"], interval: 1s, timeout: 2s, retries: 20}
    stop_grace_period: 0s
  app:
    image: busybox
    command: sh -c 'mkdir -p /w; nc database 5000 </dev/null >/w/index.html; echo app ready; exec httpd -f -p 8000 -h /w'
    depends_on: {db: {condition: service_healthy}}
    networks: [back, front]
    stop_grace_period: 0s
    labels: {tier: app}
  web:
    image: busybox
    command: httpd -f -p 80 -h /site
    depends_on: [app]
    ports: ["127.0.0.1::80"]
    networks: [front]
    volumes: ["./site:/site:ro"]
    tmpfs: /t
    stop_grace_period: 0s
networks:
  front: {}
  back: {internal: true, ipam: {config: [{subnet: 10.235.7.0/24}]}}
volumes:
  data: {labels: {kind: kept}}
"""
Compose = Callable[..., str]


@pytest.fixture
def compose(engine_host: str, tmp_path: Path) -> Iterator[Compose]:
    """docker-compose in a directory with the project; what it says on stdout."""
    (tmp_path / "docker-compose.yml").write_text(PROJECT)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("hello\n")
    environment = {
        **os.environ, "DOCKER_HOST": engine_host, "COMPOSE_PROJECT_NAME": "ttcomp",
        "PYTHONWARNINGS": "ignore",
    }  # fmt: skip

    def run(*argv: str) -> str:
        done = subprocess.run(
            ["docker-compose", *argv], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    yield run
    run("down", "-v", "-t", "0", "--remove-orphans")


def fetch(address: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/", timeout=5) as answer:
        return str(answer.read().decode().strip())


def started(host: str, *, times: int) -> bool:
    """Whether the database has come up so often, on the volume that it keeps."""
    deadline = time.monotonic() + 10
    while docker(host, "exec", "ttcomp_db_1", "cat", "/data/log").stdout.split() != ["started"] * times:
        if time.monotonic() > deadline:
            return False
    return True


def test_an_application_of_three_services(engine_host: str, compose: Compose) -> None:
    compose("up", "-d")
    identities = compose("ps", "-q").split()
    assert len(identities) == 3
    [database] = compose("ps", "-q", "db").split()
    assert out(engine_host, "inspect", "-f", "{{.State.Health.Status}}", database) == "healthy"
    assert fetch(compose("port", "web", "80")) == "hello"
    assert compose("exec", "-T", "web", "wget", "-qO-", "http://app:8000/") == "started"
    # the app waited until the database was healthy, web does not see the inner network
    hidden = docker(engine_host, "exec", "ttcomp_web_1", "ping", "-c1", "db").stderr
    assert "bad address" in hidden
    [inner] = json.loads(out(engine_host, "network", "inspect", "ttcomp_back"))
    assert (inner["Internal"], inner["IPAM"]["Config"][0]["Subnet"]) == (True, "10.235.7.0/24")
    assert len(inner["Containers"]) == 2
    logs = compose("logs", "--no-color")
    assert "db ready" in logs
    assert "app ready" in logs
    compose("up", "-d", "--scale", "app=3")
    assert len(compose("ps", "-q", "app").split()) == 3
    found = out(engine_host, "exec", "ttcomp_web_1", "nslookup", "-type=a", "app", "127.0.0.11")
    assert found.count("Address") >= 3
    compose("up", "-d", "--scale", "app=1")
    assert len(compose("ps", "-q", "app").split()) == 1
    compose("restart", "-t", "0", "db")
    assert started(engine_host, times=2)  # the volume stayed
    compose("up", "-d", "--force-recreate", "db")
    assert started(engine_host, times=3)
    compose("stop", "-t", "0")
    assert out(engine_host, "ps", "-q") == ""
    compose("start")
    assert fetch(compose("port", "web", "80")) == "hello"
    compose("down", "-v", "-t", "0")
    assert out(engine_host, "ps", "-aq") == ""
    assert "ttcomp" not in out(engine_host, "network", "ls") + out(engine_host, "volume", "ls")
