"""Restart policies on a real engine."""

from __future__ import annotations

import threading

import pytest

from tare.testing.daemon import Daemon

pytestmark = pytest.mark.root


def run(engine: Daemon, name: str, policy: str, script: str, most: int = 0) -> str:
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", script],
        "HostConfig": {"RestartPolicy": {"Name": policy, "MaximumRetryCount": most}},
    }
    container = str(engine.json("POST", f"/containers/create?name={name}", body, expect=201)["Id"])
    engine.json("POST", f"/containers/{container}/start", expect=204)
    return container


def until(engine: Daemon, container: str, action: str, count: int) -> None:
    """Wait for the nth event of a kind since the engine began."""
    import http.client
    import json
    import socket
    from urllib.parse import quote

    filters = quote(json.dumps({"container": [container], "event": [action]}))
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(str(engine.socket))
    connection.request("GET", f"/events?since=1&filters={filters}")
    answer = connection.getresponse()
    for _ in range(count):
        assert answer.readline()
    connection.close()


def test_on_failure_counts_and_gives_up(daemon: Daemon, engine_host: str) -> None:
    container = run(daemon, "tries", "on-failure", "exit 3", most=2)
    until(daemon, container, "die", 3)
    state = daemon.json("POST", f"/containers/{container}/wait")
    assert state["StatusCode"] == 3
    record = daemon.json("GET", f"/containers/{container}/json")
    assert (record["RestartCount"], record["State"]["Status"]) == (2, "exited")


def test_on_failure_leaves_success_alone(daemon: Daemon, engine_host: str) -> None:
    container = run(daemon, "fine", "on-failure", "exit 0")
    daemon.json("POST", f"/containers/{container}/wait")
    assert daemon.json("GET", f"/containers/{container}/json")["RestartCount"] == 0


def test_always_goes_on_until_it_is_stopped(daemon: Daemon, engine_host: str) -> None:
    container = run(daemon, "again", "always", "exit 0")
    until(daemon, container, "start", 3)
    daemon.json("POST", f"/containers/{container}/stop", expect=204)
    state = daemon.json("GET", f"/containers/{container}/json")["State"]
    assert (state["Status"], state["Restarting"]) == ("exited", False)


def test_a_restarting_container_is_removed_by_force(daemon: Daemon, engine_host: str) -> None:
    container = run(daemon, "loop", "always", "exit 1")
    until(daemon, container, "die", 4)
    assert daemon.request("DELETE", f"/containers/{container}")[0] == 409
    assert daemon.request("DELETE", f"/containers/{container}?force=1")[0] == 204
    assert daemon.json("GET", "/containers/json?all=1") == []


def test_policies_hold_over_a_restart_of_the_daemon(daemon: Daemon, engine_host: str) -> None:
    kept = run(daemon, "kept", "always", "sleep 1000")
    stopped = run(daemon, "stopped", "unless-stopped", "sleep 1000")
    always_stopped = run(daemon, "always-stopped", "always", "sleep 1000")
    for container in (stopped, always_stopped):
        daemon.json("POST", f"/containers/{container}/stop?t=0", expect=204)
    daemon.stop()
    daemon.start()
    until(daemon, always_stopped, "start", 2)  # events outlive the daemon
    running = {entry["Names"][0] for entry in daemon.json("GET", "/containers/json")}
    assert running == {"/kept", "/always-stopped"}
    assert daemon.json("GET", f"/containers/{kept}/json")["RestartCount"] == 0


def test_start_order_after_the_daemon_was_away(daemon: Daemon, engine_host: str) -> None:
    """Proves `containers/wishes` with `engine/restore`: the lower number starts first, whatever was created first."""
    names = {"late": "5", "early": "-5", "middle": "0"}
    last = ""
    for name, order in names.items():
        body = {
            "Image": "busybox",
            "Cmd": ["sleep", "1000"],
            "Labels": {"tare.start.order": order},
            "HostConfig": {"RestartPolicy": {"Name": "always"}},
        }
        container = str(daemon.json("POST", f"/containers/create?name={name}", body, expect=201)["Id"])
        daemon.json("POST", f"/containers/{container}/start", expect=204)
        daemon.json("POST", f"/containers/{container}/stop?t=0", expect=204)
        last = container if name == "late" else last
    daemon.stop()
    daemon.start()
    until(daemon, last, "start", 2)
    started = {
        entry["Names"][0]: daemon.json("GET", f"/containers/{entry['Id']}/json")["State"]["StartedAt"]
        for entry in daemon.json("GET", "/containers/json")
    }
    assert sorted(started, key=lambda name: started[name]) == ["/early", "/middle", "/late"]


def test_a_container_is_removed_while_it_starts(daemon: Daemon, engine_host: str) -> None:
    for number in range(10):
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"]}
        container = str(daemon.json("POST", f"/containers/create?name=race{number}", body, expect=201)["Id"])
        starter = threading.Thread(target=daemon.request, args=("POST", f"/containers/{container}/start"))
        starter.start()
        assert daemon.request("DELETE", f"/containers/{container}?force=1")[0] == 204
        starter.join()
    assert daemon.json("GET", "/containers/json?all=1") == []
