"""The `filters` parameter: `{"k":["v"]}` or `{"k":{"v":true}}` (W43).

Values within a key are alternatives, keys must all hold, `label` must match all its values.
Source: moby daemon/internal/filters/parse.go.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from tare.base.errors import InvalidArgument

Filters = Mapping[str, list[str]]


def parse_filters(text: str, known: Collection[str]) -> dict[str, list[str]]:
    """Read the parameter. Raises InvalidArgument for bad JSON (`invalid filter`) or a key not in `known`."""
    if not text:
        return {}
    try:
        raw = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise InvalidArgument("invalid filter") from None
    if not isinstance(raw, dict):
        raise InvalidArgument("invalid filter")
    filters: dict[str, list[str]] = {}
    for key, values in raw.items():
        if key not in known:
            raise InvalidArgument(f"invalid filter '{key}'")
        if isinstance(values, dict):
            filters[key] = [value for value, wanted in values.items() if wanted is not False]
        elif isinstance(values, list) and all(isinstance(value, str) for value in values):
            filters[key] = list(values)
        else:
            raise InvalidArgument("invalid filter")
    return {key: values for key, values in filters.items() if values}


def flag(filters: Filters, key: str) -> bool | None:
    """A boolean filter: None if absent. Raises InvalidArgument for anything but true/false/1/0."""
    if key not in filters:
        return None
    values = {value.lower() for value in filters[key]}
    if values <= {"1", "true", "t"}:
        return True
    if values <= {"0", "false", "f"}:
        return False
    raise InvalidArgument(f"invalid filter '{key}={filters[key]}'")


def labels_match(filters: Filters, labels: Mapping[str, str] | None) -> bool:
    """`label=k`, `label=k=v` (all must hold) and `label!=…` (none may hold)."""
    have = labels or {}
    return all(_label(want, have) for want in filters.get("label", ())) and not any(
        _label(want, have) for want in filters.get("label!", ())
    )


def _label(want: str, have: Mapping[str, str]) -> bool:
    key, equals, value = want.partition("=")
    return key in have and (not equals or have[key] == value)
