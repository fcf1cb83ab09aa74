"""An engine made of canned answers, on a real socket, for tests that run a whole command."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tare.cli.__main__ import main


class CannedEngine:
    """`answers` maps "METHOD /path" (without version and query) to (status, JSON value or bytes)."""

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self.answers: dict[str, tuple[int, Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.headers: dict[str, str] = {}
        self.received: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(16)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        with connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                method, target, _ = line.decode().split()
                headers = {}
                while header := stream.readline().strip():
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                self.received.append(headers)
                try:
                    body = self._body(stream, headers)
                except EOFError:
                    return  # the client has cut its upload short
                self._answer(connection, method, target, body)

    @staticmethod
    def _body(stream: Any, headers: dict[str, str]) -> Any:
        if headers.get("transfer-encoding") == "chunked":
            data = b""
            while (line := stream.readline()).strip() != b"0":
                if not line:
                    raise EOFError
                data += stream.read(int(line, 16))
                stream.readline()
            stream.readline()
            return data
        data = stream.read(int(headers.get("content-length", 0)))
        return json.loads(data) if data else None

    def _answer(self, connection: socket.socket, method: str, target: str, body: Any) -> None:
        path = target.partition("?")[0]
        if path == "/_ping":
            connection.sendall(b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 0\r\n\r\n")
            return
        path = path[path.index("/", 1) :]
        self.requests.append((method, target.partition("/v1.51")[2], body))
        status, value = self.answers.get(f"{method} {path}", (404, {"message": f"page not found: {path}"}))
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        kind = "application/octet-stream" if isinstance(value, bytes) else "application/json"
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
        head += "".join(f"{name}: {text}\r\n" for name, text in self.headers.items()) + "\r\n"
        connection.sendall(head.encode() + (b"" if method == "HEAD" else data))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[CannedEngine]:
    found = CannedEngine(tmp_path / "engine.sock")
    yield found
    found.close()


@pytest.fixture
def tare(engine: CannedEngine, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line against the canned engine: exit code, stdout, stderr."""

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(["-H", engine.host, *argv])
        found = capfd.readouterr()
        return code, found.out, found.err

    return run
