"""Sizes as users write them."""

from __future__ import annotations

_POWER = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_bytes(text: str) -> int:
    """`512m`, `1.5GiB`, `100`: bytes, in powers of 1024 whatever the unit's name. Raises ValueError."""
    number = text
    while number and not (number[-1].isascii() and (number[-1].isdigit() or number[-1] == ".")):
        number = number[:-1]
    unit = text[len(number) :]
    if not number or not number.replace(".", "", 1).isdigit():
        raise ValueError(f"invalid size: '{text}'")
    suffix = unit.strip(" ").lower() if unit[:1] == " " else unit.lower()
    letter = suffix.removesuffix("ib") if len(suffix) == 3 else suffix.removesuffix("b") if len(suffix) == 2 else suffix
    if letter not in _POWER or (len(suffix) > 1 and letter in ("", "b")):
        raise ValueError(f"invalid suffix: '{suffix}'")
    if "." not in number:
        return int(number) << (10 * _POWER[letter])
    try:
        return int(float(number) * (1 << (10 * _POWER[letter])))
    except OverflowError:
        raise ValueError(f"invalid size: '{text}'") from None
