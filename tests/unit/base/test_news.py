"""News are values."""

from __future__ import annotations

import pytest

from tare.base.news import News


def test_news_are_equal_by_value_and_cannot_be_edited() -> None:
    one = News(type="container", action="start", id="a" * 64, attributes={"name": "web"})
    assert one == News(type="container", action="start", id="a" * 64, attributes={"name": "web"})
    with pytest.raises(AttributeError):
        one.action = "die"  # type: ignore[misc]


def test_attributes_are_not_shared() -> None:
    first, second = News(type="image", action="tag", id="x"), News(type="image", action="tag", id="x")
    first.attributes["name"] = "web"
    assert second.attributes == {}
