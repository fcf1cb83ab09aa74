"""The pure part of a pull. The whole is in e2e/test_registry."""

from __future__ import annotations

import pytest

from tare.base.digest import chain_id, sha256
from tare.base.errors import InvalidArgument, NotFound, Unauthorized
from tare.base.reference import parse_reference
from tare.images.intake import WantedLayer
from tare.images.pull import _Words, plan_layers
from tare.oci.image import OCI_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, Descriptor, ImageConfig, Manifest, RootFS
from tare.registry.challenge import Refusal

ONE, TWO = sha256(b"1"), sha256(b"2")
BLOBS = [
    Descriptor(OCI_LAYER_GZIP, sha256(b"x"), 5),
    Descriptor(OCI_LAYER_ZSTD, sha256(b"y"), 6, urls=["https://u.example/y"]),
]
CONFIG = ImageConfig(rootfs=RootFS(diff_ids=[ONE, TWO]))


def manifest(layers: list[Descriptor]) -> Manifest:
    return Manifest(2, Descriptor(OCI_CONFIG, sha256(b"c"), 1), layers)


def test_layers_know_their_place() -> None:
    first, second = plan_layers(manifest(BLOBS), CONFIG)
    assert first == WantedLayer(digest=sha256(b"x"), size=5, diff_id=ONE, chain_id=ONE, parent=None)
    assert second.parent == ONE
    assert second.chain_id == chain_id([ONE, TWO])
    assert second.urls == ("https://u.example/y",)


@pytest.mark.parametrize(
    "layers",
    [
        BLOBS[:1],
        [*BLOBS, BLOBS[0]],
        [BLOBS[0], Descriptor("application/octet-stream", sha256(b"z"), 1)],
        [BLOBS[0], Descriptor(OCI_LAYER_GZIP, "sha512:" + "0" * 128, 1)],
    ],
)
def test_what_does_not_fit_is_refused(layers: list[Descriptor]) -> None:
    with pytest.raises(InvalidArgument):
        plan_layers(manifest(layers), CONFIG)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            Refusal("manifest unknown: x", status=404, code="MANIFEST_UNKNOWN"),
            "manifest for a/b:1 not found: manifest unknown: x",
        ),
        (Refusal("name unknown: x", status=404, code="NAME_UNKNOWN"), "repository a/b not found: name unknown: x"),
        (
            Refusal("denied: x", status=403, code="DENIED"),
            "pull access denied for a/b, repository does not exist or may require 'docker login': denied: x",
        ),
        (Unauthorized("x"), "pull access denied for a/b, repository does not exist or may require 'docker login': x"),
    ],
)
def test_words(error: Refusal | Unauthorized, text: str) -> None:
    said = _Words(parse_reference("a/b:1"))(error)
    assert isinstance(said, NotFound)
    assert said.message == text


def test_other_failures_stay_what_they_are() -> None:
    error = Refusal("broken", status=500)
    assert _Words(parse_reference("a"))(error) is error
