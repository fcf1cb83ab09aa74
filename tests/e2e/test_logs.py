"""Logs on a real engine: rotated within their limits under a flood, read over the borders, cleared while alive.

Proves `engine/rotation` and `engine/logs`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]
LIMIT_S = 60


def docker(host: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "-H", host, *argv],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "DOCKER_CONFIG": "/nonexistent"},
        check=False,
    )


def out(host: str, *argv: str) -> str:
    done = docker(host, *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tare(host: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tare.cli", "-H", host, *argv],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        check=False,
    )


def until(holds: Callable[[], bool]) -> None:
    """Look again and again, for as long as it takes another program to do something."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        os.sched_yield()


def files(daemon: Daemon, name: str) -> dict[str, int]:
    """The files of its log with their sizes."""
    container = daemon.json("GET", f"/containers/{name}/json")["Id"]
    found = {}
    for path in (daemon.data_root / "containers" / container).glob("container.log*"):
        try:
            found[path.name] = path.stat().st_size
        except FileNotFoundError:
            continue
    return found


COUNT = "i=0; while [ $i -lt 6000 ]; do echo $i; i=$((i+1)); [ $((i%20)) = 0 ] && usleep 1000; done"


@pytest.mark.parametrize("compress", [True, False])
def test_a_follower_sees_every_line_once_over_rotations(daemon: Daemon, engine_host: str, compress: bool) -> None:
    options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=4", "--log-opt", f"compress={compress}"]
    out(engine_host, "run", "-d", "--name", "counts", *options, "busybox", "sh", "-c", COUNT)
    assert out(engine_host, "logs", "-f", "counts").split() == [str(number) for number in range(6000)]
    out(engine_host, "wait", "counts")
    suffix = ".gz" if compress else ""
    names = {"container.log", *(f"container.log.{number}{suffix}" for number in (1, 2, 3))}
    until(lambda: set(files(daemon, "counts")) == names)
    kept = files(daemon, "counts")
    everything = out(engine_host, "logs", "counts").split()
    assert everything == [str(number) for number in range(6000 - len(everything), 6000)]
    assert len(everything) > 3 * 20_000 // 60, "older files are read too"
    if compress:
        assert all(size < 10_000 for name, size in kept.items() if name.endswith(".gz"))
    assert out(engine_host, "logs", "--tail", str(len(everything) - 5), "counts").split() == everything[5:]
    directory = daemon.data_root / "containers" / daemon.json("GET", "/containers/counts/json")["Id"]
    out(engine_host, "rm", "counts")
    assert not directory.exists()


def test_a_flood_stays_within_its_bounds_and_goes_on(daemon: Daemon, engine_host: str) -> None:
    options = ["--log-driver", "local", "--log-opt", "max-size=16m", "--log-opt", "max-file=2"]
    out(engine_host, "run", "-d", "--name", "flood", *options, "busybox", "yes", "x" * 100)
    container = daemon.json("GET", "/containers/flood/json")["Id"]
    path = daemon.data_root / "containers" / container / "container.log"
    inode, rotations, largest = 0, 0, 0

    def has_rotated_often() -> bool:
        nonlocal inode, rotations, largest
        largest = max(largest, sum(files(daemon, "flood").values()))
        try:
            found = path.stat().st_ino
        except FileNotFoundError:
            return False
        rotations += found != inode
        inode = found
        return rotations >= 25

    until(has_rotated_often)
    # (max-file + 1) times max-size, and what conmon writes between two looks of a busy machine; 400 MB went through.
    assert largest < 3 * 16_000_000 + 3 * 32_000_000
    lines = out(engine_host, "logs", "--tail", "1000", "flood").splitlines()
    assert lines[:-1] == ["x" * 100] * 999, "only the last may be half written"
    out(engine_host, "rm", "-f", "flood")


def test_the_log_of_a_live_container_is_cleared(daemon: Daemon, engine_host: str) -> None:
    script = "echo before; mkfifo /go; read line < /go; echo after; read line < /go"
    out(engine_host, "run", "-d", "--name", "speaks", "busybox", "sh", "-c", script)
    until(lambda: out(engine_host, "logs", "speaks") == "before\n")
    with subprocess.Popen(
        ["docker", "-H", engine_host, "logs", "-f", "--tail", "0", "speaks"], stdout=subprocess.PIPE, text=True
    ) as follower:
        done = tare(engine_host, "logs", "--clear", "speaks")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert out(engine_host, "logs", "speaks") == ""
        until(lambda: set(files(daemon, "speaks")) == {"container.log"})
        out(engine_host, "exec", "speaks", "sh", "-c", "echo > /go")
        until(lambda: out(engine_host, "logs", "speaks") == "after\n")
        out(engine_host, "kill", "speaks")
        heard, _ = follower.communicate(timeout=LIMIT_S)
    assert heard == "after\n"
    assert tare(engine_host, "logs", "--clear", "speaks").returncode == 0
    assert out(engine_host, "logs", "speaks") == ""
    out(engine_host, "start", "speaks")
    until(lambda: out(engine_host, "logs", "speaks") == "before\n")
    out(engine_host, "rm", "-f", "speaks")


