"""Room kept for the day the disk is full, so that records can still be written: start, stop, list, remove go on.

    <data-root>/reserve/<n>      files of zeros, of which each holds blocks and one inode

A piece or more is given up when there is no room for a record or for the files of a start (`make_room`); all are made again
once a twentieth of the disk is free (`refill`). Work that needs much room (images, builds) never gets any of it: it stops while a
twentieth is still free (`check_room`). Blocking, but for a moment only.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from tare.base.errors import Unavailable

log = logging.getLogger(__name__)

PIECES = 32
KEEP_FREE = 20  # one part in so many
_PIECE_BYTES = 512 * 1024
_SHARE = 1024  # a piece is at most this part of a disk
_BLOCK = 4096
_ROOM_PIECES = 4
_ROOM_INODES = 12
_AT_ONCE = 16


def no_space() -> Unavailable:
    """What a client is told."""
    return Unavailable("no space left on device", hint="remove images or containers, then repeat")


class Reserve:
    """The pieces below a data root that exists."""

    def __init__(self, data_root: Path) -> None:
        self._directory = data_root / "reserve"
        self._root = data_root
        self.is_whole = False  # as far as is known here
        disk = os.statvfs(data_root)
        self._piece = max(_BLOCK, min(_PIECE_BYTES, disk.f_blocks * disk.f_frsize // _SHARE) // _BLOCK * _BLOCK)

    def pieces(self) -> int:
        """How many there are."""
        try:
            return len(os.listdir(self._directory))
        except FileNotFoundError:
            return 0

    def make_room(self) -> bool:
        """Give up as many pieces as a record or a start needs, none if there is room. False when there is no more to give."""
        wanted = _ROOM_PIECES * self._piece
        given = 0
        while given < _AT_ONCE and not (
            _has(self._root, size=wanted, inodes=_ROOM_INODES) or self._is_writable(wanted)
        ):
            try:
                name = os.listdir(self._directory)[0]
            except (FileNotFoundError, IndexError):
                return given > 0
            self.is_whole = False
            os.unlink(self._directory / name)
            given += 1
        if given:
            log.warning(
                "%s is full: %d pieces of the reserve were given up, %d are left", self._root, given, self.pieces()
            )
        return True

    def _is_writable(self, size: int) -> bool:
        """Whether root may have so much where others have none left: file systems keep blocks back, and say so in different ways."""
        if (disk := os.statvfs(self._root)).f_files and disk.f_ffree < _ROOM_INODES:
            return False
        try:
            self._make(self._root / "reserve.probe", size)
        except OSError:
            return False
        os.unlink(self._root / "reserve.probe")
        return True

    def refill(self) -> None:
        """Make the missing pieces again if there is plenty of room. What cannot be made is left for another time."""
        missing = PIECES - self.pieces()
        self.is_whole = missing <= 0
        if self.is_whole or not _has(self._root, size=missing * self._piece, inodes=missing + 1, keep=KEEP_FREE):
            return
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            for number in range(PIECES):
                self._make(self._directory / str(number), self._piece)
            self.is_whole = True
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    @staticmethod
    def _make(path: Path, size: int) -> None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)


def check_room(path: Path, coming: int = 0) -> None:
    """Raise Unavailable unless a twentieth of the disk (and of its inodes) is still free after `coming` bytes more."""
    if not _has(path, size=coming, inodes=1, keep=KEEP_FREE):
        raise no_space()


def _has(path: Path, *, size: int, inodes: int, keep: int = 0) -> bool:
    """Whether so much is free, and beside it one part in `keep` of the disk. File systems without a number of inodes say 0."""
    disk = os.statvfs(path)
    blocks, files = (disk.f_blocks // keep, disk.f_files // keep) if keep else (0, 0)
    return (disk.f_bavail - blocks) * disk.f_frsize >= size and (not disk.f_files or disk.f_ffree - files >= inodes)
