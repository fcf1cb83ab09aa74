"""The engines side by side, each with roots, a socket and a bridge of its own, and requests to them."""

from __future__ import annotations

import http.client
import json
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tare.testing import reference
from tare.testing.daemon import Daemon

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "bin" / "python"
MIB = 1024 * 1024


class Missing(Exception):
    """Something an item needs is not here; the text says what."""


def run(*argv: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run to the end; a failure ends the item with the program's words."""
    done = subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL, capture_output=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise Missing(f"{' '.join(map(str, argv))}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return done


class Engine:
    """One engine under test: where it listens, and the processes that are its own."""

    name = ""
    socket: Path
    pid: int
    inside: list[str] = []  # what a program begins with that is to see the engine's loopback

    def docker(self, *argv: str | Path) -> str:
        """The stock command line, against this engine."""
        return run("docker", "-H", f"unix://{self.socket}", *argv).stdout.decode().strip()

    def launch(self) -> None:
        """Start it and wait until it answers."""
        raise NotImplementedError

    def end(self) -> None:
        """SIGTERM, and wait until it is gone."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it and take away what it made."""
        raise NotImplementedError

    def open_network(self) -> None:
        """Let its containers reach what the host reaches."""

    def processes(self) -> list[int]:
        """The daemon, all below it, and helpers that left it and name its directory; not what runs in containers."""
        children: dict[int, list[int]] = {}
        todo = [self.pid]
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                try:
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    words = Path(f"/proc/{entry}/cmdline").read_bytes()
                except OSError:
                    continue
                children.setdefault(int(fields[1]), []).append(int(entry))
                if os.fsencode(self.socket.parent) in words:
                    todo.append(int(entry))
        ours, found = os.readlink("/proc/self/ns/pid"), set[int]()
        while todo:
            pid = todo.pop()
            try:
                if pid in found or os.readlink(f"/proc/{pid}/ns/pid") != ours:
                    continue
            except OSError:
                continue
            found.add(pid)
            todo += children.get(pid, [])
        return sorted(found)

    def memory(self) -> tuple[float, float]:
        """(resident, proportional) MiB of all of them: shared pages count whole for each in the first, once in the second."""
        resident = proportional = 0
        for pid in self.processes():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            except OSError:
                continue
            sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
            resident += sizes["Rss"]
            proportional += sizes["Pss"]
        return resident / 1024, proportional / 1024


class Tare(Engine):
    def __init__(
        self, directory: Path, *, name: str = "tare", bridge: str = "tb", prefix: Sequence[str] = ()
    ) -> None:
        """bridge: how its name begins. prefix: what a command begins with that becomes the daemon."""
        self.name = name
        bridge = f"{bridge}{os.getpid() % 100000}"
        self._daemon = Daemon(directory, bridge=bridge, source=ROOT / "src", prefix=prefix)
        try:
            self._daemon.start()
        except BaseException:
            self.stop()
            raise
        self.socket, self.pid = self._daemon.socket, self._daemon.pid

    def launch(self) -> None:
        self._daemon.start()
        self.pid = self._daemon.pid

    def end(self) -> None:
        self._daemon.stop()

    def stop(self) -> None:
        self._daemon.destroy()


class Dockerd(Engine):
    name = "dockerd"

    def __init__(self, work: Path) -> None:
        if program := reference.missing():
            raise Missing(f"{program} is not installed: apt-get install docker.io iproute2")
        self._daemon = reference.Reference(work / "d", space=f"tare-bench-{os.getpid()}")
        self.socket, self.inside = self._daemon.socket, self._daemon.inside
        try:
            self.launch()
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        self._daemon.start()
        self.pid = self._daemon.pid

    def end(self) -> None:
        self._daemon.stop()

    def stop(self) -> None:
        self._daemon.destroy()

    def open_network(self) -> None:
        self._daemon.open_network()


def request(path: Path, target: str, *, method: str = "GET") -> tuple[int, bytes]:
    """One request on its own connection; the body as it comes (chunk headers included)."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(300)
        connection.connect(str(path))
        connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        pieces: list[bytes] = []
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def send(path: Path, target: str, body: object = None, *, method: str = "POST") -> bytes:
    """One request with a body of JSON, on its own connection; the answer's body. Raises Missing unless it is a 2xx."""
    connection = http.client.HTTPConnection("bench", timeout=300)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(300)
        connection.sock.connect(str(path))
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, target, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise Missing(f"{method} {target}: {answer.status} {found.decode(errors='replace')[:300]}")
    return found


def hijack(path: Path, target: str, body: object = None) -> socket.socket:
    """A connection that was upgraded and is now a raw stream; nothing of it has been read."""
    data = b"{}" if body is None else json.dumps(body).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(300)
    connection.connect(str(path))
    head = f"POST {target} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            raise Missing(f"{target}: {answer.decode(errors='replace')}")
        answer += piece
    if answer.split()[1] != b"101":
        raise Missing(f"{target}: {answer.decode(errors='replace')}")
    return connection


def is_whole(answer: bytes) -> bool:
    """Whether this is all of an answer, chunked or with a length."""
    head, _, body = answer.lower().partition(b"\r\n\r\n")
    sizes = [int(line.split()[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
    return len(body) >= sizes[0] if sizes else body.endswith(b"\r\n0\r\n\r\n")


def rate_of_same(path: Path, target: str, seconds: float, *, clients: int = 4) -> float:
    """Requests a second on some kept connections, for an answer that has always the same length: little work here."""
    question = f"GET {target} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
    buffer = bytearray(1 << 20)
    with ExitStack() as stack:
        chosen = stack.enter_context(selectors.DefaultSelector())
        missing: dict[socket.socket, int] = {}
        for _ in range(clients):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(path))
            connection.sendall(question)
            answer = connection.recv(1 << 20)
            while not is_whole(answer):
                answer += connection.recv(1 << 20)
            missing[connection] = length = len(answer)
            chosen.register(connection, selectors.EVENT_READ)
        for connection in missing:
            connection.sendall(question)
        count, begun = 0, time.perf_counter()
        while (now := time.perf_counter()) < begun + seconds:
            for key, _ in chosen.select():
                connection = key.fileobj  # type: ignore[assignment]
                missing[connection] -= connection.recv_into(buffer)
                if not missing[connection]:
                    count += 1
                    missing[connection] = length
                    connection.sendall(question)
    return count / (now - begun)


def rate(path: Path, target: str, seconds: float) -> float:
    """Requests a second on one kept connection, bodies read whole."""
    count = 0
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        reader = connection.makefile("rb")
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            length, is_chunked = 0, False
            while (line := reader.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
                is_chunked = is_chunked or line == b"transfer-encoding: chunked"
            if is_chunked:
                while size := int(reader.readline(), 16):
                    reader.read(size + 2)
                reader.readline()
            else:
                reader.read(length)
            count += 1
    return count / seconds
