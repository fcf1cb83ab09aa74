"""Frames of the multiplexed stream."""

from __future__ import annotations

from tare.wire.frames import STDERR, STDOUT, frame


def test_frame() -> None:
    assert frame(STDOUT, b"hi\n") == b"\x01\0\0\0\0\0\0\x03hi\n"
    assert frame(STDERR, b"x" * 300)[:8] == b"\x02\0\0\0\0\0\x01\x2c"
    assert frame(STDOUT, b"") == b""
