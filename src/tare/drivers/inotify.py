"""inotify(7) for one file at a time: wake when it grows or is replaced, without polling."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from tare.aio import proc

_libc = ctypes.CDLL(None, use_errno=True)
_IN_MODIFY = 0x2
_IN_CLOSE_WRITE = 0x8
_IN_MOVE_SELF = 0x800
_IN_DELETE_SELF = 0x400
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


class FileWatch:
    """Watches one path; `close()` it."""

    def __init__(self, path: Path) -> None:
        self._fd = _libc.inotify_init1(_FLAGS)
        if self._fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        mask = ctypes.c_uint32(_IN_MODIFY | _IN_CLOSE_WRITE | _IN_MOVE_SELF | _IN_DELETE_SELF)
        if _libc.inotify_add_watch(self._fd, os.fsencode(path), mask) < 0:
            code = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(code, os.strerror(code), str(path))

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
