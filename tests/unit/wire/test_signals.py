"""Signals by name and number."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.wire.signals import parse_signal, signal_name


@pytest.mark.parametrize(
    ("text", "number"), [("KILL", 9), ("SIGTERM", 15), ("sigint", 2), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
)
def test_parse(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNOPE", "RTMIN+99", "-9"])
def test_refusals(text: str) -> None:
    with pytest.raises(InvalidArgument, match="Invalid signal"):
        parse_signal(text)


def test_name() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(60) == "60"
