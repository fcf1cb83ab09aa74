"""Durations as Docker's clients and its engine print them.

Source: docker/go-units duration.go; the documentation of Go's package time, Duration.String.
"""

from __future__ import annotations


def human_duration(seconds: float) -> str:
    """`Less than a second`, `5 seconds`, `About a minute`, `3 weeks` …"""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, size, unit in ((48, 1, "hours"), (24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks")):
        if hours < limit:
            return f"{hours // size} {unit}"
    if hours < 24 * 365 * 2:
        return f"{hours // (24 * 30)} months"
    return f"{hours // (24 * 365)} years"


def exact_duration(nanos: int) -> str:
    """As Go's time.Duration prints itself: `100ms`, `1.5s`, `1m30s`, `1h0m0s`."""
    if abs(nanos) < 1_000_000_000:
        for size, unit in ((1_000_000, "ms"), (1_000, "µs"), (1, "ns")):
            if abs(nanos) >= size:
                return f"{_decimal(nanos, size)}{unit}"
        return "0s"
    sign = "-" if nanos < 0 else ""
    minutes, rest = divmod(abs(nanos), 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 1_000_000_000)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _decimal(value: int, size: int) -> str:
    whole, rest = divmod(abs(value), size)
    sign = "-" if value < 0 else ""
    digits = f"{rest:0{len(str(size)) - 1}d}".rstrip("0") if rest else ""
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
