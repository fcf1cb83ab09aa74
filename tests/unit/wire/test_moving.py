"""What is asked about layers, as it is written."""

from __future__ import annotations

import msgspec

from tare.wire.decode import decode
from tare.wire.moving import LayerBody, MissingBody


def test_an_absent_list_is_an_empty_one() -> None:
    assert decode(b'{"Digests":null}', MissingBody).Digests == []
    assert decode(b'{"digests":["a"]}', MissingBody).Digests == ["a"]


def test_a_layer() -> None:
    assert msgspec.json.encode(LayerBody(Digest="d", Size=1, ChainID="c")) == b'{"Digest":"d","Size":1,"ChainID":"c"}'
