"""What is kept beside images, on a real database and disk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tare.base.digest import Digest, sha256
from tare.base.errors import Conflict, DataCorrupt, InvalidArgument, NotFound
from tare.base.news import News
from tare.base.reference import parse_reference
from tare.images import artifacts as artifacts_of
from tare.images import manifests, records
from tare.images.artifacts import Artifact, Artifacts, read_artifact, unheld
from tare.images.manifests import Manifests, StoredManifest
from tare.oci.image import OCI_INDEX, OCI_MANIFEST, Descriptor
from tare.store.blobs import Blobs
from tare.store.db import Database

NAME = parse_reference("reg.example/chart:1")


def made(store: Artifacts, data: bytes, *, subject: str = "", is_kept: bool = True) -> Artifact:
    """An artifact with one layer, and its blobs in the store."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/x.test",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2},
        "layers": [{"mediaType": "application/x.data", "digest": sha256(data), "size": len(data)}],
    }
    if subject:
        document["subject"] = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}
    for blob in (b"{}", data) if is_kept else ():
        with store.blobs.writer() as writer:
            writer.write(blob)
            writer.commit()
    return read_artifact(json.dumps(document).encode(), OCI_MANIFEST)


def tell(root: Path, story: Callable[[Database, Artifacts], Awaitable[None]]) -> None:
    async def main() -> None:
        database = Database(root / "db", [records.SCHEMA, manifests.SCHEMA, artifacts_of.SCHEMA])
        try:
            store = Artifacts(database, root)
            await store.restore()
            await story(database, store)
        finally:
            database.close()

    asyncio.run(main())


def stored(root: Path) -> set[str]:
    return {path.name for path in (root / "artifacts" / "blobs" / "sha256").iterdir()}


def test_a_name_keeps_it_over_a_restart_until_it_is_removed(tmp_path: Path) -> None:
    digests: list[Digest] = []

    async def first(_: Database, store: Artifacts) -> None:
        artifact = made(store, b"chart")
        digests.append(artifact.digest)
        await store.keep(artifact, reference=NAME)
        await store.keep(artifact, reference=parse_reference("other:2"))

    async def second(_: Database, store: Artifacts) -> None:
        found = store.named("reg.example/chart:1")
        assert found is not None
        assert (found[0].digest, found[0].kind, found[1]) == (digests[0], "application/x.test", NAME)
        assert store.named(digests[0]) == (found[0], None)
        with pytest.raises(InvalidArgument, match=r"chart:1 is an artifact of type application/x\.test, not an image"):
            store.refuse("reg.example/chart:1")
        assert await store.remove("other:2") == [("Untagged", "other:2")]
        assert await store.remove(digests[0]) == [("Untagged", "reg.example/chart:1"), ("Deleted", digests[0])]
        assert stored(tmp_path) == set()
        with pytest.raises(NotFound):
            await store.remove("other:2")

    tell(tmp_path, first)
    assert len(stored(tmp_path)) == 2
    tell(tmp_path, second)


def test_it_goes_with_what_it_is_about(tmp_path: Path) -> None:
    image, manifest = sha256(b"image"), sha256(b"m")

    async def story(database: Database, store: Artifacts) -> None:
        await database.write(lambda db: db.execute("INSERT INTO images VALUES (?,?,NULL,0,0)", (image, b"")) and None)
        known = Manifests(database, store)
        row = StoredManifest(digest=manifest, image=image, media_type=OCI_MANIFEST, raw=b"m")
        await known.keep(row, repository="r", blobs=[])
        about = made(store, b"signature", subject=manifest)
        above = made(store, b"signature of the signature", subject=about.digest)
        for artifact, holder in ((about, manifest), (above, about.digest)):
            await store.keep(artifact, holder=holder)
        assert await store.sweep() == []
        assert [one.digest for one in store.about_all([manifest])] == [about.digest, above.digest]
        with pytest.raises(Conflict, match="goes with it"):
            await store.remove(about.digest)
        await database.write(lambda db: db.execute("DELETE FROM images") and None)
        assert set(await store.sweep()) == {about.digest, above.digest}
        assert stored(tmp_path) == set()

    tell(tmp_path, story)


