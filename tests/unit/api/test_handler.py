"""What all handlers share."""

from __future__ import annotations

import pytest

from tare.api.handler import Later, seconds_to_nanos
from tare.base.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("", 0),
        ("0", 0),
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("1700000000.000000001", 1_700_000_000_000_000_001),
        ("1700000000.0000000019", 1_700_000_000_000_000_001),
        ("1.", 1_000_000_000),
        ("9999999999", 2**63 - 1),
        ("1e9", None),
        ("now", None),
        ("1.x", None),
    ],
)
def test_seconds_to_nanos(text: str, nanos: int | None) -> None:
    if nanos is None:
        with pytest.raises(InvalidArgument, match="invalid syntax"):
            seconds_to_nanos(text)
    else:
        assert seconds_to_nanos(text) == nanos


def test_a_handler_is_loaded_at_its_first_request() -> None:
    module = Later("tare.api.absent")
    assert (module.plugins.__doc__ or "").startswith("`GET /plugins`")
    with pytest.raises(AttributeError, match="nosuch"):
        assert module.nosuch.__doc__
