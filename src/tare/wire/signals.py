"""Signals as clients write them: `KILL`, `SIGKILL`, `9`, `SIGRTMIN+3` (pure)."""

from __future__ import annotations

import signal

from tare.base.errors import InvalidArgument

_NAMES = {name.removeprefix("SIG"): int(value) for name, value in signal.Signals.__members__.items()}
_HIGHEST = 64


def parse_signal(text: str) -> int:
    """The number. Raises InvalidArgument (`Invalid signal: …`)."""
    word = text.strip().upper()
    if word.isascii() and word.isdigit():
        number = int(word)
        if 0 < number <= _HIGHEST:
            return number
        raise InvalidArgument(f"Invalid signal: {text}")
    word = word.removeprefix("SIG")
    if word in _NAMES:
        return _NAMES[word]
    for base, sign in (("RTMIN", 1), ("RTMAX", -1)):
        mark = "+" if sign > 0 else "-"
        if word.startswith(base + mark) and word[len(base) + 1 :].isdigit():
            number = _NAMES[base] + sign * int(word[len(base) + 1 :])
            if _NAMES["RTMIN"] <= number <= _NAMES["RTMAX"]:
                return number
    raise InvalidArgument(f"Invalid signal: {text}")


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; the number itself where it has no name."""
    return next((f"SIG{name}" for name, value in _NAMES.items() if value == number), str(number))