def test_a_damaged_record_does_not_keep_the_engine_from_starting(tmp_path: Path) -> None:
    async def first(database: Database, store: Artifacts) -> None:
        await store.keep(made(store, b"one"), reference=NAME)
        await store.keep(made(store, b"two"), reference=parse_reference("two:2"))
        raw = made(store, b"one").raw
        await database.write(lambda db: db.execute("UPDATE artifacts SET raw=? WHERE raw=?", (b"{", raw)) and None)

    async def second(_: Database, store: Artifacts) -> None:
        assert [name.familiar() for name in store.names()] == ["two:2"]
        assert len(store.all()) == 1

    tell(tmp_path, first)
    tell(tmp_path, second)
    assert stored(tmp_path) == {sha256(data).removeprefix("sha256:") for data in (b"{}", b"two")}


def test_what_it_calls_itself_is_shown_as_text(tmp_path: Path) -> None:
    async def story(_: Database, store: Artifacts) -> None:
        raw = made(store, b"x").raw.replace(b"application/x.test", b"x/\\u001b[2J\\u202e" + b"y" * 200)
        assert read_artifact(raw, OCI_MANIFEST).kind == "x/[2J" + "y" * 93

    tell(tmp_path, story)


def test_nothing_is_recorded_that_is_not_whole(tmp_path: Path) -> None:
    async def story(_: Database, store: Artifacts) -> None:
        artifact = made(store, b"never came", is_kept=False)
        with pytest.raises(DataCorrupt, match="does not have the"):
            await store.keep(artifact, reference=NAME)
        with pytest.raises(Conflict, match="nothing would lead"):
            await store.keep(made(store, b"x"))
        assert store.all() == []

    tell(tmp_path, story)


def test_blobs_on_their_way_are_not_swept(tmp_path: Path) -> None:
    async def story(_: Database, store: Artifacts) -> None:
        old, new = made(store, b"old"), made(store, b"new")
        await store.keep(old, reference=NAME)
        with store.in_use(new):
            await store.remove(NAME.familiar())
            await store.keep(new, reference=NAME)
        assert stored(tmp_path) == {sha256(data).removeprefix("sha256:") for data in (b"{}", b"new")}

    tell(tmp_path, story)


def test_what_is_read_while_it_is_removed_goes_afterwards(tmp_path: Path) -> None:
    async def story(_: Database, store: Artifacts) -> None:
        artifact, failed = made(store, b"read"), made(store, b"of a pull that fails")
        await store.keep(artifact, reference=NAME)
        with store.in_use(artifact), store.in_use(failed):
            await store.remove(NAME.familiar())
            assert len(stored(tmp_path)) == 3
        assert stored(tmp_path) == set()

    tell(tmp_path, story)


def test_damage_is_found_and_forgotten(tmp_path: Path) -> None:
    async def story(_: Database, store: Artifacts) -> None:
        artifact = made(store, b"chart")
        await store.keep(artifact, reference=NAME)
        assert store.damaged() == []
        blob = sha256(b"chart")
        store.blobs.path(blob).write_bytes(b"chirt")
        assert store.damaged() == [blob]
        store.blobs.remove(blob)
        assert store.damaged() == [blob]
        await store.forget_blob(blob)
        assert (store.all(), store.names(), store.damaged()) == ([], {}, [])

    tell(tmp_path, story)


def test_what_is_no_artifact() -> None:
    long = {"mediaType": "x", "digest": "sha512:" + "0" * 128, "size": 1}
    for document, media_type in (({"config": long, "layers": []}, OCI_MANIFEST), ({"manifests": [long]}, OCI_INDEX)):
        with pytest.raises(InvalidArgument, match="must be named by sha256"):
            read_artifact(json.dumps({"schemaVersion": 2, **document}).encode(), media_type)


