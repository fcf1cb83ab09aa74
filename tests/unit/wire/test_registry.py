"""Docker's JSON about registries."""

from __future__ import annotations

import msgspec

from tare.wire.registry import AuthBody, DescriptorBody, DistributionInspect, PlatformBody, PushedBody, plain


def test_shapes() -> None:
    body = msgspec.json.decode(b'{"username":"u","password":"p","unknown":1}', type=AuthBody)
    assert (body.username, body.identitytoken) == ("u", "")
    answer = DistributionInspect(DescriptorBody("m", "d", 1), [PlatformBody("amd64", "linux")])
    assert msgspec.json.encode(answer) == (
        b'{"Descriptor":{"mediaType":"m","digest":"d","size":1},"Platforms":[{"architecture":"amd64","os":"linux"}]}'
    )
    assert plain(PushedBody("1", "sha256:x", 5)) == {"Tag": "1", "Digest": "sha256:x", "Size": 5}
