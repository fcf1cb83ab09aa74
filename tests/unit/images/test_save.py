"""The plan of a saved archive."""

from __future__ import annotations

import json

from msgspec.structs import replace

from tare.base.digest import sha256
from tare.base.reference import parse_reference
from tare.images.records import Image, Layer
from tare.images.save import manifest_of, plan
from tare.oci.image import OCI_MANIFEST, Manifest, parse_config, parse_manifest
from tare.wire.config import ContainerConfig

LAYER = Layer(
    chain_id=sha256(b"c"),
    parent=None,
    diff_id=sha256(b"c"),
    blob=sha256(b"b"),
    blob_size=7,
    compression="zstd",
    plain_size=2,
    size_bytes=3,
)
RAW = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [LAYER.diff_id]}}).encode()
IMAGE = Image(id=sha256(RAW), raw=RAW, document=parse_config(RAW), config=ContainerConfig(), layers=(LAYER,))


def test_the_manifest_is_valid() -> None:
    document = parse_manifest(manifest_of(IMAGE), OCI_MANIFEST)
    assert isinstance(document, Manifest)
    assert [(d.mediaType[-9:], d.digest, d.size) for d in document.layers] == [(".tar+zstd", LAYER.blob, 7)]


def test_a_config_is_as_old_as_its_image() -> None:
    raw = json.dumps({"os": "linux", "created": "2020-01-02T03:04:05.6Z"}).encode()
    image = Image(id=sha256(raw), raw=raw, document=parse_config(raw), config=ContainerConfig(), layers=())
    times = {member.data: member.mtime_ns for member in plan([(image, []), (IMAGE, [])])}
    assert times.pop(raw) == 1_577_934_245_000_000_000
    assert set(times.values()) == {0}


def test_members() -> None:
    raw = RAW + b" "
    other = replace(IMAGE, id=sha256(raw), raw=raw)
    members = {m.name: m for m in plan([(IMAGE, [parse_reference("x:1")]), (other, [])])}
    listing = json.loads(members["manifest.json"].data or b"")
    assert [item["RepoTags"] for item in listing] == [["x:1"], None]
    assert members[listing[0]["Config"]].data == RAW
    assert members[listing[0]["Layers"][0]].blob == LAYER.blob
    index = json.loads(members["index.json"].data or b"")
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "docker.io/library/x:1"
    assert "annotations" not in index["manifests"][1]
    # three documents, two configs, two manifests, one shared layer
    assert len(members) == 8
