"""Execs when things go wrong: orphans, slow and vanishing clients, pipes kept open, hundreds at once, the daemon's end.

Proves `drivers/runtime/sessions`, `containers/hub` and `aio/orphans` on a real engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tare.testing.audit import findings, until
from tare.testing.daemon import Daemon
from tare.testing.exchange import Api

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

REPOSITORY = Path(__file__).resolve().parents[2]
ATTACHED = {"AttachStdout": True, "AttachStderr": True}


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def engine(daemon: Daemon) -> Iterator[Daemon]:
    """The session's engine; neither a descriptor nor a child more when all containers are gone."""
    daemon.clear()
    daemon.request("GET", "/_ping")
    before = (descriptors(daemon), children(daemon))
    yield daemon
    daemon.clear()
    until("as before", lambda: descriptors(daemon) <= before[0] and children(daemon) <= before[1])
    assert findings(daemon) == []


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def children(daemon: Daemon) -> frozenset[int]:
    """Those that have ended and were not collected are among them."""
    found: set[int] = set()
    for task in os.listdir(f"/proc/{daemon.pid}/task"):
        with contextlib.suppress(OSError):
            found.update(map(int, Path(f"/proc/{daemon.pid}/task/{task}/children").read_text().split()))
    return frozenset(found)


def run(
    engine: Api, name: str, *, runtime: str = "", host: dict[str, Any] | None = None, cmd: list[str] | None = None
) -> str:
    body = {
        "Image": "busybox",
        "Cmd": cmd or ["sleep", "1000"],
        "HostConfig": {"Runtime": runtime, "NetworkMode": "none", **(host or {})},
    }
    engine.call("POST", f"/containers/create?name={name}", body)
    engine.call("POST", f"/containers/{name}/start")
    return name


def make(engine: Api, name: str, *argv: str, **changes: Any) -> str:
    answer = engine.call("POST", f"/containers/{name}/exec", {"Cmd": argv, **ATTACHED, **changes})
    return str(json.loads(answer)["Id"])


def execute(engine: Api, name: str, *argv: str, **changes: Any) -> tuple[bytes, int]:
    """What it wrote, without frames, and its exit code."""
    exec_id = make(engine, name, *argv, **changes)
    raw = engine.call("POST", f"/exec/{exec_id}/start", {"Tty": bool(changes.get("Tty"))})
    return (raw if changes.get("Tty") else unframed(raw)), code_of(engine, exec_id)


def code_of(engine: Api, exec_id: str) -> Any:
    return json.loads(engine.call("GET", f"/exec/{exec_id}/json"))["ExitCode"]


