"""Image documents: what is read, and the many things that are refused."""

from __future__ import annotations

import json

import pytest

from tare.base.errors import InvalidArgument
from tare.oci.image import (
    EMPTY,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    artifact_type,
    index_of,
    is_artifact,
    parse_config,
    parse_manifest,
)

D = "sha256:" + "a" * 64
DESCRIPTOR = {"mediaType": "x", "digest": D, "size": 1}


def config(**fields: object) -> bytes:
    return json.dumps({"architecture": "amd64", "os": "linux", **fields}).encode()


def test_config() -> None:
    document = parse_config(
        config(
            rootfs={"type": "layers", "diff_ids": [D]},
            history=[{"empty_layer": True}, {}],
            config=None,
            **{"os.version": "1"},
        )
    )
    assert document.diff_ids() == (D,)
    assert document.os_version == "1"
    assert document.config is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"a":1,"a":2}',
        b'{"os":"\xff"}',
        b"{} x",
        b'{"x":NaN}',
        b"[" * 100_000,
        config(rootfs={"type": "layers", "diff_ids": ["sha256:12"]}),
        config(rootfs={"type": "other"}),
        config(rootfs={"type": "layers", "diff_ids": []}, history=[{}]),
        config(rootfs={"type": "layers", "diff_ids": [D] * 1001}),
        config(os=1),
    ],
)
def test_configs_refused(raw: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_config(raw)


def test_a_forgotten_schema_version_is_fine_beside_a_media_type() -> None:
    manifest = {"schemaVersion": 0, "mediaType": OCI_MANIFEST, "config": DESCRIPTOR, "layers": []}
    assert isinstance(parse_manifest(json.dumps(manifest).encode(), OCI_MANIFEST), Manifest)


def test_manifest_and_index() -> None:
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": DESCRIPTOR, "layers": [DESCRIPTOR]}
    assert isinstance(parse_manifest(json.dumps(manifest).encode(), OCI_MANIFEST), Manifest)
    index = {"schemaVersion": 2, "manifests": [DESCRIPTOR]}
    assert isinstance(parse_manifest(json.dumps(index).encode(), OCI_INDEX), Index)


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 2, "config": DESCRIPTOR, "layers": [], "manifests": []},
        {"schemaVersion": 1, "config": DESCRIPTOR, "layers": []},
        {"schemaVersion": 1, "mediaType": OCI_MANIFEST, "config": DESCRIPTOR, "layers": []},
        {"schemaVersion": 0, "config": DESCRIPTOR, "layers": []},
        {"schemaVersion": 2, "config": {**DESCRIPTOR, "size": -1}, "layers": []},
        {"schemaVersion": 2, "config": {**DESCRIPTOR, "digest": "md5:x"}, "layers": []},
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "config": DESCRIPTOR, "layers": []},
        {"schemaVersion": 2, "mediaType": "text/html", "config": DESCRIPTOR, "layers": []},
        {"schemaVersion": 2, "layers": []},
    ],
)
def test_manifests_refused(document: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        parse_manifest(json.dumps(document).encode(), OCI_MANIFEST)


HELM = "application/vnd.cncf.helm.config.v1+json"


@pytest.mark.parametrize(
    ("config_type", "layers", "own", "kind"),
    [
        (OCI_CONFIG, [OCI_LAYER_GZIP], "", None),
        (OCI_CONFIG, [], "", None),
        (OCI_CONFIG, [OCI_LAYER_GZIP, "x/y"], "", None),  # an image with a layer nobody knows: refused elsewhere
        (OCI_CONFIG, [OCI_LAYER_GZIP], "x/own", None),
        (HELM, [OCI_LAYER_GZIP], "", HELM),
        (EMPTY, ["x/note"], "", "x/note"),
        (EMPTY, ["x/note"], "x/own", "x/own"),
        (OCI_CONFIG, ["application/vnd.in-toto+json"], "", "application/vnd.in-toto+json"),
        (EMPTY, [], "", EMPTY),
    ],
)
def test_artifacts_and_what_they_are(config_type: str, layers: list[str], own: str, kind: str | None) -> None:
    document = {
        "schemaVersion": 2,
        "config": {**DESCRIPTOR, "mediaType": config_type},
        "layers": [{**DESCRIPTOR, "mediaType": layer} for layer in layers],
        "artifactType": own or None,
    }
    found = parse_manifest(json.dumps(document).encode(), OCI_MANIFEST)
    assert isinstance(found, Manifest)
    assert is_artifact(found) == (kind is not None)
    if kind is not None:
        assert artifact_type(found) == kind


def test_an_index_of_our_own() -> None:
    entries = [Descriptor("x", D, 1), Descriptor("x", D, 2, annotations={"a": "b"}, artifactType="x/y")]
    found = parse_manifest(index_of(entries), OCI_INDEX)
    assert isinstance(found, Index)
    assert found.manifests == entries
