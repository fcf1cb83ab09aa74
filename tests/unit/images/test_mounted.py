from __future__ import annotations

import pytest

from tare.base.errors import DataCorrupt
from tare.images.mounted import ImageMount, decode, encode


def test_a_record_comes_back() -> None:
    mount = ImageMount(key="a", image_id="sha256:x", name="web", target="/mnt", at_ns=3, boot_id="b", is_ours=False)
    assert decode(encode(mount)) == mount
    for raw in (b"", b"{", b'{"key": 3}'):
        with pytest.raises(DataCorrupt):
            decode(raw)
