"""Detach keys in the stream, whole and in pieces."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.wire.detach import DEFAULT, DetachFilter, parse_keys


@pytest.mark.parametrize(
    ("text", "keys"), [("", b"\x10\x11"), ("ctrl-a", b"\x01"), ("a,b", b"ab"), ("ctrl-@,ctrl-[", b"\0\x1b")]
)
def test_parse(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-1", "abc", "ctrl-", ","])
def test_refusals(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_keys(text)


@pytest.mark.parametrize(
    ("pieces", "passed", "detached"),
    [
        ([b"hello"], b"hello", False),
        ([b"ab\x10\x11cd"], b"ab", True),
        ([b"ab\x10", b"\x11"], b"ab", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
    ],
)
def test_filter(pieces: list[bytes], passed: bytes, detached: bool) -> None:
    keys = DetachFilter(DEFAULT)
    out, ended = b"", False
    for piece in pieces:
        data, ended = keys.feed(piece)
        out += data
    assert (out, ended) == (passed, detached)
