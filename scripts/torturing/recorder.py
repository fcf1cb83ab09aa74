"""A file that remembers everything that was done to it: the disk below an engine whose power is cut later.

    python3 -IS recorder.py DIRECTORY IMAGE LOG

DIRECTORY becomes a FUSE file system with the one file `disk`, as long as IMAGE (a sparse file that is there), which holds its
content. Each write and each fsync is appended to LOG in the order in which they came. A loop device over `disk` makes a disk of
it: the kernel turns flushes and forced writes of the file system above into fsyncs of the file (drivers/block/loop.c), and
writes reach us at once, for nothing is cached in between (FOPEN_DIRECT_IO).

LOG: records of time (ns, CLOCK_MONOTONIC), offset, length, and that many bytes; a flush has the offset FLUSH and no bytes.
Prints `ready` when mounted, ends when unmounted. Standard library only. Source: linux/fuse.h (7.31), fuse(4).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

RECORD = struct.Struct("<QQI")
FLUSH = (1 << 64) - 1
FILE = "disk"

_MAX_WRITE = 1 << 20
_IN, _OUT = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_ATTR = struct.Struct("<6Q10I")
_ROOT, _NODE = 1, 2
_FOREVER_S = 1 << 30
_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _STATFS, _RELEASE, _FSYNC = (
    1,
    2,
    3,
    4,
    14,
    15,
    16,
    17,
    18,
    20,
)
_FLUSH, _INIT, _OPENDIR, _RELEASEDIR, _INTERRUPT, _DESTROY, _BATCH_FORGET = 25, 26, 27, 29, 36, 38, 42
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_DIRECT_IO = 1
_MS_NOSUID, _MS_NODEV = 2, 4


def records(log: Path) -> Iterator[tuple[int, int, bytes]]:
    """(time, offset, bytes) of each write, (time, FLUSH, b"") of each flush, as they came."""
    with log.open("rb") as file:
        while len(head := file.read(RECORD.size)) == RECORD.size:
            at, offset, length = RECORD.unpack(head)
            yield at, offset, file.read(length)


class Recorder:
    """Serves one /dev/fuse until the file system is unmounted."""

    def __init__(self, image: Path, log: Path) -> None:
        self._image = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._image).st_size

    def serve(self, device: int) -> None:
        """Answer until the end."""
        while True:
            try:
                request = os.read(device, _MAX_WRITE + 8192)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                raise
            _, opcode, unique, node, *_ = _IN.unpack_from(request)
            if opcode in (_FORGET, _BATCH_FORGET, _INTERRUPT):
                continue
            code, body = self._answer(opcode, node, memoryview(request)[_IN.size :])
            os.writev(device, [_OUT.pack(_OUT.size + len(body), -code, unique), body])

    def _answer(self, opcode: int, node: int, body: memoryview) -> tuple[int, bytes]:
        """(errno, answer)."""
        if opcode == _WRITE:
            _, offset, size, *_ = struct.unpack_from("<QQIIQII", body)
            return self._write(offset, body[40 : 40 + size])
        if opcode == _READ:
            _, offset, size, *_ = struct.unpack_from("<QQIIQII", body)
            return 0, os.pread(self._image, size, offset)
        if opcode == _FSYNC:
            os.write(self._log, RECORD.pack(time.monotonic_ns(), FLUSH, 0))
            return 0, b""
        if opcode == _INIT:
            flags = _BIG_WRITES | _MAX_PAGES
            return 0, struct.pack(
                "<IIIIHHIIHH8I", 7, 31, 0, flags, 16, 12, _MAX_WRITE, 1, _MAX_WRITE // 4096, 0, *[0] * 8
            )
        if opcode == _LOOKUP:
            if node != _ROOT or bytes(body).rstrip(b"\0") != FILE.encode():
                return errno.ENOENT, b""
            return 0, struct.pack("<QQQQII", _NODE, 0, _FOREVER_S, _FOREVER_S, 0, 0) + self._attributes(_NODE)
        if opcode in (_GETATTR, _SETATTR):
            return 0, struct.pack("<QII", _FOREVER_S, 0, 0) + self._attributes(node)
        if opcode in (_OPEN, _OPENDIR):
            return 0, struct.pack("<QII", 0, _DIRECT_IO if opcode == _OPEN else 0, 0)
        if opcode in (_FLUSH, _RELEASE, _RELEASEDIR, _DESTROY):
            return 0, b""
        if opcode == _STATFS:
            return 0, bytes(80)
        return errno.ENOSYS, b""  # discard among them: what was written stays

    def _write(self, offset: int, data: memoryview) -> tuple[int, bytes]:
        os.pwrite(self._image, data, offset)
        os.writev(self._log, [RECORD.pack(time.monotonic_ns(), offset, len(data)), data])
        return 0, struct.pack("<II", len(data), 0)

    def _attributes(self, node: int) -> bytes:
        is_file = node == _NODE
        mode = stat.S_IFREG | 0o600 if is_file else stat.S_IFDIR | 0o700
        size = self._size if is_file else 0
        return _ATTR.pack(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1 if is_file else 2, 0, 0, 0, 4096, 0)


def main(directory: str, image: str, log: str) -> int:
    """Mount, say so, and serve."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    if libc.mount(b"recorder", directory.encode(), b"fuse", _MS_NOSUID | _MS_NODEV, options.encode()):
        print(f"recorder: cannot mount: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 1
    print("ready", flush=True)
    Recorder(Path(image), Path(log)).serve(device)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
