"""JSON as Go's encoding/json reads and writes it, without the cost of importing the standard package.

Reading keeps the order of keys and the exactness of integers. Writing escapes `<`, `>`, `&`, U+2028 and U+2029, since
scripts compare this output byte by byte with Docker's.
Source: go.dev encoding/json, HTMLEscape; CPython's `_json` accelerates both directions.
"""

from __future__ import annotations

from _json import make_scanner as _make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


class _Settings:
    """What the scanner of `_json` asks its context for."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"invalid character {name[0]!r} looking for beginning of value")


_scan: Callable[[str, int], tuple[Json, int]] = _make_scanner(_Settings())  # type: ignore[arg-type]
_BLANK = " \t\r\n"


def loads(data: bytes | str) -> Json:
    """One JSON document. Raises ValueError with a one-line reason."""
    value, rest = scan(data if isinstance(data, str) else data.decode("utf-8", "replace"))
    if rest.strip(_BLANK):
        raise ValueError(f"invalid character {rest.strip(_BLANK)[0]!r} after top-level value")
    return value


def scan(text: str) -> tuple[Json, str]:
    """The first document of `text` and what follows it. Raises ValueError."""
    body = text.lstrip(_BLANK)
    if not body:
        raise ValueError("unexpected end of JSON input")
    try:
        value, end = _scan(body, 0)
    except StopIteration as stop:
        at = stop.value if isinstance(stop.value, int) else 0
        if at >= len(body):
            raise ValueError("unexpected end of JSON input") from None
        raise ValueError(f"invalid character {body[at]!r} looking for beginning of value") from None
    return value, body[end:]


_ESCAPES = {i: f"\\u{i:04x}" for i in range(32)}
_ESCAPES.update({8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"})
_ESCAPES.update({0x3C: "\\u003c", 0x3E: "\\u003e", 0x26: "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"})


_PLAIN = {key: value for key, value in _ESCAPES.items() if key not in (0x3C, 0x3E, 0x26)}


def quote(text: str, *, html: bool = True) -> str:
    """A JSON string literal with Go's escapes; `html` also escapes `<`, `>` and `&`."""
    return f'"{text.translate(_ESCAPES if html else _PLAIN)}"'


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"json: unsupported value: {value}")
    size = abs(value)
    if size != 0 and (size < 1e-6 or size >= 1e21):
        mantissa, _, exponent = repr(value).partition("e")
        return f"{mantissa}e{exponent[0]}{exponent[1:].lstrip('0')}" if exponent else repr(value)
    text = repr(value)
    if "e" in text:
        text = f"{value:.20f}".rstrip("0")
    return text.removesuffix(".0").removesuffix(".")


def dumps(value: object, *, indent: str = "", prefix: str = "", html: bool = True) -> str:
    """`value` (dict, list, str, int, float, bool, None) compact, or with `indent` per level as json.Indent lays out.

    Keys keep their order. Raises TypeError for anything else.
    """
    if isinstance(value, str):
        return quote(value, html=html)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, (int, float)):
        return _number(value)
    deeper = prefix + indent
    if isinstance(value, dict):
        if not value:
            return "{}"
        colon = ": " if indent else ":"
        items = [
            f"{quote(str(k), html=html)}{colon}{dumps(v, indent=indent, prefix=deeper, html=html)}"
            for k, v in value.items()
        ]
        ends = "{}"
    elif isinstance(value, (list, tuple)):
        if not value:
            return "[]"
        items = [dumps(v, indent=indent, prefix=deeper, html=html) for v in value]
        ends = "[]"
    else:
        raise TypeError(f"json: unsupported type: {type(value).__name__}")
    if not indent:
        return ends[0] + ",".join(items) + ends[1]
    between = f",\n{deeper}"
    return f"{ends[0]}\n{deeper}{between.join(items)}\n{prefix}{ends[1]}"
