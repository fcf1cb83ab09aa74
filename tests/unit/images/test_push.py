"""The manifest of a push. The whole is in e2e/test_registry."""

from __future__ import annotations

import json

from msgspec.structs import replace

from tare.base.digest import sha256
from tare.images.push import DOCKER_LAYER, new_manifest
from tare.images.records import Image, Layer
from tare.oci.image import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_LAYER_ZSTD, OCI_MANIFEST, ImageConfig
from tare.wire.config import ContainerConfig

RAW = b"{}"
LAYER = Layer(
    chain_id=sha256(b"d"), parent=None, diff_id=sha256(b"d"), blob=sha256(b"b"), blob_size=7, compression="gzip",
    plain_size=9, size_bytes=9,
)  # fmt: skip
IMAGE = Image(id=sha256(RAW), raw=RAW, document=ImageConfig(), config=ContainerConfig(), layers=(LAYER,))


def test_schema_2_for_gzip() -> None:
    made = new_manifest(IMAGE)
    assert made.digest == sha256(made.raw)
    assert made == new_manifest(IMAGE)
    document = json.loads(made.raw)
    assert made.media_type == document["mediaType"] == DOCKER_MANIFEST
    assert document["config"] == {"mediaType": DOCKER_CONFIG, "size": 2, "digest": sha256(RAW)}
    assert document["layers"] == [{"mediaType": DOCKER_LAYER, "size": 7, "digest": sha256(b"b")}]


def test_oci_for_what_schema_2_has_no_word_for() -> None:
    made = new_manifest(replace(IMAGE, layers=(replace(LAYER, compression="zstd"),)))
    assert made.media_type == OCI_MANIFEST
    assert json.loads(made.raw)["layers"][0]["mediaType"] == OCI_LAYER_ZSTD
