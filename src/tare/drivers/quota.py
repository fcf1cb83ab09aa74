"""A limit on what lies below a directory: project quotas of xfs (mounted with pquota) and ext4 (prjquota).

A project is a number that a directory gives to what is made in it. Ours begin at a number far above those that
/etc/projid usually holds, and are found again from the directories themselves: nothing else is recorded.

Source: quotactl_fd(2), ioctl_fsgetxattr(2), include/uapi/linux/{quota,fs}.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Protocol

from tare.drivers import linux

FIRST_PROJECT = 0x7A00_0000
_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_XATTR = struct.Struct("=IIIII8s")  # flags, extent size, extents, project, copy-on-write extent size, padding
_INHERIT = 0x200
_PRJQUOTA = 2
_GETQUOTA, _SETQUOTA = 0x800007, 0x800008
_LIMITS = struct.Struct("=QQQQQQQQI4x")  # space hard, soft, used, inodes hard, soft, used, two times, what is valid
_SPACE_IS_VALID = 1
_BLOCK = 1024


class Kernel(Protocol):
    """What is asked of the kernel for an open directory; raises OSError."""

    def project(self, fd: int) -> int: ...

    def join(self, fd: int, project: int) -> None: ...

    def limits(self, fd: int, project: int) -> bytes: ...

    def limit(self, fd: int, project: int, limits: bytes) -> None: ...


class _Kernel:
    def project(self, fd: int) -> int:
        return int(_XATTR.unpack(fcntl.ioctl(fd, _FSGETXATTR, bytes(_XATTR.size)))[3])

    def join(self, fd: int, project: int) -> None:
        flags, extent, extents, _, cow, padding = _XATTR.unpack(fcntl.ioctl(fd, _FSGETXATTR, bytes(_XATTR.size)))
        fcntl.ioctl(fd, _FSSETXATTR, _XATTR.pack(flags | _INHERIT, extent, extents, project, cow, padding))

    def limits(self, fd: int, project: int) -> bytes:
        buffer = ctypes.create_string_buffer(_LIMITS.size)
        linux.quotactl_fd(fd, _GETQUOTA << 8 | _PRJQUOTA, project, buffer)
        return buffer.raw

    def limit(self, fd: int, project: int, limits: bytes) -> None:
        linux.quotactl_fd(fd, _SETQUOTA << 8 | _PRJQUOTA, project, ctypes.create_string_buffer(limits, _LIMITS.size))


class Quotas:
    """Limits for the directories below one, each a project of its own. Used by one thread at a time."""

    def __init__(self, root: Path, *, kernel: Kernel | None = None) -> None:
        self._root = root
        self._kernel = kernel or _Kernel()

    def is_served(self) -> bool:
        """Whether the file system of the root counts and limits projects."""
        root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._kernel.project(root)
            self._kernel.limits(root, FIRST_PROJECT)
        except OSError as error:
            return error.errno == errno.ENOENT  # xfs: nobody has used this project yet
        finally:
            os.close(root)
        return True

    def limit(self, directory: Path, size: int) -> None:
        """Let all that will be made in the empty `directory` take `size` bytes at most. Raises OSError."""
        taken = self._taken()
        project = FIRST_PROJECT
        while project in taken:
            project += 1
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            blocks = max(1, size // _BLOCK)
            self._kernel.limit(opened, project, _LIMITS.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _SPACE_IS_VALID))
            self._kernel.join(opened, project)
        finally:
            os.close(opened)

    def _taken(self) -> set[int]:
        """The projects of the directories that are there."""
        found: set[int] = set()
        with os.scandir(self._root) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    try:
                        opened = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                    except FileNotFoundError:
                        continue
                    try:
                        found.add(self._kernel.project(opened))
                    finally:
                        os.close(opened)
        return found
