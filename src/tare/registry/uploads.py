"""Sending a blob: as much as the registry takes at once, and after a cut from where it stopped.

    <data-root>/uploads/<hex>     where the registry wants the rest of a blob, one URL; gone when it has it

The name is the digest of registry, repository and blob. The URL may hold the registry's own state of the upload, so the
files are private. An engine that was killed asks the registry how far it came before it begins again.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlencode

from tare.aio.threads import in_thread
from tare.base.digest import Digest, hex_of, sha256
from tare.base.errors import Unavailable
from tare.registry import hosts
from tare.registry.challenge import Refusal
from tare.registry.remote import Remote
from tare.registry.transport import Unreachable, pause

_BLOCK = 1024 * 1024
_WHOLE = 1024 * 1024  # a blob up to here goes in one request
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)\Z")
_MAX_URL = 16 * 1024

Report = Callable[[int], None]
"""Told how many bytes have been handed to the connection."""


class Uploads:
    """Where uploads stand. Blocking calls are small: one file of one line."""

    def __init__(self, data_root: Path) -> None:
        self._root = data_root / "uploads"
        self._root.mkdir(mode=0o700, exist_ok=True)

    def __repr__(self) -> str:
        return f"Uploads({self._root})"

    def sweep(self, *, older_than_s: float) -> None:
        """At start: forget what nobody came back for."""
        for name in os.listdir(self._root):
            path = self._root / name
            if path.lstat().st_mtime < older_than_s:
                path.unlink()

    def _path(self, remote: Remote, digest: Digest) -> Path:
        return self._root / hex_of(sha256(f"{remote.domain}/{remote.path} {digest}".encode()))

    def recall(self, remote: Remote, digest: Digest) -> str:
        """The URL an earlier attempt was sent to, "" for none."""
        try:
            return self._path(remote, digest).read_text()[:_MAX_URL]
        except (OSError, UnicodeDecodeError):
            return ""

    def remember(self, remote: Remote, digest: Digest, url: str) -> None:
        """The registry takes the rest there."""
        path = self._path(remote, digest)
        fresh = path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(url)
        os.rename(fresh, path)

    def forget(self, remote: Remote, digest: Digest) -> None:
        """The registry has it all, or does not know the upload."""
        self._path(remote, digest).unlink(missing_ok=True)

    async def send(
        self, remote: Remote, digest: Digest, size: int, *, file: int, location: str, report: Report
    ) -> None:
        """Send the blob behind descriptor `file`. location: of an upload that was just begun, "" to look for an old one.

        Raises as `Remote.open`.
        """
        if location and size <= _WHOLE:
            await self._finish(remote, digest, location, await in_thread(os.pread, file, size, 0))
            report(size)
            return
        sent = 0
        if not location and (kept := self.recall(remote, digest)):
            location, sent = await self._standing(remote, kept)
        failures = 0
        while True:
            if not location:
                location, sent = await remote.begin_upload(), 0
            self.remember(remote, digest, location)
            before = sent
            try:
                if sent < size:
                    location = await self._patch(remote, location, file=file, start=sent, size=size, report=report)
                    sent = size
                await self._finish(remote, digest, location, b"")
                break
            except (Refusal, Unreachable) as error:
                failures += 1
                wait_s = remote.wait_after(error, failures)
                is_lost = isinstance(error, Refusal) and error.status in (404, 416)
                if wait_s is None and not (is_lost and failures < remote.options.attempts):
                    raise
                await pause(wait_s or 0)
                location, sent = await self._standing(remote, location)
                if sent > before:
                    failures = 0
        self.forget(remote, digest)

    async def _standing(self, remote: Remote, location: str) -> tuple[str, int]:
        """Where the rest goes and how much the registry has; "" when it knows nothing of that upload."""
        if hosts.origin(location)[0] not in ("http", "https"):
            return "", 0
        try:
            answer, _ = await remote.fetch("GET", location, ok=frozenset({200, 202, 204}))
        except Refusal as error:
            if error.status in (400, 404, 405):
                return "", 0
            raise
        found = _RANGE.match(answer.headers.get("Range", ""))
        got = int(found[1]) + 1 if found and found[1] != "0" else 0
        return remote.location(answer) if answer.headers.get("Location") else location, got

    async def _patch(self, remote: Remote, location: str, *, file: int, start: int, size: int, report: Report) -> str:
        async def body() -> AsyncIterator[bytes]:
            at = start
            while at < size:
                chunk = await in_thread(os.pread, file, min(_BLOCK, size - at), at)
                if not chunk:
                    raise Unavailable("a layer of the image was cut short on this machine")
                at += len(chunk)
                yield chunk
                report(at)

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size - start)}
        if start:
            headers["Content-Range"] = f"{start}-{size - 1}"
        ok = frozenset({200, 201, 202, 204})
        async with remote.open("PATCH", location, ok=ok, headers=headers, body=body) as answer:
            return remote.location(answer)

    @staticmethod
    async def _finish(remote: Remote, digest: Digest, location: str, body: bytes) -> None:
        url = location + ("&" if "?" in location else "?") + urlencode({"digest": digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(body))}
        async with remote.open("PUT", url, ok=frozenset({200, 201, 204}), headers=headers, body=body):
            return


__all__ = ["Uploads"]
