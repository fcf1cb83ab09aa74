"""Health checks on a real engine: states, events, time-outs.

Proves `engine/health` on a real engine.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from typing import Any
from urllib.parse import quote

import pytest

from tare.testing.daemon import Daemon

pytestmark = pytest.mark.root
SECOND = 1_000_000_000


def run(engine: Daemon, name: str, test: list[str], script: str = "sleep 1000", **healthcheck: int) -> str:
    check = {"Test": test, "Interval": SECOND // 20, "Timeout": SECOND, "Retries": 2, **healthcheck}
    body = {"Image": "busybox", "Cmd": ["sh", "-c", script], "Healthcheck": check}
    container = str(engine.json("POST", f"/containers/create?name={name}", body, expect=201)["Id"])
    engine.json("POST", f"/containers/{container}/start", expect=204)
    return container


def next_status(engine: Daemon, container: str, wanted: str) -> None:
    """Wait for an event that says so."""
    filters = quote(json.dumps({"container": [container], "event": ["health_status"]}))
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(str(engine.socket))
    connection.request("GET", f"/events?since=1&filters={filters}")
    answer = connection.getresponse()
    while json.loads(answer.readline())["Action"] != f"health_status: {wanted}":
        pass
    connection.close()


def health(engine: Daemon, container: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.json("GET", f"/containers/{container}/json")["State"]["Health"]
    return found


def test_from_starting_to_healthy_to_unhealthy(daemon: Daemon, engine_host: str) -> None:
    container = run(
        daemon, "sick", ["CMD-SHELL", "test -e /ok && echo fine || { echo broken; exit 3; }"], "touch /ok; sleep 1000"
    )
    next_status(daemon, container, "healthy")
    state = health(daemon, container)
    assert (state["Status"], state["Log"][-1]["ExitCode"], state["Log"][-1]["Output"]) == ("healthy", 0, "fine\n")
    listed = daemon.json("GET", '/containers/json?filters={"health":["healthy"]}')
    assert [entry["Status"].endswith("(healthy)") for entry in listed] == [True]
    exec_id = daemon.json("POST", f"/containers/{container}/exec", {"Cmd": ["rm", "/ok"]}, expect=201)["Id"]
    daemon.json("POST", f"/exec/{exec_id}/start", {"Detach": True})
    next_status(daemon, container, "unhealthy")
    state = health(daemon, container)
    assert state["FailingStreak"] >= 2
    assert (state["Log"][-1]["ExitCode"], state["Log"][-1]["Output"]) == (3, "broken\n")


def test_a_check_that_hangs_is_killed(daemon: Daemon, engine_host: str) -> None:
    container = run(daemon, "slow", ["CMD", "sleep", "60"], Timeout=SECOND // 10, Retries=1)
    next_status(daemon, container, "unhealthy")
    entry = health(daemon, container)["Log"][-1]
    assert (entry["ExitCode"], entry["Output"]) == (-1, "Health check exceeded timeout (100ms)")
    assert daemon.request("DELETE", f"/containers/{container}?force=1")[0] == 204


def test_a_check_that_cannot_run_is_a_failure(daemon: Daemon, engine_host: str) -> None:
    container = run(daemon, "none", ["CMD", "/no/such"], Retries=1)
    next_status(daemon, container, "unhealthy")
    assert "no such file" in health(daemon, container)["Log"][-1]["Output"]


def test_without_a_check_nothing_is_said(daemon: Daemon, engine_host: str) -> None:
    container = run(daemon, "plain", ["NONE"])
    assert "Health" not in daemon.json("GET", f"/containers/{container}/json")["State"]


def test_an_unhealthy_container_is_restarted_when_its_label_says_so(daemon: Daemon, engine_host: str) -> None:
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"],
        "Labels": {"tare.on-unhealthy": "restart"},
        "Healthcheck": {"Test": ["CMD", "false"], "Interval": SECOND // 20, "Timeout": SECOND, "Retries": 1},
    }
    container = str(daemon.json("POST", "/containers/create?name=phoenix", body, expect=201)["Id"])
    daemon.json("POST", f"/containers/{container}/start", expect=204)
    wait_for_event(daemon, container, "restart")
    assert daemon.json("GET", f"/containers/{container}/json")["State"]["Running"]


def wait_for_event(engine: Daemon, container: str, action: str) -> None:
    filters = quote(json.dumps({"container": [container], "event": [action]}))
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(str(engine.socket))
    connection.request("GET", f"/events?since=1&filters={filters}")
    assert connection.getresponse().readline()
    connection.close()


def tare(engine: Daemon, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tare.cli", "-H", engine.host, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_waiting_until_healthy(daemon: Daemon, engine_host: str) -> None:
    """Released by health, by sickness and by the end; refused where nothing is checked."""
    flags = ("--health-interval", "50ms", "--health-retries", "2")
    done = tare(daemon, "run", "-d", "--name", "fit", "--wait-healthy", "--health-cmd", "test -e /ok", *flags,
                "busybox", "sh", "-c", "touch /ok; exec sleep 1000")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert health(daemon, "fit")["Status"] == "healthy"
    assert tare(daemon, "wait", "--condition", "healthy", "fit").stdout == "0\n"
    assert (
        tare(daemon, "create", "--name", "sick", "--health-cmd", "false", *flags, "busybox", "sleep", "1000").returncode
        == 0
    )
    done = tare(daemon, "start", "--wait", "sick")
    assert done.returncode == 1
    assert "container sick is unhealthy" in done.stderr
    done = tare(daemon, "run", "-d", "--name", "short", "--wait-healthy", "--health-cmd", "false", *flags,
                "busybox", "sh", "-c", "exit 3")  # fmt: skip
    assert done.returncode == 1
    assert "container short exited (3)" in done.stderr
    run(daemon, "plain", ["NONE"])
    status, body = daemon.request("POST", "/containers/plain/wait?condition=healthy")
    assert status == 400
    assert "container plain has no health check" in json.loads(body)["message"]
    assert daemon.request("POST", "/containers/plain/wait?condition=happy")[0] == 400
