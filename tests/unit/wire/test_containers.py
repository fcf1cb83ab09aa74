"""Docker's JSON about containers, as bytes."""

from __future__ import annotations

import msgspec
import pytest

from tare.wire.containers import Change, CreateResponse, MountBody, PortBody, WaitError, WaitResponse


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (CreateResponse(Id="a", Warnings=[]), b'{"Id":"a","Warnings":[]}'),
        (WaitResponse(StatusCode=137), b'{"StatusCode":137}'),
        (WaitResponse(StatusCode=0, Error=WaitError(Message="busy")), b'{"StatusCode":0,"Error":{"Message":"busy"}}'),
        (Change(Path="/etc", Kind=0), b'{"Path":"/etc","Kind":0}'),
        (PortBody(PrivatePort=80, Type="tcp"), b'{"PrivatePort":80,"Type":"tcp"}'),
        (
            PortBody(IP="0.0.0.0", PrivatePort=80, PublicPort=8080, Type="tcp"),
            b'{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}',
        ),
        (
            MountBody(Type="bind", Source="/a", Destination="/b", Mode="", RW=True, Propagation="rprivate"),
            b'{"Type":"bind","Source":"/a","Destination":"/b","Mode":"","RW":true,"Propagation":"rprivate"}',
        ),
    ],
)
def test_bytes_on_the_wire(value: msgspec.Struct, text: bytes) -> None:
    assert msgspec.json.encode(value) == text
