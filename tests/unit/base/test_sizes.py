from __future__ import annotations

import pytest

from tare.base.sizes import parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [("1", 1), ("1k", 1024), ("1KB", 1024), ("1kib", 1024), ("1.5g", 1610612736), ("2 m", 2097152), ("3b", 3)],
)
def test_parse_bytes(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "x", "1x", "-1", "1.2.3", "1ibb"])
def test_parse_bytes_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        parse_bytes(text)
