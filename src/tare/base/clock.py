"""Time as values: UTC only, and the texts that Docker's clients expect."""

from __future__ import annotations

import time
from typing import NewType

Nanos = NewType("Nanos", int)
"""Nanoseconds since the epoch, UTC. 0 means "never"."""

NEVER = Nanos(0)

ZERO_TIME = "0001-01-01T00:00:00Z"
"""How Go writes a time that is not set."""


def now() -> Nanos:
    """The wall clock."""
    return Nanos(time.time_ns())


def rfc3339nano(at: int) -> str:
    """`2026-11-23T21:11:39.5Z`: Go's time.RFC3339Nano, trailing zeros cut. 0 gives `ZERO_TIME`."""
    if at == 0:
        return ZERO_TIME
    seconds, nanos = divmod(at, 1_000_000_000)
    base = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{base}{fraction}Z"
