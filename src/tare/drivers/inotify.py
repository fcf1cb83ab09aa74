"""inotify(7): wake when a file grows or is replaced, without polling."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from pathlib import Path

from tare.aio import proc

_libc = ctypes.CDLL(None, use_errno=True)
_IN_MODIFY = 0x2
_IN_CLOSE_WRITE = 0x8
_IN_MOVE_SELF = 0x800
_IN_DELETE_SELF = 0x400
_IN_MOVED_TO = 0x80
_IN_ONESHOT = 0x80000000
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


def _instance() -> int:
    fd: int = _libc.inotify_init1(_FLAGS)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def _add(fd: int, path: Path, mask: int) -> int:
    watch: int = _libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask))
    if watch < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return watch


class FileWatch:
    """Watches one path; `close()` it."""

    def __init__(self, path: Path, *, beside: Path | None = None) -> None:
        """beside: a directory; wake also when something is renamed into it."""
        self._fd = _instance()
        try:
            _add(self._fd, path, _IN_MODIFY | _IN_CLOSE_WRITE | _IN_MOVE_SELF | _IN_DELETE_SELF)
            if beside is not None:
                _add(self._fd, beside, _IN_MOVED_TO)
        except OSError:
            os.close(self._fd)
            raise

    async def changed(self) -> None:
        """Wait for the next change; several at once count as one."""
        await proc.readable(self._fd)
        try:
            os.read(self._fd, 65536)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)


class Alarms:
    """The next change of any number of files, each told once, through one inotify instance (users have 128).

    A file that is being written to all the time costs nothing between two calls. Use it from one loop; `close()` it.
    """

    def __init__(self) -> None:
        self._fd = _instance()
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def next_change(self, path: Path) -> None:
        """Wait until the file is written to, renamed or removed. One waiter for a file. Raises OSError without one."""
        watch = _add(self._fd, path, _IN_MODIFY | _IN_MOVE_SELF | _IN_DELETE_SELF | _IN_ONESHOT)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.add_reader(self._fd, self._read)
        self._waiting[watch] = future
        try:
            await future
        finally:
            self._forget(watch)

    def _forget(self, watch: int) -> None:
        if self._waiting.pop(watch, None) is not None:
            _libc.inotify_rm_watch(self._fd, watch)
            if not self._waiting:
                asyncio.get_running_loop().remove_reader(self._fd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, _, _, size = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + size
            future = self._waiting.get(watch)
            if future is not None and not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Let go. Who still waits has been cancelled before."""
        os.close(self._fd)
