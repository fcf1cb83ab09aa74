"""Reading what Go clients write: null means "zero value", names match in any case, unknown fields are ignored.

msgspec alone is stricter than encoding/json: it refuses null for a string. `decode` brings a document into the form
msgspec wants, following the types of the struct it is decoded into, and then lets msgspec validate.
"""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from tare.base.errors import InvalidArgument
from tare.wire.gojson import complaint

T = TypeVar("T", bound=msgspec.Struct)

MAX_NESTING = 64


def decode(body: bytes, into: type[T]) -> T:
    """Parse a JSON request body. An empty body is the zero value. Raises InvalidArgument."""
    if not body.strip():
        body = b"{}"
    _refuse_deep(body)
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"invalid JSON: {complaint(body) or error}") from None
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise InvalidArgument("invalid JSON: expected an object")
    return convert(raw, into)


def convert(raw: dict[str, Any], into: type[T]) -> T:
    """The same for a document that is parsed already."""
    try:
        return msgspec.convert(_fit_struct(raw, into), into)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None


def _refuse_deep(body: bytes) -> None:
    """Bound the nesting before a recursive parser sees it. Brackets inside strings only make the bound stricter."""
    if body.count(b"{") + body.count(b"[") <= MAX_NESTING:
        return
    depth = deepest = 0
    in_string = escaped = False
    for byte in body:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    if deepest > MAX_NESTING:
        raise InvalidArgument(f"invalid JSON: nested deeper than {MAX_NESTING} levels")


@cache
def _fields(cls: type[msgspec.Struct]) -> tuple[dict[str, Any], dict[str, str]]:
    hints = get_type_hints(cls)
    names = dict(zip(cls.__struct_encode_fields__, cls.__struct_fields__, strict=True))
    types = {wire: hints[attribute] for wire, attribute in names.items()}
    return types, {wire.lower(): wire for wire in types}


def _fit_struct(raw: dict[str, Any], cls: type[msgspec.Struct]) -> dict[str, Any]:
    types, folded = _fields(cls)
    out: dict[str, Any] = {}
    for key, value in raw.items():
        name = key if key in types else folded.get(key.lower())
        if name is None or (name in out and name != key):
            continue
        if value is None and not _keeps_null(types[name]):
            continue
        out[name] = _fit(value, types[name])
    return out


@cache
def _keeps_null(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)


def _fit(value: Any, hint: Any) -> Any:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for choice in get_args(hint):
            if value is not None and choice not in (NoneType, msgspec.UnsetType):
                return _fit(value, choice)
        return value
    if isinstance(value, dict):
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return _fit_struct(value, hint)
        if origin is dict:
            inner = get_args(hint)[1]
            empty = _empty_of(inner)
            return {k: (empty if v is None else _fit(v, inner)) for k, v in value.items()}
    if isinstance(value, list) and origin in (list, tuple) and get_args(hint):
        inner = get_args(hint)[0]
        return [_fit(item, inner) for item in value if item is not None]
    return value


def _empty_of(hint: Any) -> Any:
    """What Go makes of null inside a map: the zero value of its element type."""
    if _keeps_null(hint):
        return None
    origin = get_origin(hint) or hint
    zero: dict[Any, Any] = {str: "", int: 0, float: 0.0, bool: False, list: [], dict: {}, tuple: []}
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        return {}
    return zero.get(origin)


__all__ = ["MAX_NESTING", "convert", "decode"]
