"""The tar in which something travels beside an image."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tare.base.digest import sha256
from tare.base.errors import DataCorrupt, InvalidArgument
from tare.base.reference import parse_reference
from tare.images.layout import MARK, Extra, members, name_of, read
from tare.images.load import Spool
from tare.images.records import Image, Layer
from tare.images.save import Member
from tare.oci.image import parse_config
from tare.wire.config import ContainerConfig

TYPE = "application/vnd.test.v1+json"
BLOB = b"layer"
LAYER = Layer(
    chain_id=sha256(b"c"),
    parent=None,
    diff_id=sha256(b"c"),
    blob=sha256(BLOB),
    blob_size=len(BLOB),
    compression="gzip",
    plain_size=2,
    size_bytes=3,
)
RAW = json.dumps(
    {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [LAYER.diff_id]}}
).encode()
IMAGE = Image(id=sha256(RAW), raw=RAW, document=parse_config(RAW), config=ContainerConfig(), layers=(LAYER,))
DOCUMENT = b'{"hello":1}'


def planned(tmp_path: Path, *, without: tuple[str, ...] = ()) -> list[Member]:
    path = tmp_path / "extra"
    path.write_bytes(b"volume")
    extra = Extra(media_type="x/y", digest=sha256(b"volume"), size=6, path=path, annotations=(("title", "data"),))
    return members(
        IMAGE, [parse_reference("x:1")], document=DOCUMENT, document_type=TYPE, extras=[extra, extra], without=without
    )


@contextmanager
def laid_out(tmp_path: Path, change: Callable[[Path], object] = lambda _: None) -> Iterator[Spool]:
    root = tmp_path / "out"
    (root / "blobs" / "sha256").mkdir(parents=True)
    for member in planned(tmp_path):
        data = member.data if member.data is not None else member.path.read_bytes() if member.path else BLOB
        (root / member.name).write_bytes(data)
    change(root)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Spool(fd)
    finally:
        os.close(fd)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with laid_out(tmp_path) as spool:
        found = read(spool, TYPE)
    assert (found.image_id, found.document) == (IMAGE.id, DOCUMENT)
    assert {digest: blob.size for digest, blob in found.blobs.items()} == {sha256(b"volume"): 6}
    assert [layer.digest for layer in found.image.layers] == [LAYER.blob]


def test_the_index_lists_the_image_alone(tmp_path: Path) -> None:
    index = json.loads(planned(tmp_path)[0].data or b"")
    assert len(index["manifests"]) == 1
    assert list(index["annotations"]) == [MARK]
    names = [member.name for member in planned(tmp_path)]
    assert names[0] == "index.json"
    assert names[3:] == sorted(names[3:])


def test_what_the_reader_has_is_left_out(tmp_path: Path) -> None:
    whole = {member.name for member in planned(tmp_path)}
    assert whole - {member.name for member in planned(tmp_path, without=(LAYER.blob,))} == {name_of(LAYER.blob)}


def change_index(root: Path, old: str, new: str) -> None:
    path = root / "index.json"
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda root: change_index(root, MARK, "other"), "no container in this archive"),
        (lambda root: change_index(root, '"annotations":{"vnd', '"nothing":{"vnd'), "no container"),
        (lambda root: (root / name_of(sha256(DOCUMENT))).write_bytes(b'{"hello":2}'), "does not match its digest"),
        (lambda root: (root / name_of(sha256(DOCUMENT))).unlink(), "open blobs"),
        (lambda root: (root / "manifest.json").write_text("[]"), "not one image"),
    ],
)
def test_a_wrong_one_is_refused(tmp_path: Path, change: Callable[[Path], object], error: str) -> None:
    with laid_out(tmp_path, change) as spool, pytest.raises((InvalidArgument, DataCorrupt), match=error):
        read(spool, TYPE)


def test_something_else_that_travels_is_no_container(tmp_path: Path) -> None:
    with laid_out(tmp_path) as spool, pytest.raises(InvalidArgument, match="something else"):
        read(spool, "application/vnd.other.v1+json")
