"""The multiplexed stream of attach, exec and logs (W22).

A frame is `[stream, 0, 0, 0, length (4 bytes, big endian)]` and the payload.
"""

from __future__ import annotations

import struct

STDIN, STDOUT, STDERR, SYSTEM_ERROR = 0, 1, 2, 3
_HEADER = struct.Struct(">BxxxI")


def frame_header(stream: int, size: int) -> bytes:
    """The eight bytes before a payload of `size` bytes."""
    return _HEADER.pack(stream, size)


def frame(stream: int, payload: bytes) -> bytes:
    """One frame; an empty payload gives no bytes at all."""
    return _HEADER.pack(stream, len(payload)) + payload if payload else b""
