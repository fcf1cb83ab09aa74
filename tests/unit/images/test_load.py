"""What `load` reads from a spooled archive, before any layer is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tare.base.digest import sha256
from tare.base.errors import DataCorrupt, InvalidArgument
from tare.images.documents import host_architecture
from tare.images.load import PlannedImage, Spool, read_plan
from tare.oci.image import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST

D = "sha256:" + "d" * 64
CONFIG = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [D]}}).encode()


@contextmanager
def spooled(root: Path, **files: bytes) -> Iterator[Spool]:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    fd = os.open(root, os.O_RDONLY)
    try:
        yield Spool(fd)
    finally:
        os.close(fd)


def manifest(**fields: object) -> bytes:
    return json.dumps([{"Config": "c.json", "RepoTags": ["x"], "Layers": ["l.tar"], **fields}]).encode()


def blob(data: bytes) -> str:
    return "blobs/sha256/" + sha256(data)[7:]


def layout(config: bytes, **platform: str) -> dict[str, bytes]:
    document = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": sha256(config), "size": len(config)},
            "layers": [{"mediaType": OCI_LAYER_GZIP, "digest": D, "size": 3}],
        }
    ).encode()
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": sha256(document),
        "size": len(document),
        "annotations": {"org.opencontainers.image.ref.name": "q.io/a:1"},
        "platform": {"os": "linux", "architecture": host_architecture(), **platform},
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return {"index.json": index, blob(document): document, blob(config): config}


def test_docker_archive(tmp_path: Path) -> None:
    with spooled(tmp_path, **{"manifest.json": manifest(), "c.json": CONFIG}) as spool:
        (found,) = read_plan(spool)
    assert isinstance(found, PlannedImage)
    assert found.raw == CONFIG
    assert [layer.path for layer in found.layers] == ["l.tar"]
    assert [str(reference) for reference in found.references] == ["x:latest"]


def test_oci_layout(tmp_path: Path) -> None:
    with spooled(tmp_path, **layout(CONFIG)) as spool:
        (found,) = read_plan(spool)
    assert [(layer.digest, layer.diff_id) for layer in found.layers] == [(D, D)]
    assert [str(reference) for reference in found.references] == ["q.io/a:1"]


def test_an_oci_layout_for_other_machines(tmp_path: Path) -> None:
    with (
        spooled(tmp_path, **layout(CONFIG, architecture="vax")) as spool,
        pytest.raises(InvalidArgument, match="no image"),
    ):
        read_plan(spool)


def test_a_changed_blob(tmp_path: Path) -> None:
    files = layout(CONFIG)
    files[blob(CONFIG)] = CONFIG.replace(b"linux", b"linus")
    with spooled(tmp_path, **files) as spool, pytest.raises(DataCorrupt):
        read_plan(spool)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"manifest.json": b"{}"},
        {"manifest.json": b"[1]"},
        {"manifest.json": manifest()},
        {"manifest.json": manifest(Config="../c.json"), "c.json": CONFIG},
        {"manifest.json": manifest(Layers=[]), "c.json": CONFIG},
        {"manifest.json": manifest(Layers="x"), "c.json": CONFIG},
        {"manifest.json": manifest(RepoTags=["A"]), "c.json": CONFIG},
        {"index.json": b"{}"},
        {"repositories": b'{"x":{"1":"../etc"}}'},
        {"repositories": json.dumps({"x": {"1": "a" * 64}}).encode()},
        {"repositories": json.dumps({"x": {"1": "a" * 64}}).encode(), "a" * 64 + "/json": b'{"id":"b"}'},
    ],
)
def test_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    with spooled(tmp_path, **files) as spool, pytest.raises(InvalidArgument):
        read_plan(spool)


def test_links_in_an_archive_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(CONFIG)
    with spooled(tmp_path / "in", **{"manifest.json": manifest(), "real.json": CONFIG}) as spool:
        os.symlink("../secret", tmp_path / "in" / "c.json")
        with pytest.raises(InvalidArgument, match="invalid archive"):
            read_plan(spool)
        os.unlink(tmp_path / "in" / "c.json")
        os.symlink("real.json", tmp_path / "in" / "c.json")
        assert len(read_plan(spool)) == 1
