"""The document of an exported build cache, and the words for where one is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tare.base.clock import Nanos
from tare.base.digest import Digest, chain_id, sha256
from tare.base.errors import InvalidArgument
from tare.base.reference import parse_reference
from tare.build.cache import Record
from tare.build.cachedoc import (
    DOCUMENT,
    MOUNT,
    Blob,
    MountTar,
    Source,
    Target,
    chosen,
    encode,
    index_of,
    manifest_of,
    parse_source,
    parse_target,
    read_document,
    read_manifest,
    record_of,
    step_of,
)
from tare.oci import image as oci

BASE, DIFF, LAYER = sha256(b"base"), sha256(b"diff"), sha256(b"layer")
KEY, EMPTY = "a" * 64, "b" * 64


def record(
    key: str = KEY, parent: str = "image x", *, below: Digest | None = BASE, diff: Digest | None = DIFF
) -> Record:
    chain = below if diff is None else chain_id([below, diff]) if below else diff
    return Record(
        key=key, parent=parent, chain=chain, below=below, description="RUN x", size_bytes=3, created_at=Nanos(5)
    )


def whole() -> tuple[bytes, bytes]:
    steps = [step_of(record(EMPTY, KEY, diff=None), diff_id="", layer=""), step_of(record(), diff_id=DIFF, layer=LAYER)]
    document = encode(steps, [MountTar(name="c" * 64, id="/keep", layer=sha256(b"tar"))])
    blobs = [
        Blob(digest=LAYER, size=9, media_type=oci.OCI_LAYER_GZIP),
        Blob(digest=sha256(b"tar"), size=7, media_type=MOUNT),
        Blob(digest=LAYER, size=9, media_type=oci.OCI_LAYER_GZIP),
    ]
    return document, manifest_of(document, blobs)


def test_what_is_written_is_read() -> None:
    document, raw = whole()
    manifest = read_manifest(raw)
    assert [(entry.digest, entry.size) for entry in manifest.layers] == sorted([(LAYER, 9), (sha256(b"tar"), 7)])
    found = read_document(document, manifest)
    step = found.find(KEY, below=BASE)
    assert step is not None
    assert record_of(step, size_bytes=3) == record()
    empty = found.find(EMPTY, below=BASE)
    assert empty is not None
    assert record_of(empty, size_bytes=0).is_empty
    assert found.find(KEY, below=None) is None
    assert found.find("d" * 64, below=BASE) is None
    mount = found.mount("c" * 64)
    assert mount is not None
    assert mount.id == "/keep"
    assert found.mount("e" * 64) is None
    index = oci.parse_manifest(index_of(raw), oci.OCI_INDEX)
    assert isinstance(index, oci.Index)
    assert index.manifests[0].digest == sha256(raw)
    assert whole() == whole()


def test_a_step_on_nothing() -> None:
    first = record(below=None)
    step = step_of(first, diff_id=DIFF, layer=LAYER)
    assert step.chain == DIFF
    assert record_of(step, size_bytes=3) == first


def changed(path: list[str | int], value: object) -> bytes:
    found: Any = json.loads(whole()[0])
    place = found
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["version"], 2),
        (["version"], "1"),
        (["steps"], None),
        (["steps", 0, "key"], "../../etc/passwd"),
        (["steps", 0, "key"], "A" * 64),
        (["steps", 0, "below"], "sha256:x"),
        (["steps", 0, "below"], "sha512:" + "0" * 128),
        (["steps", 0, "diff_id"], ""),
        (["steps", 0, "layer"], "sha256:" + "0" * 64),
        (["steps", 0, "layer"], "sha256:../../x"),
        (["steps", 0, "size_bytes"], -1),
        (["steps", 0, "created_at"], 2**63),
        (["steps", 0, "description"], "x" * 1001),
        (["steps", 0, "parent"], "x" * 201),
        (["mounts", 0, "name"], "../x"),
        (["mounts", 0, "layer"], LAYER[:-1] + "x"),
        (["mounts"], [{}]),
    ],
)
def test_what_no_engine_wrote_is_refused(path: list[str | int], value: object) -> None:
    with pytest.raises(InvalidArgument):
        read_document(changed(path, value), read_manifest(whole()[1]))


def test_documents_are_bounded_and_strict() -> None:
    manifest = read_manifest(whole()[1])
    step = json.loads(whole()[0])["steps"][0]
    for raw in (
        b"{",
        b"[]",
        b'{"version":1,"version":1}',
        b" " * (oci.MAX_CONFIG + 1),
        json.dumps({"version": 1, "steps": [step] * 10_001}).encode(),
    ):
        with pytest.raises(InvalidArgument):
            read_document(raw, manifest)
    with pytest.raises(InvalidArgument, match="more than 1000"):
        manifest_of(b"{}", [Blob(digest=sha256(str(n).encode()), size=1, media_type=MOUNT) for n in range(1001)])


def test_an_image_is_no_cache() -> None:
    document = {
        "schemaVersion": 2, "mediaType": oci.OCI_MANIFEST, "layers": [],
        "config": {"mediaType": oci.OCI_CONFIG, "digest": BASE, "size": 1},
    }  # fmt: skip
    with pytest.raises(InvalidArgument, match="no build cache"):
        read_manifest(json.dumps(document).encode())
    document["config"]["mediaType"] = DOCUMENT  # type: ignore[index]
    assert read_manifest(json.dumps(document).encode()).layers == []


def test_the_least_is_what_the_result_stands_on() -> None:
    records = {
        "2": record("2", "1"), "1": record("1", "image x"), "other": record("other", "image y"), "3": record("3", "2"),
    }  # fmt: skip
    assert chosen("2", records) == ["1", "2"]
    assert chosen("image x", records) == []
    assert chosen("loop", {"loop": record("loop", "loop")}) == ["loop"]


def test_where_a_cache_comes_from() -> None:
    assert parse_source("app:1") is None
    assert parse_source("type=registry,ref=r.example/c") == Source(parse_reference("r.example/c:latest"))
    assert parse_source("type=tar,src=.tare-cache-1") == Source(place=".tare-cache-1")
    assert str(parse_source("type=registry,ref=c:1")) == "c:1"
    for wrong in (
        "type=local,src=/x",
        "type=tar,src=../x",
        "type=tar,src=x",
        "type=registry",
        "type=gha",
        "ref=x",
        "type=registry,ref=A",
        'type="',
        "type=registry,ref=a,x=y",
    ):
        with pytest.raises(InvalidArgument):
            parse_source(wrong)


def test_where_a_cache_goes() -> None:
    assert parse_target("type=local") == Target()
    assert parse_target("type=registry,ref=c:1,mode=max,mounts=False") == Target(
        reference=parse_reference("c:1"), mode="max", mounts=False
    )
    for wrong in (
        "",
        "c:1",
        "type=local,mode=some",
        "type=local,mounts=perhaps",
        "type=registry",
        "type=inline",
        "type=local,dest=/x",
    ):
        with pytest.raises(InvalidArgument):
            parse_target(wrong)
