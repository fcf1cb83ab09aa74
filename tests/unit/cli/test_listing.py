from __future__ import annotations

import pytest

from tare.cli import listing


def test_table_pads_as_tabwriter_does() -> None:
    assert listing.table([["A", "LONGER NAME", "END"], ["1", "2", "3"]]) == (
        "A         LONGER NAME   END\n1         2             3\n"
    )


def test_filters_take_the_map_form() -> None:
    assert listing.filters(["name=b", "name=a", "Status=x=y"]) == '{"name":{"a":true,"b":true},"status":{"x=y":true}}'
    assert listing.filters([]) == ""


def test_escape_makes_controls_visible() -> None:
    assert listing.escape("a\x1b[31m\r\u202eé") == "a\\x1b[31m\\x0d\\u202eé"


@pytest.mark.parametrize(("text", "width", "cut"), [("abcdef", 4, "abc…"), ("abc", 3, "abc"), ("abc", 1, "a")])
def test_ellipsis(text: str, width: int, cut: str) -> None:
    assert listing.ellipsis(text, width) == cut


def test_short_id() -> None:
    assert listing.short_id("sha256:" + "a" * 64) == "a" * 12
