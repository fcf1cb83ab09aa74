"""Times as Go writes them."""

from __future__ import annotations

import pytest

from tare.base import clock

DAY = 86400 * 1_000_000_000


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (DAY, "1970-01-02T00:00:00Z"),
        (1_700_000_000_500_000_000, "2023-11-14T22:13:20.5Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
        (1_700_000_000_000_000_100, "2023-11-14T22:13:20.0000001Z"),
        (951_782_400 * 1_000_000_000, "2000-02-29T00:00:00Z"),
    ],
)
def test_rfc3339nano(at: int, text: str) -> None:
    assert clock.rfc3339nano(at) == text


def test_now_never_reads_as_never() -> None:
    first, second = clock.now(), clock.now()
    assert clock.NEVER < first <= second
