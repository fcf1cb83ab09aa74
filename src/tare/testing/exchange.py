"""An engine's API as tests use it: one request, one answer, on a connection of its own. Any engine that speaks it will do."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

JSON = {"Content-Type": "application/json"}
TAR = {"Content-Type": "application/x-tar"}


class Refused(Exception):
    """The engine said no, in its answer's status or in the last message of a stream."""


class Api:
    """What listens on a unix socket. Raises OSError where nobody does, and EOFError where it died while answering."""

    def __init__(self, path: Path, *, timeout_s: float = 30) -> None:
        self.socket = path
        self.timeout_s = timeout_s

    @property
    def host(self) -> str:
        """For DOCKER_HOST."""
        return f"unix://{self.socket}"

    def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body, read whole."""
        lines = [f"{method} {quote(path, safe='/?&=:%+')} HTTP/1.1", "Host: test", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(self.timeout_s)
            connection.connect(str(self.socket))
            connection.sendall("\r\n".join(lines).encode() + body)
            pieces = []
            try:
                while piece := connection.recv(1 << 20):
                    pieces.append(piece)
            except ConnectionResetError:  # it closed without reading what lies behind the end of a tar
                if not pieces:
                    raise
        head, end, rest = b"".join(pieces).partition(b"\r\n\r\n")
        if not end:
            raise EOFError(f"{method} {path}: no answer")
        status = int(head.split()[1])
        return status, _unchunk(rest) if b"transfer-encoding: chunked" in head.lower() else rest

    def json(self, method: str, path: str, body: object = None, *, expect: int = 200) -> Any:
        """One exchange of JSON; the status must be `expect`."""
        data = b"" if body is None else json.dumps(body).encode()
        status, answer = self.request(method, path, body=data, headers=JSON)
        assert status == expect, answer
        return json.loads(answer) if answer else None

    def call(self, method: str, path: str, body: object = b"", headers: Mapping[str, str] | None = None) -> bytes:
        """One exchange that must succeed, to the last message of its stream. Raises Refused."""
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), JSON
        status, answer = self.request(method, path, body=body, headers=headers)
        if status >= 400:
            raise Refused(f"{method} {path}: {status} {answer.decode(errors='replace')[:500]}")
        if b'"errorDetail"' in answer or b'"error"' in answer:
            raise Refused(f"{method} {path}: {answer.splitlines()[-1].decode(errors='replace')[:500]}")
        return answer

    def import_image(self, reference: str, tar: bytes, changes: Sequence[str] = ()) -> str:
        """Make an image from a tar. Returns its id."""
        name, _, tag = reference.partition(":")
        query = urlencode([("fromSrc", "-"), ("repo", name), ("tag", tag), *(("changes", c) for c in changes)])
        status, body = self.request("POST", f"/images/create?{query}", body=tar, headers=TAR)
        assert status == 200, body
        return str(json.loads(body.splitlines()[-1])["status"])


def _unchunk(raw: bytes) -> bytes:
    """Raises EOFError where the last chunk is missing: whoever wrote it died."""
    pieces: list[bytes] = []
    at = 0
    while (end := raw.find(b"\r\n", at)) >= 0:
        length = int(raw[at:end], 16)
        if length == 0:
            return b"".join(pieces)
        at = end + 2 + length + 2
        if len(raw) < at:
            break
        pieces.append(raw[end + 2 : at - 2])
    raise EOFError("the answer was cut off")


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """An archive of plain files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def archive_of(reference: str, layers: Sequence[bytes]) -> bytes:
    """What `docker save` would write of an image of these layers."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": names}]
    files = {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(config).encode()}
    return tar_of({**files, **dict(zip(names, layers, strict=True))})
