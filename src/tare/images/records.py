"""What is known about images, in memory and on disk.

layers   one per chainID: its diffID, the blob it came from, the snapshot it became
images   one per image ID, with the raw config document
tags     canonical reference → image
held_layers  layers that outlive their image because a stopped container stands on them or mounts them; in data roots
         of before, `holds` has some of them
image_uses  when an image was last used, in ns
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from msgspec import Struct

from tare.base.digest import Digest
from tare.base.reference import Reference, parse_reference
from tare.oci.image import ImageConfig
from tare.wire.config import ContainerConfig

SCHEMA = """
CREATE TABLE IF NOT EXISTS layers (
    chain_id TEXT PRIMARY KEY, parent TEXT, diff_id TEXT NOT NULL, blob TEXT NOT NULL, blob_size INTEGER NOT NULL,
    compression TEXT NOT NULL, plain_size INTEGER NOT NULL, size_bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY, raw BLOB NOT NULL, parent TEXT, tagged_at INTEGER NOT NULL, imported_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags (
    reference TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (
    container TEXT PRIMARY KEY, chain_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held_layers (
    container TEXT NOT NULL, chain_id TEXT NOT NULL, PRIMARY KEY (container, chain_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS image_uses (
    image TEXT PRIMARY KEY, at INTEGER NOT NULL
) WITHOUT ROWID;
"""


class Layer(Struct, frozen=True, kw_only=True):
    """One layer in its place in a stack. Sizes in bytes: of the blob, of the plain tar, of the files in it."""

    chain_id: Digest
    parent: Digest | None
    diff_id: Digest
    blob: Digest
    blob_size: int
    compression: str  # of the blob: gzip, zstd or plain
    plain_size: int
    size_bytes: int


class Image(Struct, frozen=True, kw_only=True):
    """One image. `layers` base first; `chain_id` names the file system, None for an image without layers."""

    id: Digest
    raw: bytes
    document: ImageConfig
    config: ContainerConfig
    layers: tuple[Layer, ...]
    parent: Digest | None = None
    tagged_at: int = 0  # ns; 0 for never
    imported_at: int = 0

    @property
    def chain_id(self) -> Digest | None:
        """The chainID of the whole stack."""
        return self.layers[-1].chain_id if self.layers else None

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """Base first."""
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def size_bytes(self) -> int:
        """All files of all layers."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def architecture(self) -> str:
        """Go's name of the processor architecture."""
        return self.document.architecture

    @property
    def created(self) -> str:
        """RFC 3339, as the config document says; "" when it does not."""
        return self.document.created or ""


class ImageUse(Struct, frozen=True):
    """A container stands on an image. `reference` is what the user wrote at create.

    target: where the image is mounted on the host instead, by nobody's container.
    """

    container_id: str
    image_id: str
    reference: str
    running: bool
    target: str = ""


def insert_image(db: sqlite3.Connection, image: Image) -> None:
    """Record an image with its layers; what is there already stays."""
    insert_layers(db, image.layers)
    db.execute(
        "INSERT OR IGNORE INTO images VALUES (?,?,?,?,?)",
        (image.id, image.raw, image.parent, image.tagged_at, image.imported_at),
    )


def insert_layers(db: sqlite3.Connection, layers: Iterable[Layer]) -> None:
    """Record layers; what is there already stays."""
    db.executemany(
        "INSERT OR IGNORE INTO layers VALUES (?,?,?,?,?,?,?,?)",
        [
            (
                layer.chain_id,
                layer.parent,
                layer.diff_id,
                layer.blob,
                layer.blob_size,
                layer.compression,
                layer.plain_size,
                layer.size_bytes,
            )
            for layer in layers
        ],
    )


def set_tag(db: sqlite3.Connection, reference: Reference, image: Digest, at: int) -> None:
    """Point a reference to an image."""
    db.execute("INSERT OR REPLACE INTO tags VALUES (?,?)", (reference.canonical(), image))
    db.execute("UPDATE images SET tagged_at=? WHERE id=?", (at, image))


def delete(
    db: sqlite3.Connection, *, references: Iterable[Reference], images: Iterable[Digest], layers: Iterable[Digest]
) -> None:
    """Forget references, images and layers."""
    db.executemany("DELETE FROM tags WHERE reference=?", [(reference.canonical(),) for reference in references])
    db.executemany("DELETE FROM images WHERE id=?", [(image,) for image in images])
    db.executemany("DELETE FROM layers WHERE chain_id=?", [(layer,) for layer in layers])


class Loaded(Struct):
    """Everything the tables hold."""

    layers: dict[Digest, Layer]
    images: list[tuple[Digest, bytes, Digest | None, int, int]]
    tags: dict[Reference, Digest]
    holds: dict[str, frozenset[Digest]]


class Inventory(Struct, frozen=True, kw_only=True):
    """Everything known about images at one moment, in memory and (`stored`) in the tables.

    leases: chainID to how many operations in flight need it; drafts: names of snapshots of builds in flight.
    """

    layers: Mapping[Digest, Layer]
    images: Mapping[Digest, Image]
    tags: Mapping[Reference, Digest]
    holds: Mapping[str, frozenset[Digest]]
    leases: Mapping[Digest, int]
    drafts: frozenset[str]
    stored: Loaded


def insert_holds(db: sqlite3.Connection, holds: Iterable[tuple[str, Digest]]) -> None:
    """Containers, and the layers that stay for them."""
    db.executemany("INSERT OR IGNORE INTO held_layers VALUES (?,?)", holds)


def delete_holds(db: sqlite3.Connection, containers: Iterable[str]) -> None:
    """These containers need nothing any more."""
    for container in containers:
        db.execute("DELETE FROM holds WHERE container=?", (container,))
        db.execute("DELETE FROM held_layers WHERE container=?", (container,))


def load_all(db: sqlite3.Connection) -> Loaded:
    """Read the tables at start."""
    layers = {
        row[0]: Layer(
            chain_id=row[0],
            parent=row[1],
            diff_id=row[2],
            blob=row[3],
            blob_size=row[4],
            compression=row[5],
            plain_size=row[6],
            size_bytes=row[7],
        )
        for row in db.execute("SELECT * FROM layers")
    }
    images = [tuple(row) for row in db.execute("SELECT id, raw, parent, tagged_at, imported_at FROM images")]
    tags = {parse_reference(row[0]): row[1] for row in db.execute("SELECT reference, image FROM tags")}
    holds: dict[str, frozenset[Digest]] = {}
    for container, chain in db.execute("SELECT * FROM holds UNION SELECT * FROM held_layers"):
        holds[container] = holds.get(container, frozenset()) | {Digest(chain)}
    return Loaded(layers, images, tags, holds)
