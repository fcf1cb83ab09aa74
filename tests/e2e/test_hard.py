"""The hard cases: many clients at one container, bombs and hogs inside, clients that stop in the middle.

What is asked of each: the engine answers others meanwhile, and list, inspect and kernel agree afterwards.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tare.testing.daemon import Daemon

pytestmark = pytest.mark.root
CLIENTS, ROUNDS = 50, 4
ALLOWED = {200, 201, 204, 304, 400, 404, 409}


def create(engine: Daemon, name: str, *argv: str, **host: Any) -> str:
    body = {"Image": "busybox", "Cmd": list(argv), "HostConfig": host}
    return str(engine.json("POST", f"/containers/create?name={name}", body, expect=201)["Id"])


def processes_of(container: str) -> list[int]:
    """Every process on this machine whose control group is the container's."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if container in Path(f"/proc/{entry}/cgroup").read_text():
                    found.append(int(entry))
            except OSError:
                continue
    return found


def state_of(engine: Daemon, container: str) -> dict[str, Any] | None:
    status, _ = engine.request("GET", f"/containers/{container}/json")
    if status == 404:
        return None
    found: dict[str, Any] = engine.json("GET", f"/containers/{container}/json")["State"]
    return found


@pytest.mark.parametrize("removes", [False, True])
def test_fifty_clients_at_one_container(daemon: Daemon, engine_host: str, removes: bool) -> None:
    container = create(daemon, "fought-over", "sleep", "1000")
    actions = [
        ("POST", "start"), ("POST", "stop?t=0"), ("POST", "kill"), ("POST", "restart?t=0"), ("POST", "pause"),
        ("POST", "unpause"), ("POST", "kill?signal=TERM"), ("GET", "json"), ("GET", "top"),
    ]  # fmt: skip
    statuses: list[int] = []
    gate = threading.Barrier(CLIENTS)

    def client(number: int) -> None:
        choose = random.Random(number)
        gate.wait(30)
        for turn in range(ROUNDS):
            if removes and number % 10 == 0 and turn == ROUNDS - 1:
                statuses.append(daemon.request("DELETE", f"/containers/{container}?force=1")[0])
                continue
            method, path = choose.choice(actions)
            statuses.append(daemon.request(method, f"/containers/{container}/{path}")[0])

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(statuses) == CLIENTS * ROUNDS
    assert set(statuses) <= ALLOWED, sorted(set(statuses) - ALLOWED)
    state = state_of(daemon, container)
    listed = [entry["State"] for entry in daemon.json("GET", "/containers/json?all=1")]
    if state is None:
        assert removes
        assert listed == []
        assert processes_of(container) == []
        return
    assert listed == [state["Status"]]
    if state["Running"]:
        assert state["Pid"] in processes_of(container)
        daemon.request("POST", f"/containers/{container}/unpause")
        daemon.json("POST", f"/containers/{container}/kill", expect=204)
        daemon.json("POST", f"/containers/{container}/wait")
    else:
        assert state["Pid"] == 0
        assert processes_of(container) == []
    daemon.json("POST", f"/containers/{container}/start", expect=204)
    daemon.json("DELETE", f"/containers/{container}?force=1", expect=204)
    assert processes_of(container) == []


def answers_soon(engine: Daemon) -> None:
    """Ten answers, none later than a second: others do not feel it."""
    for _ in range(10):
        begun = time.monotonic()
        assert engine.request("GET", "/_ping")[0] == 200
        assert time.monotonic() - begun < 1.0


def test_a_fork_bomb_is_contained(daemon: Daemon, engine_host: str) -> None:
    container = create(daemon, "bomb", "sh", "-c", "b() { b | b & }; b; b; sleep 1000", PidsLimit=64)
    daemon.json("POST", f"/containers/{container}/start", expect=204)
    answers_soon(daemon)
    assert len(processes_of(container)) <= 64
    daemon.json("DELETE", f"/containers/{container}?force=1", expect=204)
    assert processes_of(container) == []


def test_a_memory_hog_is_killed_alone(daemon: Daemon, engine_host: str) -> None:
    script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"
    container = create(daemon, "hog", "sh", "-c", script, Memory=16 << 20, MemorySwap=16 << 20)
    other = create(daemon, "neighbour", "sleep", "1000")
    for identity in (other, container):
        daemon.json("POST", f"/containers/{identity}/start", expect=204)
    answers_soon(daemon)
    assert daemon.json("POST", f"/containers/{container}/wait")["StatusCode"] == 137
    state = state_of(daemon, container)
    assert state is not None
    assert state["OOMKilled"] is True
    beside = state_of(daemon, other)
    assert beside is not None
    assert beside["Running"] is True


def test_who_ignores_term_dies_at_the_time_out(daemon: Daemon, engine_host: str) -> None:
    container = create(daemon, "stubborn", "sh", "-c", "trap '' TERM; while :; do sleep 1000 & wait; done")
    daemon.json("POST", f"/containers/{container}/start", expect=204)
    begun = time.monotonic()
    daemon.json("POST", f"/containers/{container}/stop?t=1", expect=204)
    assert 0.9 < time.monotonic() - begun < 10
    assert processes_of(container) == []


def test_half_sent_requests_are_shed(daemon: Daemon, engine_host: str) -> None:
    connections = []
    for start in (b"GET /_pi", b"POST /containers/create HTTP/1.1\r\nHost: t\r\nContent-Le", b"GET /info HTTP/1.1\r\n"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(40)
        connection.connect(str(daemon.socket))
        connection.sendall(start)
        connections.append(connection)
    answers_soon(daemon)
    for connection in connections:
        with connection:
            while connection.recv(65536):  # an answer that says so, or nothing, and then the end
                pass


def test_clients_that_never_read_cost_the_others_nothing(daemon: Daemon, engine_host: str) -> None:
    container = create(daemon, "shouting", "sh", "-c", "yes shouting | head -c 60000000; echo; echo done")
    readers = []
    for path, method in (("/events", "GET"), (f"/containers/{container}/logs?stdout=1&follow=1", "GET")):
        for _ in range(5):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(daemon.socket))
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
            readers.append(connection)
    try:
        daemon.json("POST", f"/containers/{container}/start", expect=204)
        answers_soon(daemon)
        assert daemon.json("POST", f"/containers/{container}/wait")["StatusCode"] == 0
        answers_soon(daemon)
    finally:
        for connection in readers:
            connection.close()
