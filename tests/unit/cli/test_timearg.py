from __future__ import annotations

import pytest

from tare.cli.timearg import wire_time


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("", ""),
        ("10m", "400.000000000"),
        ("1.5s", "998.500000000"),
        ("1700000000", "1700000000"),
        ("1700000000.5", "1700000000.5"),
        ("1970-01-01T00:00:09.25Z", "9.250000000"),
        ("1970-01-02T00:00Z", None),
    ],
)
def test_wire_time(text: str, wire: str | None) -> None:
    if wire is None:
        with pytest.raises(ValueError, match="failed to parse value"):
            wire_time(text, now=1000)
    else:
        assert wire_time(text, now=1000) == wire
