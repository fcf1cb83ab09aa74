"""Rotated log files kept as gzip: `container.log.2.gz`. `zcat` reads them.

The name in the gzip header is not a file name but what the plain file was known by (`identity_of`): a reader that has
that one open still finds its successor when it is replaced.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from isal import isal_zlib

SUFFIX = ".gz"
STAMP_BYTES = 35  # `2026-11-23T21:11:39.123456789+00:00`
_PIECE = 1 << 20
_LEVEL = 2
_GZIP, _RAW = 31, -15  # wbits
_NAMED, _UNIX = 8, 3  # the flag FNAME, the system (RFC 1952, 2.3)
_HEADER = 10  # where the name begins when it is all there is
_NAME_LIMIT = 128
_Damaged: type[Exception] = isal_zlib.error  # type: ignore[assignment]


def identity_of(fd: int) -> str:
    """Names a plain log file whatever its path; "" while it is empty. A number that the disk gives again differs by its first time stamp."""
    head = os.pread(fd, STAMP_BYTES, 0)
    return f"{os.fstat(fd).st_ino} {head.decode('ascii', 'replace')}" if len(head) == STAMP_BYTES else ""


def origin_of(fd: int) -> str:
    """`identity_of` the file that was packed; "" when the header does not say."""
    head = os.pread(fd, _HEADER + _NAME_LIMIT, 0)
    if len(head) < _HEADER or head[:3] != b"\x1f\x8b\x08" or head[3] != _NAMED:
        return ""
    return head[_HEADER:].partition(b"\0")[0].decode("latin-1")


def pack(source: int, target: Path) -> None:
    """Write what `source` holds, synced, with its times. Raises OSError."""
    about = os.fstat(source)
    with open(target, "wb") as out:
        os.fchmod(out.fileno(), 0o640)
        out.write(b"\x1f\x8b\x08" + bytes([_NAMED, 0, 0, 0, 0, 0, _UNIX]) + identity_of(source).encode() + b"\0")
        packer, check, at = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW), 0, 0
        while piece := os.pread(source, _PIECE, at):
            at += len(piece)
            check = isal_zlib.crc32(piece, check)
            out.write(packer.compress(piece))
        out.write(packer.flush() + struct.pack("<II", check, at & 0xFFFFFFFF))
        out.flush()
        os.fdatasync(out.fileno())
    os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))


def unpacked(fd: int, directory: Path) -> int:
    """A descriptor of the plain bytes, with the times of `fd`, in a file without a name in `directory`.

    Of a damaged file there is as much as can be read. Raises OSError.
    """
    out = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        reader, at = isal_zlib.decompressobj(_GZIP), 0
        while piece := os.pread(fd, _PIECE, at):
            at += len(piece)
            while plain := reader.decompress(piece, _PIECE):
                os.write(out, plain)
                piece = reader.unconsumed_tail
    except _Damaged:
        pass  # what came before it is worth reading
    except BaseException:
        os.close(out)
        raise
    about = os.fstat(fd)
    os.utime(out, ns=(about.st_atime_ns, about.st_mtime_ns))
    return out
