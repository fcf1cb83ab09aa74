"""When a request is repeated."""

from __future__ import annotations

import datetime

from tare.registry.retry import delay_s, is_worth_repeating, retry_after

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def test_delays_double_and_end() -> None:
    assert [delay_s(n, attempts=5, first_s=0.5) for n in range(1, 6)] == [0.5, 1.0, 2.0, 4.0, None]
    assert delay_s(1, attempts=5, first_s=0.5, asked_s=7) == 7
    assert delay_s(1, attempts=5, first_s=0.5, asked_s=3600) is None
    assert delay_s(30, attempts=50, first_s=1) == 60


def test_retry_after() -> None:
    assert retry_after("12", NOW) == 12
    assert retry_after("Thu, 01 Jan 2026 00:00:30 GMT", NOW) == 30
    assert retry_after("Wed, 31 Dec 2025 00:00:00 GMT", NOW) == 0
    assert retry_after("", NOW) is None
    assert retry_after("soon", NOW) is None


def test_statuses() -> None:
    assert [status for status in (200, 400, 401, 404, 408, 429, 500, 501, 503) if is_worth_repeating(status)] == [
        408,
        429,
        500,
        503,
    ]
