from __future__ import annotations

import pytest

from tare.cli.csvline import fields


@pytest.mark.parametrize(
    ("line", "found"), [("a,b", ["a", "b"]), ('"a,b",c', ["a,b", "c"]), ('"a""b"', ['a"b']), ("a,,b", ["a", "", "b"])]
)
def test_fields(line: str, found: list[str]) -> None:
    assert fields(line) == found


@pytest.mark.parametrize("line", ["", 'a"b', '"a', '"a"b'])
def test_fields_refuses(line: str) -> None:
    with pytest.raises(ValueError):
        fields(line)
