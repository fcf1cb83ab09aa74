"""What Go's encoding/json says about a document that is none: clients and tests look for these words.

Source: Go's encoding/json, scanner.go (the states and the contexts it names) and stream.go.
"""

from __future__ import annotations

import re

TRAILING = "unexpected content after JSON"
_END = "unexpected EOF"
_SPACE = b" \t\r\n"
_LITERALS = {b"t": b"true", b"f": b"false", b"n": b"null"}
_NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ESCAPED = {
    0x07: "\\a", 0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0B: "\\v", 0x0C: "\\f", 0x0D: "\\r",
    0x27: "\\'", 0x5C: "\\\\",
}  # fmt: skip
_HEX = b"0123456789abcdefABCDEF"


class _Wrong(Exception):
    """What is wrong, in words."""


def complaint(body: bytes) -> str:
    """Why `body` is not one JSON value; "" when nothing is found wrong with it. Nesting is bounded by the caller."""
    try:
        at = _skip(body, _value(body, _skip(body, 0)))
    except _Wrong as wrong:
        return str(wrong)
    return TRAILING if at < len(body) else ""


def _skip(body: bytes, at: int) -> int:
    while at < len(body) and body[at] in _SPACE:
        at += 1
    return at


def _refuse(body: bytes, at: int, context: str) -> _Wrong:
    if at >= len(body):
        return _Wrong(_END)
    return _Wrong(f"invalid character {_quoted(body[at])} {context}")


def _quoted(byte: int) -> str:
    """A byte as Go's scanner quotes it."""
    if byte in _ESCAPED:
        return f"'{_ESCAPED[byte]}'"
    if byte < 0x20 or byte == 0x7F:
        return f"'\\x{byte:02x}'"
    if (byte < 0xA1 and byte > 0x7F) or byte == 0xAD:
        return f"'\\u00{byte:02x}'"
    return f"'{chr(byte)}'"


def _value(body: bytes, at: int) -> int:
    """Past the value that begins at `at`."""
    first = body[at : at + 1]
    if first == b"{":
        return _object(body, at + 1)
    if first == b"[":
        return _array(body, at + 1)
    if first == b'"':
        return _string(body, at + 1)
    if first in _LITERALS:
        return _literal(body, at, _LITERALS[first])
    if first and first in b"-0123456789":
        return _number(body, at)
    raise _refuse(body, at, "looking for beginning of value")


def _object(body: bytes, at: int) -> int:
    at = _skip(body, at)
    if body[at : at + 1] == b"}":
        return at + 1
    while True:
        if body[at : at + 1] != b'"':
            raise _refuse(body, at, "looking for beginning of object key string")
        at = _skip(body, _string(body, at + 1))
        if body[at : at + 1] != b":":
            raise _refuse(body, at, "after object key")
        at = _skip(body, _value(body, _skip(body, at + 1)))
        if body[at : at + 1] == b"}":
            return at + 1
        if body[at : at + 1] != b",":
            raise _refuse(body, at, "after object key:value pair")
        at = _skip(body, at + 1)


def _array(body: bytes, at: int) -> int:
    at = _skip(body, at)
    if body[at : at + 1] == b"]":
        return at + 1
    while True:
        at = _skip(body, _value(body, at))
        if body[at : at + 1] == b"]":
            return at + 1
        if body[at : at + 1] != b",":
            raise _refuse(body, at, "after array element")
        at = _skip(body, at + 1)


def _string(body: bytes, at: int) -> int:
    while at < len(body):
        byte = body[at]
        if byte == 0x22:
            return at + 1
        if byte < 0x20:
            raise _refuse(body, at, "in string literal")
        at += 1
        if byte == 0x5C:
            at = _escape(body, at)
    raise _Wrong(_END)


def _escape(body: bytes, at: int) -> int:
    kind = body[at : at + 1]
    if not kind or kind not in b'"\\/bfnrtu':
        raise _refuse(body, at, "in string escape code")
    at += 1
    if kind == b"u":
        for _ in range(4):
            if body[at : at + 1] == b"" or body[at] not in _HEX:
                raise _refuse(body, at, "in \\u hexadecimal character escape")
            at += 1
    return at


def _literal(body: bytes, at: int, word: bytes) -> int:
    for offset, wanted in enumerate(word):
        if body[at + offset : at + offset + 1] != bytes([wanted]):
            raise _refuse(body, at + offset, f"in literal {word.decode()} (expecting '{chr(wanted)}')")
    return at + len(word)


def _number(body: bytes, at: int) -> int:
    found = _NUMBER.match(body, at)
    if found is None:  # a sign alone
        raise _refuse(body, at + 1, "in numeric literal")
    end = found.end()
    rest = body[end : end + 1]
    if rest == b"." and found.group(2) is None and found.group(3) is None:
        raise _refuse(body, end + 1, "after decimal point in numeric literal")
    if rest and rest in b"eE" and found.group(3) is None:
        end += 2 if body[end + 1 : end + 2] in (b"+", b"-") else 1
        raise _refuse(body, end, "in exponent of numeric literal")
    return end
