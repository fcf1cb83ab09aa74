"""An engine that only listens: it records what a client asks for and answers just enough for it to go on."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import tarfile
import threading
from pathlib import Path
from typing import IO, Any


def _chunks(stream: IO[bytes]) -> bytes:
    data = b""
    while size := int(stream.readline(), 16):
        data += stream.read(size)
        stream.readline()
    stream.readline()
    return data


def _tar(data: bytes) -> list[tuple[object, ...]]:
    """What an uploaded tar holds: a tuple for each member, with its contents."""
    found: list[tuple[object, ...]] = []
    with contextlib.suppress(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(data)) as archive:
        # docker leaves the end out when it adds a Dockerfile: what came before it counts.
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            text = file.read() if file else None
            owner = (member.uid, member.gid, member.uname, member.gname)
            found.append((member.name, member.type, member.mode, member.mtime, *owner, member.linkname, text))
    return found


class Recorder:
    """Listens on a unix socket; `requests` are (method, target, JSON body or members of the uploaded tar), in order."""

    def __init__(self, directory: Path, *, version: str = "1.50") -> None:
        self.path = directory / "recorder.sock"
        self.host = f"unix://{self.path}"
        self.requests: list[tuple[str, str, Any]] = []
        self._version = version
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        self.path.unlink()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while line := stream.readline():
            method, target, _ = line.decode().split()
            headers: dict[str, str] = {}
            while header := stream.readline().strip():
                name, _, value = header.decode().partition(":")
                headers[name.lower()] = value.strip()
            if headers.get("transfer-encoding") == "chunked":
                found: Any = _tar(_chunks(stream))
            else:
                body = stream.read(int(headers.get("content-length", 0)))
                found = json.loads(body) if body else None
            self.requests.append((method, target, found))
            self._answer(connection, method, target)

    def _answer(self, connection: socket.socket, method: str, target: str) -> None:
        status, text = "400 Bad Request", json.dumps({"message": "recorded"})
        if target.endswith("/_ping"):
            status, text = "200 OK", "OK"
        head = (
            f"HTTP/1.1 {status}\r\nApi-Version: {self._version}\r\nOstype: linux\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        )
        connection.sendall(head.encode() + (b"" if method == "HEAD" else text.encode()))