def listing(*parts: Artifact) -> Artifact:
    """An index of artifacts."""
    entries = [{"mediaType": part.media_type, "digest": part.digest, "size": len(part.raw)} for part in parts]
    document = {"schemaVersion": 2, "artifactType": "application/x.set", "manifests": entries}
    return read_artifact(json.dumps(document).encode(), OCI_INDEX)


def test_an_index_comes_and_goes_with_its_parts(tmp_path: Path) -> None:
    async def story(_: Database, store: Artifacts) -> None:
        one, two, other = (made(store, data) for data in (b"1", b"2", b"3"))
        inner = listing(two)
        outer = listing(one, inner, other)
        assert (outer.kind, outer.blobs, outer.size_bytes) == ("application/x.set", (), len(outer.raw))
        await store.keep(outer, reference=NAME, parts=[one, two, inner])
        await store.keep(other, reference=parse_reference("other:1"))  # it is here for another reason
        assert store.parts_of(outer) == [one, two, inner, other]
        assert store.bytes() == 2 + 3  # "{}" is everybody's config
        assert await store.remove("other:1") == [("Untagged", "other:1"), ("Deleted", other.digest)]
        assert store.parts_of(outer) == [one, two, inner]
        store.blobs.remove(sha256(b"2"))
        await store.forget_blob(sha256(b"2"))
        assert (store.all(), stored(tmp_path)) == ([], set())

    tell(tmp_path, story)


def test_a_blob_of_an_image_is_not_fetched_again(tmp_path: Path) -> None:
    others = tmp_path / "images"
    others.mkdir()
    images = Blobs(others)
    with images.writer() as writer:
        writer.write(b"layer")
        digest = writer.commit()

    async def main() -> None:
        database = Database(tmp_path / "db", [records.SCHEMA, manifests.SCHEMA, artifacts_of.SCHEMA])
        try:
            store = Artifacts(database, tmp_path, others=images)
            assert not store.has(Descriptor("", digest, 4))
            assert not store.has(Descriptor("", sha256(b"else"), 4))
            assert store.has(Descriptor("", digest, 5))
            assert store.blobs.path(digest).stat().st_ino == images.path(digest).stat().st_ino
        finally:
            database.close()

    asyncio.run(main())


def test_what_happens_is_told_as_of_images(tmp_path: Path) -> None:
    told: list[News] = []

    async def main() -> None:
        database = Database(tmp_path / "db", [records.SCHEMA, manifests.SCHEMA, artifacts_of.SCHEMA])
        try:
            store = Artifacts(database, tmp_path, publish=told.append)
            artifact = made(store, b"chart")
            await store.keep(artifact, reference=NAME)
            await store.prune(lambda known: known is not artifact)
            await store.prune(lambda known: known is artifact)
            assert [(one.type, one.action, one.id, one.attributes) for one in told] == [
                ("image", action, artifact.digest, {"name": artifact.digest}) for action in ("untag", "delete")
            ]
        finally:
            database.close()

    asyncio.run(main())


A, B, C = (sha256(letter) for letter in (b"a", b"b", b"c"))


@pytest.mark.parametrize(
    ("holders", "alive", "gone"),
    [
        ({}, set(), [A, B, C]),
        ({}, {A}, [B, C]),
        ({B: {A}, C: {B}}, {A}, []),
        ({A: {C}, B: {A}, C: {B}}, set(), [A, B, C]),  # in a circle: nothing from outside
        ({A: {"image"}, C: {"other"}}, {"image"}, [B, C]),
    ],
)
def test_what_nothing_holds(holders: dict[Digest, set[str]], alive: set[str], gone: list[Digest]) -> None:
    assert unheld([A, B, C], holders, alive) == gone
