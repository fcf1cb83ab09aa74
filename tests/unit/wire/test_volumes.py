"""Volumes on the wire."""

from __future__ import annotations

import msgspec

from tare.wire.volumes import VolumeBody, VolumeList, VolumeUsage

BODY = VolumeBody(CreatedAt="t", Driver="local", Labels=None, Mountpoint="/m", Name="n", Options=None)


def test_usage_is_left_out_unless_measured() -> None:
    assert msgspec.json.encode(BODY) == (
        b'{"CreatedAt":"t","Driver":"local","Labels":null,"Mountpoint":"/m","Name":"n","Options":null,"Scope":"local"}'
    )
    measured = msgspec.structs.replace(BODY, UsageData=VolumeUsage(RefCount=1, Size=2))
    assert msgspec.json.encode(measured).endswith(b'"UsageData":{"RefCount":1,"Size":2}}')


def test_no_warnings_are_null() -> None:
    assert msgspec.json.encode(VolumeList(Volumes=[])) == b'{"Volumes":[],"Warnings":null}'
