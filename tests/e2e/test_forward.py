"""Logs sent to syslog and the journal: what arrives, what a killed engine and an absent server cost (nothing).

Proves `engine/forward`.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_S = 60
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


def docker(engine: Daemon, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "-H", engine.host, *argv],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "DOCKER_CONFIG": "/nonexistent"},
        check=False,
    )


def out(engine: Daemon, *argv: str) -> str:
    done = docker(engine, *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Receiver:
    """A server of datagrams."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open()

    def open(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(LIMIT_S)

    def close(self) -> None:
        self.socket.close()
        self.path.unlink(missing_ok=True)

    def next(self) -> bytes:
        return self.socket.recv(1 << 20)

    def until(self, text: bytes) -> list[bytes]:
        """Every message up to the first that ends with `text`."""
        got = [self.next()]
        while not got[-1].rstrip().endswith(text):
            got.append(self.next())
        return got


@pytest.fixture
def server(scratch: Path) -> Iterator[Receiver]:
    receiver = Receiver(scratch / "syslog")
    yield receiver
    receiver.close()


@pytest.fixture
def engine(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """One of our own: it is killed, and its journal is ours."""
    daemon = Daemon(
        scratch / "fw", bridge=f"tf{os.getpid()}", source=REPOSITORY / "src",
        arguments=["--bip", "10.213.7.1/24", "--journal-socket", str(scratch / "journal")],
    )  # fmt: skip
    daemon.start()
    try:
        daemon.import_image("busybox:latest", rootfs_tar, changes=["ENV PATH=/bin"])
        yield daemon
    finally:
        daemon.destroy()


def syslog(server: Receiver, *more: str) -> list[str]:
    return ["--log-driver", "syslog", "--log-opt", f"syslog-address=unixgram://{server.path}", *more]


def test_lines_arrive_as_from_docker_and_can_be_read_here(engine: Daemon, server: Receiver) -> None:
    script = "echo out; echo err >&2; printf pa; printf 'rt\\n\\nno end'"
    tag = "{{.ImageName}}/{{.Name}}/{{.ID}}"
    argv = ["run", "--name", "web", *syslog(server, "--log-opt", f"tag={tag}"), "busybox", "sh", "-c", script]
    assert out(engine, *argv) == "out\npart\n\nno end"
    container = engine.json("GET", "/containers/web/json")
    got = sorted(server.next() for _ in range(4))
    head = rf"[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d busybox/web/{container['Id'][:12]}\[{engine.pid}\]: "
    for message, form in zip(
        got, (f"<27>{head}err", f"<30>{head}no end", f"<30>{head}out", f"<30>{head}part"), strict=True
    ):
        assert re.fullmatch(form + "\n", message.decode()), message
    assert container["HostConfig"]["LogConfig"]["Type"] == "syslog"
    assert docker(engine, "logs", "web").stdout == "out\npart\n\nno end"
    assert "syslog" in engine.json("GET", "/info")["Plugins"]["Log"]


def test_nothing_is_sent_late_when_the_container_goes_at_once(engine: Daemon, server: Receiver) -> None:
    for number in range(5):
        out(engine, "run", "--rm", *syslog(server), "busybox", "echo", f"line {number}")
        assert server.next().endswith(f": line {number}\n".encode())


def test_the_journal(engine: Daemon, scratch: Path) -> None:
    denied = docker(engine, "run", "--rm", "--log-driver", "journald", "busybox", "true")
    assert (
        denied.returncode,
        "failed to initialize logging driver: journald is not enabled on this host" in denied.stderr,
    ) == (125, True)
    journal = Receiver(scratch / "journal")
    try:
        out(engine, "run", "--name", "jour", "--log-driver", "journald", "--log-opt", "tag={{.Name}}!", "--log-opt", "labels=x.y",
            "--label", "x.y=two\nlines", "busybox", "sh", "-c", "echo hello; sleep 0.01; echo oops >&2")  # fmt: skip
        first, second = journal.next(), journal.next()
    finally:
        journal.close()
    identity = engine.json("GET", "/containers/jour/json")["Id"]
    for line in (b"MESSAGE=hello", b"PRIORITY=6", b"CONTAINER_NAME=jour", b"CONTAINER_TAG=jour!", b"SYSLOG_IDENTIFIER=jour!",
                 b"IMAGE_NAME=busybox", b"CONTAINER_ID=" + identity[:12].encode(), b"CONTAINER_ID_FULL=" + identity.encode()):  # fmt: skip
        assert line in first.split(b"\n")
    assert b"X_Y\n\x09\0\0\0\0\0\0\0two\nlines\n" in first
    assert b"MESSAGE=oops\n" in second
    assert b"PRIORITY=3\n" in second


def test_a_killed_engine_loses_nothing(engine: Daemon, server: Receiver) -> None:
    """Killed in the midst of a flood, with files rotating: each line arrives, in order, hardly one twice."""
    script = "i=0; while [ $i -lt 40000 ]; do echo n$i; i=$((i+1)); done; echo last; exec sleep 1000"
    options = syslog(server, "--log-opt", "cache-max-size=1m", "--log-opt", "cache-max-file=9")
    out(engine, "run", "-d", "--name", "flood", *options, "busybox", "sh", "-c", script)
    got = [server.next() for _ in range(1000)]
    engine.kill()
    server.socket.settimeout(0.2)
    try:  # what was on its way
        while True:
            got.append(server.next())
    except TimeoutError:
        pass
    server.socket.settimeout(LIMIT_S)
    engine.start()
    got += server.until(b"last")
    numbers = [int(message.rpartition(b": n")[2]) for message in got if b": n" in message]
    assert sorted(set(numbers)) == list(range(40000))
    assert len(numbers) < 40000 + 20000
    engine.json("POST", "/containers/flood/kill", expect=204)


def test_a_server_that_is_away_is_caught_up_with(engine: Daemon, server: Receiver) -> None:
    out(engine, "run", "-d", "--name", "late", *syslog(server), "busybox", "sh", "-c",
        "echo one; until [ -e /go ]; do sleep 0.01; done; echo two; echo three; exec sleep 1000")  # fmt: skip
    assert server.next().endswith(b": one\n")
    server.close()
    out(engine, "exec", "late", "touch", "/go")
    deadline = time.monotonic() + LIMIT_S
    while b"cannot be sent" not in engine.log.read_bytes():  # the engine says so; the container does not wait
        assert time.monotonic() < deadline
        out(engine, "exec", "late", "true")
    server.open()
    assert [message.rpartition(b": ")[2] for message in server.until(b"three")] == [b"two\n", b"three\n"]
    out(engine, "kill", "late")


@pytest.mark.parametrize("form", ["rfc5424", ""])
def test_tcp(engine: Daemon, form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)
        port = listener.getsockname()[1]
        out(engine, "run", "-d", "--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://127.0.0.1:{port}",
            "--log-opt", f"syslog-format={form}", "--log-opt", "tag=t", "busybox", "sh", "-c", "echo a; echo b")  # fmt: skip
        lines: list[bytes] = []
        while not lines:  # the first connection only asks whether somebody is there
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                lines = [line for line in (stream.readline(), stream.readline()) if line]
    marks = (b" t - a\n", b" t - b\n") if form else (b"]: a\n", b"]: b\n")
    assert [line.endswith(mark) for line, mark in zip(lines, marks, strict=True)] == [True, True]


def test_what_cannot_be_is_refused_in_dockers_words(engine: Daemon) -> None:
    def refusal(*options: str) -> str:
        argv = [word for option in options for word in ("--log-opt", option)]
        done = docker(engine, "create", "--log-driver", "syslog", *argv, "busybox", "true")
        assert done.returncode == 1
        return done.stderr

    assert "unknown log opt 'foo' for syslog log driver" in refusal("foo=1")
    assert "syslog-address should be in form proto://address, got ftp://x" in refusal("syslog-address=ftp://x")
    assert "Invalid syslog format" in refusal("syslog-format=x")
    driver = ["--log-driver", "syslog", "--log-opt"]
    done = docker(engine, "run", "--rm", *driver, "syslog-address=tcp://127.0.0.1:1", "busybox", "true")
    message = "failed to initialize logging driver: dial tcp 127.0.0.1:1: connect: connection refused"
    assert (done.returncode, message in done.stderr) == (125, True)
    out(engine, "create", "--name", "deaf", *driver, "cache-disabled=true", "busybox", "true")
    assert "configured logging driver does not support reading" in docker(engine, "logs", "deaf").stderr
