"""Blobs on their way from a registry: each is fetched once, whoever wants it, and goes on where it was.

    <data-root>/downloads/<hex>     what has come of the blob so far; its length says how much

A file stays when a pull fails or the engine is killed; the next pull asks for the rest only. Nothing in it is trusted:
whoever reads it through to the end compares the digest. `forget` removes it once an image holds the blob, `sweep` (at
start) when nobody came back for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from tare.aio.tasks import settle, spawn
from tare.aio.threads import in_thread
from tare.base.digest import Digest, hex_of
from tare.base.errors import DataCorrupt, Unavailable
from tare.registry.challenge import Refusal
from tare.registry.transport import Unreachable, pause

log = logging.getLogger(__name__)

KEPT_S = 7 * 24 * 3600
_BLOCK = 1024 * 1024
_KEEP_FREE = 20  # one in so many blocks of the disk stays free: 5 %
_NAME = re.compile(r"[0-9a-f]{64}\Z")

Opened = AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]
Open = Callable[[int], Opened]
"""Ask for the bytes from an offset on; yields where they really begin, and the bytes."""
WaitAfter = Callable[[Exception, int], float | None]
"""How long to wait after attempt number n failed with this; None to give up."""


class Download:
    """One blob on its way. `have` bytes are in the file; `is_resumed`: some of them were there before."""

    def __init__(self, path: Path, digest: Digest, size: int) -> None:
        self.path = path
        self.digest = digest
        self.size = size
        self.have = 0
        self.is_waiting = True
        self.is_resumed = False
        self.is_done = False
        self.users = 0
        self.is_forgotten = False
        self.error: BaseException | None = None
        self.task: asyncio.Task[None] | None = None
        self._event = asyncio.Event()

    def __repr__(self) -> str:
        return f"Download({self.digest}, {self.have} of {self.size})"

    def tell(self) -> None:
        """Wake everybody who waits for news."""
        self._event.set()
        self._event = asyncio.Event()

    async def news(self) -> None:
        """Return when something has changed."""
        await self._event.wait()

    async def finished(self) -> None:
        """Return when all bytes are in the file. Raises what went wrong."""
        while not self.is_done:
            if self.error is not None:
                raise self.error
            await self.news()

    async def chunks(self) -> AsyncIterator[bytes]:
        """All bytes from the first, as they come. Raises what went wrong with the download."""
        fd = -1
        at = 0
        try:
            while at < self.size:
                while self.have <= at:
                    if self.error is not None:
                        raise self.error
                    await self.news()
                if fd < 0:
                    fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                chunk = await in_thread(os.pread, fd, min(_BLOCK, self.have - at), at)
                if not chunk:
                    raise Unavailable(f"blob {self.digest}: its file was cut short")
                at += len(chunk)
                yield chunk
        finally:
            if fd >= 0:
                os.close(fd)


class Downloads:
    """Everything on its way. `slots`: how many at a time."""

    def __init__(self, data_root: Path, *, slots: int) -> None:
        self._root = data_root / "downloads"
        self._root.mkdir(mode=0o700, exist_ok=True)
        self._slots = asyncio.Semaphore(slots)
        self._active: dict[Digest, Download] = {}

    def __repr__(self) -> str:
        return f"Downloads({len(self._active)} under way)"

    def sweep(self, *, now_s: float, kept_s: float = KEPT_S) -> list[str]:
        """At start: remove what nobody came back for, and what is not ours. The names removed."""
        removed = []
        for name in sorted(os.listdir(self._root)):
            path = self._root / name
            if not _NAME.match(name) or path.lstat().st_mtime < now_s - kept_s:
                path.unlink()
                removed.append(name)
        return removed

    def path(self, digest: Digest) -> Path:
        """Where the blob is collected. Raises DataCorrupt for what cannot be stored."""
        if not digest.startswith("sha256:"):
            raise DataCorrupt(f"blob {digest}: only sha256 names can be stored")
        return self._root / hex_of(digest)

    @asynccontextmanager
    async def fetch(self, digest: Digest, size: int, *, source: Open, wait_after: WaitAfter) -> AsyncIterator[Download]:
        """Take part in the download of the blob, which begins with the first who comes and stops with the last."""
        download = self._active.get(digest)
        if download is None or download.error is not None:
            download = Download(self.path(digest), digest, size)
            self._active[digest] = download
            download.task = spawn(self._run(download, source, wait_after), name=f"download {digest}", is_awaited=True)
        elif download.size != size:
            raise DataCorrupt(f"blob {digest} cannot have {size} bytes: another manifest says {download.size}")
        download.users += 1
        try:
            yield download
        finally:
            download.users -= 1
            if not download.users:
                await self._end(download)

    async def _end(self, download: Download) -> None:
        if self._active.get(download.digest) is download:
            del self._active[download.digest]
        if download.task is not None:
            download.task.cancel()
            await asyncio.wait({download.task})
        if download.is_forgotten:
            download.path.unlink(missing_ok=True)

    def forget(self, digest: Digest) -> None:
        """The blob is in the store, or was wrong: its file goes, at once or when the last user leaves."""
        download = self._active.get(digest)
        if download is not None:
            download.is_forgotten = True
        else:
            self.path(digest).unlink(missing_ok=True)

    async def _run(self, download: Download, source: Open, wait_after: WaitAfter) -> None:
        try:
            async with self._slots:
                await self._fill(download, source, wait_after)
            download.is_done = True
        except asyncio.CancelledError:
            download.error = Unavailable(f"the download of {download.digest} was given up")
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                download.error = Unavailable(f"cannot store blob {download.digest}: {os.strerror(error.errno or 0)}")
            else:
                download.path.unlink(missing_ok=True)  # what is full is not helped by a part of a blob
                download.error = _full()
        except Exception as error:
            download.error = error
        finally:
            download.tell()

    async def _fill(self, download: Download, source: Open, wait_after: WaitAfter) -> None:
        fd = os.open(download.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            there = os.fstat(fd).st_size
            if there > download.size:
                os.ftruncate(fd, 0)
                there = 0
            download.have, download.is_resumed, download.is_waiting = there, there > 0, False
            download.tell()
            _check_room(fd, download.size - there)
            failures = 0
            while download.have < download.size:
                before = download.have
                try:
                    async with source(download.have) as (start, chunks):
                        await self._write(fd, download, start, chunks)
                    if download.have < download.size:
                        raise Unreachable(
                            f"blob {download.digest} ended after {download.have} of {download.size} bytes"
                        )
                except (Refusal, Unreachable) as error:
                    if isinstance(error, Refusal) and error.status == 416:
                        raise DataCorrupt(
                            f"blob {download.digest}: the registry has fewer bytes than came before"
                        ) from None
                    failures = failures + 1 if download.have == before else 1
                    wait_s = wait_after(error, failures)
                    if wait_s is None:
                        raise
                    log.info("%r: %s; again in %.1f s", download, error.message, wait_s)
                    await pause(wait_s)
        finally:
            os.close(fd)

    async def _write(self, fd: int, download: Download, start: int, chunks: AsyncIterator[bytes]) -> None:
        """Append what is new of the bytes that begin at `start`; what came before a cut is kept."""
        skip = download.have - start  # a registry without ranges begins at 0 again
        pending: list[bytes] = []
        held = 0

        async def flush() -> None:
            nonlocal held
            if pending:
                # The descriptor must not be closed, and its number be given away, while a thread writes to it.
                await settle(in_thread(_append, fd, download.have, b"".join(pending)), name="write to a download")
                download.have += held
                pending.clear()
                held = 0
                download.tell()

        try:
            async for came in chunks:
                fresh = came
                if skip:
                    fresh, skip = came[skip:], max(0, skip - len(came))
                if not fresh:
                    continue
                if download.have + held + len(fresh) > download.size:
                    raise DataCorrupt(f"blob {download.digest} is longer than the {download.size} bytes promised")
                pending.append(fresh)
                held += len(fresh)
                if held >= _BLOCK:
                    await flush()
        except Unreachable:
            await flush()
            raise
        await flush()


def _append(fd: int, at: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def _check_room(fd: int, wanted: int) -> None:
    """Raise OSError (ENOSPC) when the blob cannot fit without filling the disk."""
    found = os.fstatvfs(fd)
    if found.f_bavail * found.f_frsize - wanted < found.f_blocks * found.f_frsize // _KEEP_FREE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full() -> Unavailable:
    return Unavailable("no space left on device", hint="remove images or containers, then repeat")


def file_digest(path: Path, size: int) -> str:
    """The sha256 of a file of that length; "" when it has another. Blocking."""
    import hashlib

    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == size:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def now_s() -> float:
    """The wall clock, which file times are compared with."""
    return time.time()


__all__ = ["Download", "Downloads", "Open", "file_digest"]
