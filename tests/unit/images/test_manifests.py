"""Manifests and homes of blobs, on a real database."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tare.base.digest import sha256
from tare.images import records
from tare.images.artifacts import Artifacts
from tare.images.manifests import SCHEMA, Manifests, StoredIndex, StoredManifest
from tare.oci.image import OCI_INDEX, OCI_MANIFEST
from tare.store.db import Database

IMAGE = sha256(b"image")
BLOB = sha256(b"blob")


def test_kept_found_and_swept(tmp_path: Path) -> None:
    async def story() -> None:
        database = Database(tmp_path / "db", [records.SCHEMA, SCHEMA])
        try:
            manifests = Manifests(database, Artifacts(database, tmp_path))
            index = StoredIndex(sha256(b"index"), OCI_INDEX, b"index")
            one = StoredManifest(
                digest=sha256(b"m"), image=IMAGE, media_type=OCI_MANIFEST, raw=b"m", led_by=index.digest
            )
            await manifests.keep(one, index=index, repository="reg.example/a/b", blobs=[BLOB])
            await manifests.keep(one, repository="reg.example/c", blobs=[BLOB])
            await manifests.keep(one, repository="other.example/d", blobs=[BLOB])
            assert await manifests.of_image(IMAGE) == [one]
            assert await manifests.homes(BLOB, domain="reg.example") == ["a/b", "c"]
            await manifests.has_left(BLOB, repository="reg.example/c")
            assert await manifests.homes(BLOB, domain="reg.example") == ["a/b"]
            await manifests.sweep()
            assert await manifests.of_image(IMAGE) == []
            assert await manifests.homes(BLOB, domain="reg.example") == []
        finally:
            database.close()

    asyncio.run(story())
