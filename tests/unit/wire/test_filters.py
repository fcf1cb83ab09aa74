"""Both spellings of filters, and labels."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.wire.filters import flag, labels_match, parse_filters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ('{"name":["a","b"]}', {"name": ["a", "b"]}),
        ('{"name":{"a":true,"b":false}}', {"name": ["a"]}),
        ('{"name":[]}', {}),
    ],
)
def test_parse(text: str, expected: dict[str, list[str]]) -> None:
    assert parse_filters(text, {"name"}) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "invalid filter"),
        ("[]", "invalid filter"),
        ('{"name":1}', "invalid filter"),
        ('{"x":["1"]}', "invalid filter 'x'"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse_filters(text, {"name"})


def test_flag() -> None:
    assert flag({}, "dangling") is None
    assert flag({"dangling": ["1"]}, "dangling") is True
    assert flag({"dangling": ["false"]}, "dangling") is False
    with pytest.raises(InvalidArgument):
        flag({"dangling": ["maybe"]}, "dangling")


@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        ({"label": ["a"]}, True),
        ({"label": ["a=1"]}, True),
        ({"label": ["a=2"]}, False),
        ({"label": ["a", "b"]}, False),
        ({"label!": ["a=2"]}, True),
        ({"label!": ["a"]}, False),
    ],
)
def test_labels(filters: dict[str, list[str]], holds: bool) -> None:
    assert labels_match(filters, {"a": "1"}) is holds
