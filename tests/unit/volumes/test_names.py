"""Which names a volume can have."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.volumes.names import check_name


@pytest.mark.parametrize("name", ["ab", "a.b-c_d", "0x", "a" * 255])
def test_good_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a", "too short"),
        ("", "invalid characters"),
        ("..", "invalid characters"),
        ("a/b", "invalid characters"),
        ("a b", "invalid characters"),
        ("ab\n", "invalid characters"),
        ("-ab", "invalid characters"),
        ("é" * 3, "invalid characters"),
        ("a" * 256, "too long"),
    ],
)
def test_bad_names(name: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        check_name(name)