def unframed(raw: bytes) -> bytes:
    pieces, at = [], 0
    while at < len(raw):
        length = int.from_bytes(raw[at + 4 : at + 8], "big")
        pieces.append(raw[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(pieces)


def attached(engine: Api, exec_id: str) -> socket.socket:
    """A client that has asked for the start and does nothing more."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(str(engine.socket))
    body = b'{"Detach":false}'
    connection.sendall(
        b"POST /exec/%b/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (exec_id.encode(), len(body), body)
    )
    return connection


def rest_of(client: socket.socket) -> bytes:
    pieces = []
    while piece := client.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def processes(engine: Api, name: str) -> list[str]:
    """Command lines of what runs in a container."""
    table = json.loads(engine.call("GET", f"/containers/{name}/top"))
    return [row[table["Titles"].index("CMD")] for row in table["Processes"]]


def test_orphans_in_the_hosts_pid_namespace_are_collected(engine: Daemon, runtime: str) -> None:
    name = run(engine, "host", runtime=runtime, host={"PidMode": "host"})
    before = children(engine)
    for _ in range(3):
        assert execute(engine, name, "sh", "-c", "(sleep 0.01 &); (sleep 0.02 &); exit 3")[1] == 3
    until("none is left", lambda: children(engine) <= before)


def test_orphans_of_a_killed_monitor_are_collected(engine: Daemon, runtime: str) -> None:
    before = children(engine)
    script = "sleep 1000 & sleep 1000 & sleep 1000 & wait"
    name = run(engine, "host", runtime=runtime, host={"PidMode": "host"}, cmd=["sh", "-c", script])
    until("they run", lambda: len(processes(engine, name)) == 4)
    os.kill(next(iter(children(engine) - before)), signal.SIGKILL)
    until("none is left", lambda: children(engine) <= before)
    assert json.loads(engine.call("GET", f"/containers/{name}/json"))["State"]["ExitCode"] == 255


def test_a_client_that_pauses_gets_everything(engine: Daemon) -> None:
    """The program has long ended, and the end of what it wrote is in its pipe, when the client goes on reading."""
    name = run(engine, "box")
    sizes = range(2_400_000, 3_000_000, 40_000)
    execs = [make(engine, name, "head", "-c", str(size), "/dev/zero") for size in sizes]
    clients = [attached(engine, exec_id) for exec_id in execs]
    execute(engine, name, "sleep", "3")  # longer than the engine waits for pipes that nobody writes to
    found = []
    for client in clients:
        with client:
            found.append(len(unframed(rest_of(client).partition(b"\r\n\r\n")[2])))
    assert found == list(sizes)


def test_a_grandchild_that_keeps_the_pipes_holds_nobody_up(engine: Daemon, runtime: str) -> None:
    name = run(engine, "box", runtime=runtime)
    before = descriptors(engine)
    for tty in (False, True):
        out, code = execute(engine, name, "sh", "-c", "sleep 900 & echo said; exit 4", Tty=tty)
        assert (out.strip(), code) == (b"said", 4)
    chatty = "while echo more; do :; done 2>/dev/null & exit 5"
    assert execute(engine, name, "sh", "-c", chatty)[1] == 5
    until("the descriptors are back", lambda: descriptors(engine) <= before)


def test_clients_that_vanish_at_once(engine: Daemon, runtime: str) -> None:
    """Before, while and after the program starts: its stdin ends, and nothing is held for them."""
    name = run(engine, "box", runtime=runtime)
    before = descriptors(engine)
    for tty in (False, True):
        for number in range(12):
            argv = ("sh",) if tty else ("cat",)
            client = attached(engine, make(engine, name, *argv, AttachStdin=True, Tty=tty))
            if number % 3:
                client.sendall(b"exit\n")
            if number % 3 == 2:
                client.recv(12)
            client.close()
        until("every cat has ended", lambda: not any("cat" in line for line in processes(engine, name)))

    def is_quiet() -> bool:
        execute(
            engine, name, "killall", "-9", "sh"
        )  # a terminal says its end by keys: who sent none left it, as in Docker
        return descriptors(engine) <= before

    until("the descriptors are back", is_quiet)
    assert execute(engine, name, "echo", "well")[0] == b"well\n"


def test_hundreds_at_once(engine: Daemon) -> None:
    name = run(engine, "box")
    before = descriptors(engine)

    def one(number: int) -> tuple[bytes, Any]:
        match number % 4:
            case 0:
                return execute(engine, name, "sh", "-c", f"echo {number}; exit {number % 100}")
            case 1:
                return execute(engine, name, "sh", "-c", f"echo {number}; exit {number % 100}", Tty=True)
            case 2:
                exec_id = make(engine, name, "sh", "-c", f"exit {number % 100}")
                engine.call("POST", f"/exec/{exec_id}/start", {"Detach": True})
                until("its end", lambda: code_of(engine, exec_id) is not None, patience_s=30)
                return f"{number}".encode(), code_of(engine, exec_id)
            case _:
                out, code = execute(engine, name, "/no/such")
                assert (b"no such file" in out, code) == (True, 127)
                return f"{number}".encode(), number % 100

    with ThreadPoolExecutor(24) as pool:
        results = list(pool.map(one, range(240)))
    assert [(out.strip(), code) for out, code in results] == [(f"{n}".encode(), n % 100) for n in range(240)]
    until("the descriptors are back", lambda: descriptors(engine) <= before)


def test_the_size_of_a_terminal_that_is_over(engine: Daemon, runtime: str) -> None:
    name = run(engine, "box", runtime=runtime)
    exec_id = make(engine, name, "true", Tty=True)
    engine.call("POST", f"/exec/{exec_id}/start", {"Tty": True})
    assert engine.request("POST", f"/exec/{exec_id}/resize?h=10&w=10")[0] == 409


def test_the_daemon_ends_in_the_middle_of_them(scratch: Path, rootfs_tar: bytes, runtime: str) -> None:
    """It goes at once, its containers go on, the next one executes in them, and nobody's program is left half started."""
    own = Daemon(scratch / "exec", bridge=f"te{os.getpid()}", source=REPOSITORY / "src")
    own.start()
    try:
        own.import_image("busybox:latest", rootfs_tar, changes=["ENV PATH=/usr/bin:/bin"])
        name = run(own, "box", runtime=runtime)
        running = attached(own, make(own, name, "sh", "-c", "echo up; exec sleep 777"))
        received = b""
        while b"up" not in received:
            received += running.recv(1000)
        starting = [attached(own, make(own, name, "sleep", "888")) for _ in range(8)]
        own.stop()
        for client in (running, *starting):
            client.close()
        own.start()
        lines = processes(own, name)
        assert "sleep 1000" in lines
        assert {line.split()[0] for line in lines} == {"sleep"}  # what had begun goes on, and nothing is half begun
        assert execute(own, name, "echo", "well") == (b"well\n", 0)
        assert findings(own) == []
    finally:
        own.destroy()
