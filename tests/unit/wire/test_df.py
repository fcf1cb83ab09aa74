"""The disk usage report: what was not asked for is null."""

from __future__ import annotations

import msgspec

from tare.wire.df import DiskUsage


def test_what_was_not_asked_for_is_null() -> None:
    body = msgspec.json.decode(msgspec.json.encode(DiskUsage(LayersSize=5, Images=[])))
    assert body == {"LayersSize": 5, "Images": [], "Containers": None, "Volumes": None, "BuildCache": None}
