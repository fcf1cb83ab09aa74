"""Names: allowed ones, refused ones, made-up ones."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.containers import names


@pytest.mark.parametrize("name", ["web", "/web", "Web-1.2_x", "0a", "a" * 255])
def test_allowed(name: str) -> None:
    assert names.check_name(name) == name.removeprefix("/")


@pytest.mark.parametrize(
    "name", ["", "/", "a", "-web", ".web", "_web", "we b", "web\n", "//web", "we/b", "wéb", "../x", "a" * 256, "web\0"]
)
def test_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="are allowed"):
        names.check_name(name)


def test_made_up_names_are_allowed_ones() -> None:
    for _ in range(200):
        name = names.made_up(lambda _: False, "fallback")
        assert names.check_name(name) == name
        assert name != "boring_wozniak"
        assert not name[-1].isdigit()


def test_after_a_clash_comes_a_digit() -> None:
    asked: list[str] = []

    def is_taken(name: str) -> bool:
        asked.append(name)
        return len(asked) == 1

    name = names.made_up(is_taken, "fallback")
    assert len(asked) == 2
    assert name[-1].isdigit()


def test_when_everything_is_taken_the_id_is_the_name() -> None:
    asked: list[str] = []

    def is_taken(name: str) -> bool:
        asked.append(name)
        return True

    assert names.made_up(is_taken, "0123456789ab") == "0123456789ab"
    assert len(asked) == 6
