"""Choosing by platform."""

from __future__ import annotations

import pytest

from tare.base.digest import sha256
from tare.base.errors import NotFound
from tare.images.manifests import StoredIndex, StoredManifest
from tare.images.platforms import Family, Member, choose
from tare.images.records import Image, Layer
from tare.oci.image import DOCKER_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Platform, parse_config
from tare.wire.config import ContainerConfig

LAYER = sha256(b"layer")
KNOWN = Layer(
    chain_id=LAYER, parent=None, diff_id=LAYER, blob=LAYER, blob_size=1, compression="gzip", plain_size=1, size_bytes=1
)


def image(architecture: str) -> Image:
    raw = f'{{"os":"linux","architecture":"{architecture}","rootfs":{{"type":"layers","diff_ids":[]}}}}'.encode()
    return Image(id=sha256(raw), raw=raw, document=parse_config(raw), config=ContainerConfig(), layers=(KNOWN,))


def member(architecture: str, *, is_here: bool, blob: str = LAYER) -> Member:
    of = image(architecture)
    raw = (
        f'{{"schemaVersion":2,"config":{{"mediaType":"{DOCKER_CONFIG}","digest":"{of.id}","size":1}},'
        f'"layers":[{{"mediaType":"x","digest":"{blob}","size":1}}]}}'
    ).encode()
    entry = Descriptor(OCI_MANIFEST, sha256(raw), len(raw), platform=Platform(architecture, "linux", ""))
    if not is_here:
        return Member(entry)
    return Member(entry, StoredManifest(digest=sha256(raw), image=of.id, media_type=OCI_MANIFEST, raw=raw), of)


def family(*members: Member) -> Family:
    return Family(StoredIndex(sha256(b"{}"), OCI_INDEX, b"{}"), members)


AMD, ARM = member("amd64", is_here=True), member("arm64", is_here=True)


def test_the_image_at_hand_or_another_of_its_index() -> None:
    own, both = image("amd64"), family(AMD, ARM)
    assert choose(both, own, Platform("amd64", "linux", ""), name="web") is own
    assert choose(both, own, Platform("arm64", "linux", "v8"), name="web") is ARM.image
    assert choose(None, own, Platform("amd64", "linux", ""), name="web") is own
    for known in (None, family(AMD, member("arm64", is_here=False))):
        with pytest.raises(NotFound, match="does not match the specified platform"):
            choose(known, own, Platform("arm64", "linux", ""), name="web")


def test_an_index_is_whole_with_every_entry_as_it_came() -> None:
    assert family(AMD, ARM).is_whole
    assert not family(AMD, member("arm64", is_here=False)).is_whole
    assert not family(AMD, member("arm64", is_here=True, blob=sha256(b"other"))).is_whole
    assert [one.image for one in family(AMD, member("s390x", is_here=False)).here] == [AMD.image]
