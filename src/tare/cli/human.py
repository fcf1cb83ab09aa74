"""Sizes, durations and times as people write and read them, in Docker's spelling."""

from __future__ import annotations

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_NANOS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def _general(value: float, digits: int) -> str:
    """C's %.<digits>g."""
    return f"{value:.{digits}g}"


def size(count: float, *, digits: int = 4) -> str:
    """Bytes in powers of 1000 with up to `digits` significant digits: 1983000 is `1.983MB`."""
    return _scaled(count, 1000.0, _DECIMAL, digits)


def binary_size(count: float, *, digits: int = 4) -> str:
    """Bytes in powers of 1024: `23.54GiB`."""
    return _scaled(count, 1024.0, _BINARY, digits)


def _scaled(count: float, base: float, units: tuple[str, ...], digits: int) -> str:
    step = 0
    value = float(count)
    while value >= base and step < len(units) - 1:
        value /= base
        step += 1
    return f"{_general(value, digits)}{units[step]}"


def duration(seconds: float) -> str:
    """About how long: `Less than a second`, `5 seconds`, `About a minute`, `2 hours`, `3 weeks`, `2 years`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // _MINUTE
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / _HOUR + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds) // _HOUR // 24 // 365} years"


def parse_cpus(text: str) -> int:
    """`1.5` processors in billionths. Raises ValueError."""
    from fractions import Fraction

    try:
        nanos = Fraction(text) * 10**9
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if nanos.denominator != 1:
        raise ValueError("value is too precise")
    return int(nanos)


def parse_duration(text: str) -> int:
    """Go's duration (`1h30m`, `250ms`, `-1.5s`, `0`) in nanoseconds. Raises ValueError."""
    rest, sign = text, 1
    if rest[:1] in ("-", "+"):
        sign, rest = (-1 if rest[0] == "-" else 1), rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0.0
    exact = 0
    while rest:
        length = 0
        while length < len(rest) and (rest[length].isdigit() or rest[length] == "."):
            length += 1
        number, rest = rest[:length], rest[length:]
        if not number.replace(".", "", 1).isdigit():
            raise ValueError(f'time: invalid duration "{text}"')
        length = 0
        while length < len(rest) and not (rest[length].isdigit() or rest[length] == "."):
            length += 1
        unit, rest = rest[:length], rest[length:]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _NANOS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        if "." in number:
            total += float(number) * _NANOS[unit]
        else:
            exact += int(number) * _NANOS[unit]
    return sign * (exact + round(total))


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the Gregorian calendar, also before the epoch and for year 1."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def parse_time(text: str) -> tuple[int, int] | None:
    """RFC 3339 as (seconds since the epoch, nanoseconds); None when it is something else."""
    date, found, rest = text.partition("T")
    parts = date.split("-")
    if not found or [len(part) for part in parts] != [4, 2, 2]:
        return None
    zone = 0
    if rest.endswith(("Z", "z")):
        rest = rest[:-1]
    elif len(rest) > 6 and rest[-6] in "+-" and rest[-3] == ":":
        hours, minutes = rest[-5:-3], rest[-2:]
        if not (hours + minutes).isdigit():
            return None
        zone = (int(hours) * 60 + int(minutes)) * 60 * (-1 if rest[-6] == "-" else 1)
        rest = rest[:-6]
    else:
        return None
    clock, _, fraction = rest.partition(".")
    pieces = clock.split(":")
    if len(pieces) != 3 or not all(p.isdigit() for p in (*parts, *pieces)) or not (fraction or "0").isdigit():
        return None
    days = days_from_civil(int(parts[0]), int(parts[1]), int(parts[2]))
    seconds = ((days * 24 + int(pieces[0])) * 60 + int(pieces[1])) * 60 + int(pieces[2]) - zone
    return seconds, int(fraction.ljust(9, "0")[:9]) if fraction else 0


def civil(seconds: int) -> str:
    """`2006-01-02T15:04:05` in UTC, any year."""
    days, rest = divmod(seconds, _DAY)
    days += 719468
    era, of_era = divmod(days, 146097)
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    shifted = (5 * of_year + 2) // 153
    day = of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + (3 if shifted < 10 else -9)
    year += era * 400 + (month <= 2)
    return f"{year:04d}-{month:02d}-{day:02d}T{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"


def quote_go(text: str) -> str:
    """Go's %q: double quotes, short escapes, everything printable kept."""
    short = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    out = []
    for char in text:
        if char in short:
            out.append(short[char])
        elif char in '"\\':
            out.append(f"\\{char}")
        elif char.isprintable():
            out.append(char)
        elif ord(char) < 0x80:
            out.append(f"\\x{ord(char):02x}")
        elif ord(char) < 0x10000:
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(f"\\U{ord(char):08x}")
    return f'"{"".join(out)}"'
