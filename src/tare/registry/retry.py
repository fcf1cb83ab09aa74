"""When a request is repeated, and after how long. Pure."""

from __future__ import annotations

import datetime
from email.utils import parsedate_to_datetime

LONGEST_S = 60.0
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})


def is_worth_repeating(status: int) -> bool:
    """Whether the same request may succeed a little later."""
    return status in _AGAIN


def retry_after(value: str, now: datetime.datetime) -> float | None:
    """Seconds a Retry-After header asks for; None when it says nothing readable."""
    text = value.strip()
    if text.isdigit():
        return float(int(text[:9]))
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, (moment - now).total_seconds())


def delay_s(attempt: int, *, attempts: int, first_s: float, asked_s: float | None = None) -> float | None:
    """How long to wait after attempt number `attempt` (from 1) failed; None to give up.

    A server that asks for more than a minute is not waited for: the person is told instead.
    """
    if attempt >= attempts or (asked_s is not None and asked_s > LONGEST_S):
        return None
    own = min(LONGEST_S, first_s * 2.0 ** (attempt - 1))
    return max(own, asked_s or 0.0)


__all__ = ["delay_s", "is_worth_repeating", "retry_after"]