def test_options_are_checked_at_create(daemon: Daemon, engine_host: str) -> None:
    for config, status, text in (
        ({"Type": "json-file", "Config": {"foo": "1"}}, 400, "unknown log opt 'foo' for json-file log driver"),
        ({"Type": "fluentd", "Config": {}}, 400, "log driver fluentd is not served by this version"),
        ({"Type": "json-file", "Config": {"compress": "true"}}, 400, "compress cannot be true when max-file is less"),
        ({"Type": "local", "Config": {"max-size": "1m", "compress": "true"}}, 201, '"Warnings":[]'),
    ):
        body = json.dumps({"Image": "busybox", "HostConfig": {"LogConfig": config}}).encode()
        found, answer = daemon.request(
            "POST", "/containers/create", body=body, headers={"Content-Type": "application/json"}
        )
        assert (found, text in answer.decode()) == (status, True), answer


def test_the_driver_none_has_nothing_to_read_or_clear(engine_host: str) -> None:
    out(engine_host, "run", "-d", "--name", "mute", "--log-driver", "none", "busybox", "echo", "x")
    assert "configured logging driver does not support reading" in docker(engine_host, "logs", "mute").stderr
    assert tare(engine_host, "logs", "--clear", "mute").returncode == 1


def attach_with_log(daemon: Daemon, name: str) -> bytes:
    """Everything that attach?logs=1 gives until the container ends; the connection is read slowly at first."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT_S)
        connection.connect(str(daemon.socket))
        connection.sendall(
            f"POST /containers/{name}/attach?logs=1&stream=1&stdout=1 HTTP/1.1\r\nHost: t\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        got = b""
        while piece := connection.recv(65536):
            got += piece
    return got.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("tty", [True, False])
def test_attach_with_the_log_has_no_gap_and_nothing_twice(daemon: Daemon, engine_host: str, tty: bool) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done"
    out(engine_host, "run", "-d", "--name", "chatty", *(["-t"] if tty else []), "busybox", "sh", "-c", script)
    got = attach_with_log(daemon, "chatty")
    if not tty:
        plain, got = got, b""
        while plain:
            size = int.from_bytes(plain[4:8])
            got, plain = got + plain[8 : 8 + size], plain[8 + size :]
    assert got.decode().split() == [str(number) for number in range(20000)]


def test_followers_share_one_inotify_instance(daemon: Daemon, engine_host: str) -> None:
    out(engine_host, "run", "-d", "--name", "quiet", "busybox", "sh", "-c", "echo up; exec sleep 1000")

    def instances() -> int:
        count = 0
        for fd in Path(f"/proc/{daemon.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                count += os.readlink(fd) == "anon_inode:inotify"
        return count

    before = instances()
    readers = [
        subprocess.Popen(["docker", "-H", engine_host, "logs", "-f", "quiet"], stdout=subprocess.PIPE) for _ in range(8)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"up\n"
        assert instances() == before
        out(engine_host, "kill", "quiet")
        for reader in readers:
            assert reader.wait(LIMIT_S) == 0
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def test_what_a_program_says_at_once_is_in_a_log_asked_for_at_once(daemon: Daemon, engine_host: str) -> None:
    for number in range(30):
        body = {"Image": "busybox", "Cmd": ["sh", "-c", f"echo first; echo {number}"]}
        made = daemon.json("POST", "/containers/create", body, expect=201)
        daemon.json("POST", f"/containers/{made['Id']}/start", expect=204)
        _, log = daemon.request("GET", f"/containers/{made['Id']}/logs?stdout=1")
        assert log.endswith(f"first\n\x01\0\0\0\0\0\0{chr(len(str(number)) + 1)}{number}\n".encode())


def test_who_starts_a_container_again_sees_what_it_says_now(daemon: Daemon, engine_host: str) -> None:
    out(engine_host, "create", "--name", "again", "busybox", "sh", "-c", "echo run >>/runs; wc -l </runs")
    assert [out(engine_host, "start", "-a", "again") for _ in range(3)] == ["1\n", "2\n", "3\n"]
    assert out(engine_host, "logs", "again") == "1\n2\n3\n"


def test_a_log_that_cannot_grow_is_not_followed(daemon: Daemon, engine_host: str) -> None:
    def ended(command: str) -> str:
        made: dict[str, str] = daemon.json(
            "POST", "/containers/create", {"Image": "busybox", "Cmd": [command]}, expect=201
        )
        assert daemon.request("GET", f"/containers/{made['Id']}/logs?stdout=1&stderr=1&follow=1") == (200, b"")
        return made["Id"]

    ended("true")
    broken = ended("/no/such/program")
    assert daemon.request("POST", f"/containers/{broken}/start")[0] == 400
    assert daemon.request("GET", f"/containers/{broken}/logs?stdout=1&stderr=1&follow=1") == (200, b"")


def test_a_program_that_says_nothing_does_not_hold_the_log_for_long(daemon: Daemon, engine_host: str) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"]}
    made = daemon.json("POST", "/containers/create", body, expect=201)
    daemon.json("POST", f"/containers/{made['Id']}/start", expect=204)
    begun = time.monotonic()
    assert daemon.request("GET", f"/containers/{made['Id']}/logs?stdout=1") == (200, b"")
    assert time.monotonic() - begun < 2
