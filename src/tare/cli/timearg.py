"""Times as --since and --until take them."""

from __future__ import annotations

import time

from tare.cli import human


def wire_time(text: str, *, now: float | None = None) -> str:
    """A time or a duration back from now, as the `seconds[.nanos]` of the wire. Raises ValueError.

    Accepted: Unix seconds, Go durations (`10m`), RFC 3339, and its beginnings (`2006-01-02`, `2006-01-02T15:04`,
    `…:05`), in the zone of this machine where none is given.
    """
    if not text:
        return ""
    try:
        back = human.parse_duration(text)
    except ValueError:
        pass
    else:
        at = time.time_ns() if now is None else round(now * 10**9)
        return _joined(at - back)
    whole, _, fraction = text.partition(".")
    if whole.lstrip("-").isdigit() and (fraction or "0").isdigit():
        return text
    return _joined(_absolute(text))


def _joined(nanos: int) -> str:
    seconds, rest = divmod(nanos, 10**9)
    return f"{seconds}.{rest:09d}"


def _absolute(text: str) -> int:
    full = {10: "T00:00:00", 13: ":00:00", 16: ":00"}.get(len(text), "")
    exact = human.parse_time(text + full)
    if exact is not None:
        return exact[0] * 10**9 + exact[1]
    zoneless = human.parse_time(f"{text}{full}Z")
    if zoneless is None:
        raise ValueError(f'failed to parse value as time or duration: "{text}"')
    broken = time.gmtime(zoneless[0])
    return int(time.mktime((*broken[:8], -1))) * 10**9 + zoneless[1]
