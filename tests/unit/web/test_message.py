"""Queries as Docker reads them."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.web.message import Query


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a=1", True),
        ("a=True", True),
        ("a=yes", True),
        ("a=0", False),
        ("a=no", False),
        ("a=FALSE", False),
        ("a=none", False),
        ("a=", False),
        ("", False),
    ],
)
def test_flag(raw: str, expected: bool) -> None:
    assert Query(raw).flag("a") is expected


def test_flag_default_only_when_absent() -> None:
    assert Query("").flag("a", default=True)
    assert not Query("a=0").flag("a", default=True)


def test_integer() -> None:
    assert Query("t=5").integer("t") == 5
    assert Query("t=-1").integer("t") == -1
    assert Query("t=").integer("t", 7) == 7
    with pytest.raises(InvalidArgument, match="parsing"):
        Query("t=x").integer("t")


def test_repeated_values_keep_their_order() -> None:
    assert Query("n=b&n=a&m=").all("n") == ["b", "a"]
    assert Query("m=").has("m")
