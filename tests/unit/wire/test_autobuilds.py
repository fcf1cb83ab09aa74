"""The body of add, as clients may write it."""

from __future__ import annotations

from tare.wire.autobuilds import AutobuildCreate
from tare.wire.decode import decode


def test_what_is_null_or_missing_is_not_said() -> None:
    found = decode(b'{"name":"x","Git":"u","Tags":null,"BuildArgs":null,"Unknown":1}', AutobuildCreate)
    assert found == AutobuildCreate(Name="x", Git="u")
    assert not found.Push
