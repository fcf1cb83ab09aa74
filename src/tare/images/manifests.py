"""Manifests as registries gave or took them: raw bytes, so that an image goes out under the digest it came in with.

manifests    digest → media type, bytes, the image they describe, and the index that led there ("" for none)
blob_homes   which repositories are known to have a blob, so that a registry can take it from there
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from tare.base.digest import Digest
from tare.images.artifacts import Artifacts
from tare.oci import image as oci
from tare.store.db import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS manifests (
    digest TEXT PRIMARY KEY, image TEXT NOT NULL, media_type TEXT NOT NULL, raw BLOB NOT NULL, led_by TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS manifests_of_image ON manifests (image);
CREATE TABLE IF NOT EXISTS blob_homes (
    blob TEXT NOT NULL, repository TEXT NOT NULL, PRIMARY KEY (blob, repository)
) WITHOUT ROWID;
"""
_MAX_HOMES = 20


class StoredManifest(Struct, frozen=True, kw_only=True):
    """One manifest of an image. led_by: digest of the index through which it was chosen, "" for none."""

    digest: Digest
    image: Digest
    media_type: str
    raw: bytes
    led_by: str = ""


class StoredIndex(Struct, frozen=True):
    """An index somebody pulled by; kept as long as a manifest below it is."""

    digest: Digest
    media_type: str
    raw: bytes


class Manifests:
    """The tables. Reads and writes go through the database's thread."""

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        """artifacts: what indexes list beside images."""
        self.artifacts = artifacts
        self._db = database

    def __repr__(self) -> str:
        return "Manifests()"

    async def sweep(self) -> None:
        """At start: forget what describes images that are gone, and homes of blobs no layer has."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "DELETE FROM manifests WHERE image NOT IN (SELECT id FROM images) AND digest NOT IN (SELECT m.led_by"
                " FROM manifests m WHERE m.image IN (SELECT id FROM images))"
            )
            db.execute("DELETE FROM blob_homes WHERE blob NOT IN (SELECT blob FROM layers)")

        await self._db.write(work)

    async def keep(
        self, manifest: StoredManifest, *, index: StoredIndex | None = None, repository: str, blobs: Sequence[str]
    ) -> None:
        """Remember how a registry describes an image, and that the repository has the blobs."""

        def work(db: sqlite3.Connection) -> None:
            rows = [(manifest.digest, manifest.image, manifest.media_type, manifest.raw, manifest.led_by)]
            if index is not None:
                rows.append((index.digest, manifest.image, index.media_type, index.raw, ""))
            db.executemany(
                "INSERT INTO manifests VALUES (?,?,?,?,?) ON CONFLICT (digest) DO UPDATE SET image = excluded.image,"
                " media_type = excluded.media_type, raw = excluded.raw,"
                " led_by = iif(excluded.led_by = '', led_by, excluded.led_by)",
                rows,
            )
            db.executemany("INSERT OR IGNORE INTO blob_homes VALUES (?,?)", [(blob, repository) for blob in blobs])

        await self._db.write(work)

    async def of_image(self, image: Digest) -> list[StoredManifest]:
        """Every manifest (no index) known for the image."""

        def work(db: sqlite3.Connection) -> list[StoredManifest]:
            rows = db.execute(
                "SELECT digest, image, media_type, raw, led_by FROM manifests WHERE image=? ORDER BY digest", (image,)
            )
            return [
                StoredManifest(digest=row[0], image=row[1], media_type=row[2], raw=row[3], led_by=row[4])
                for row in rows
                if row[2] not in oci.INDEXES
            ]

        return await self._db.read(work)

    async def index(self, digest: Digest) -> StoredIndex | None:
        """An index that is known."""

        def work(db: sqlite3.Connection) -> StoredIndex | None:
            row = db.execute("SELECT digest, media_type, raw FROM manifests WHERE digest=?", (digest,)).fetchone()
            return StoredIndex(row[0], row[1], row[2]) if row and row[1] in oci.INDEXES else None

        return await self._db.read(work)

    async def led_by(self, index: Digest) -> list[StoredManifest]:
        """The manifests that were chosen through an index."""

        def work(db: sqlite3.Connection) -> list[StoredManifest]:
            rows = db.execute("SELECT digest, image, media_type, raw, led_by FROM manifests WHERE led_by=?", (index,))
            return [
                StoredManifest(digest=row[0], image=row[1], media_type=row[2], raw=row[3], led_by=row[4])
                for row in rows
            ]

        return await self._db.read(work)

    async def homes(self, blob: Digest, *, domain: str) -> list[str]:
        """Repositories (without their domain) of a registry that are known to have the blob."""
        prefix = f"{domain}/"

        def work(db: sqlite3.Connection) -> list[str]:
            rows = db.execute(
                "SELECT repository FROM blob_homes WHERE blob=? AND substr(repository, 1, ?) = ? ORDER BY repository LIMIT ?",
                (blob, len(prefix), prefix, _MAX_HOMES),
            )
            return [row[0].removeprefix(prefix) for row in rows]

        return await self._db.read(work)

    async def has_left(self, blob: Digest, *, repository: str) -> None:
        """The repository does not have the blob after all."""
        await self._db.write(
            lambda db: db.execute("DELETE FROM blob_homes WHERE blob=? AND repository=?", (blob, repository)) and None
        )


__all__ = ["Manifests", "StoredIndex", "StoredManifest"]
