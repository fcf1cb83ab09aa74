"""Detach keys: `ctrl-p,ctrl-q` as bytes, and finding them in what a terminal sends (W32)."""

from __future__ import annotations

from tare.base.errors import InvalidArgument

DEFAULT = bytes((16, 17))
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_keys(text: str) -> bytes:
    """The byte sequence; empty text means the default. Raises InvalidArgument."""
    if not text:
        return DEFAULT
    out = bytearray()
    for word in text.split(","):
        if len(word) == 1 and word.isascii():
            out.append(ord(word))
        elif word.lower().startswith("ctrl-") and len(word) == 6:
            key = word[5].lower()
            if key in _CONTROL:
                out.append(_CONTROL[key])
            elif "a" <= key <= "z":
                out.append(ord(key) - ord("a") + 1)
            else:
                raise InvalidArgument(f"Unknown character: '{word}'")
        else:
            raise InvalidArgument(f"Unknown character: '{word}'")
    return bytes(out)


class DetachFilter:
    """Passes input through and holds back what may become the detach sequence."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence was completed (it and what follows are swallowed)."""
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(out), True
                continue
            if self._matched:
                out += self._keys[: self._matched]
                self._matched = 1 if byte == self._keys[0] else 0
                if self._matched:
                    continue
            out.append(byte)
        return bytes(out), False
