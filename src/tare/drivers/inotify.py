"""inotify(7): wake when a file grows or is replaced, without polling."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from pathlib import Path

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


class Alarm:
    """Rings once, at the next change after it was set; `close` it, rung or not."""

    def __init__(self, alarms: Alarms, watches: frozenset[int]) -> None:
        self._alarms = alarms
        self.watches = watches
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def rung(self) -> None:
        """Wait for it. A change since it was set is not missed; several count as one."""
        await asyncio.shield(self.future)

    def close(self) -> None:
        """Take it back."""
        self._alarms.take_back(self)
        self.future.cancel()


class Alarms:
    """The next change of any number of files, each told once, through one inotify instance (users have 128).

    Any number may wait for one file. One that is written to all the time costs nothing between two alarms. Use it from
    one loop; `close()` it.
    """

    def __init__(self) -> None:
        self._fd = _instance()
        self._waiting: dict[int, set[Alarm]] = {}

    def set(self, path: Path, *, beside: Path | None = None) -> Alarm:
        """An alarm for when the file is written to, renamed or removed. Raises OSError without one.

        beside: a directory; rings also when something is renamed into it.
        """
        watches = [_add(self._fd, path, _IN_MODIFY | _IN_CLOSE_WRITE | _IN_MOVE_SELF | _IN_DELETE_SELF | _IN_ONESHOT)]
        if beside is not None:
            try:
                watches.append(_add(self._fd, beside, _IN_MOVED_TO | _IN_ONESHOT))
            except OSError:
                self.take_back(Alarm(self, frozenset(watches)))
                raise
        alarm = Alarm(self, frozenset(watches))
        if not self._waiting:
            asyncio.get_running_loop().add_reader(self._fd, self._read)
        for watch in watches:
            self._waiting.setdefault(watch, set()).add(alarm)
        return alarm

    async def next_change(self, path: Path) -> None:
        """Wait until the file is written to, renamed or removed. Raises OSError without one."""
        alarm = self.set(path)
        try:
            await alarm.rung()
        finally:
            alarm.close()

    def take_back(self, alarm: Alarm) -> None:
        """Forget an alarm; the kernel forgets what nobody waits for any more."""
        had = bool(self._waiting)
        for watch in alarm.watches:
            others = self._waiting.get(watch, set())
            others.discard(alarm)
            if not others:
                self._waiting.pop(watch, None)
                _libc.inotify_rm_watch(self._fd, watch)  # EINVAL where it has rung: the kernel has dropped it
        self._rest(had)

    def _rest(self, had: bool) -> None:
        if had and not self._waiting:
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
            # The kernel has dropped this watch by now; the next alarm for the file gets another number.
            for alarm in self._waiting.pop(watch, ()):
                if not alarm.future.done():
                    alarm.future.set_result(None)
        self._rest(True)

    def close(self) -> None:
        """Let go. Who still waits has been cancelled before."""
        os.close(self._fd)
