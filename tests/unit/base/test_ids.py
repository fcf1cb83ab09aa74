"""Ids: their form, and that a short one never reads as a number."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tare.base.ids import is_full_id, random_id, short_id


def test_random_ids_are_full_and_differ() -> None:
    ids = {random_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(is_full_id(one) for one in ids)


def test_an_id_that_begins_like_a_number_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    offered: Iterator[str] = iter(["123456789012" + "a" * 52, "12345678901a" + "0" * 52])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(offered))
    assert random_id() == "12345678901a" + "0" * 52


@pytest.mark.parametrize(
    "text", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "../" + "a" * 61, "sha256:" + "a" * 64]
)
def test_what_is_no_full_id(text: str) -> None:
    assert not is_full_id(text)


def test_short_ids() -> None:
    assert short_id("0123456789abcdef" * 4) == "0123456789ab"
    assert short_id("sha256:" + "f" * 64) == "f" * 12
