"""Container records on disk: one row each, the name unique."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from tare.base.ids import ContainerId
from tare.containers.container import Container

SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    record BLOB NOT NULL
) WITHOUT ROWID;
"""

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Container] = msgspec.json.Decoder(Container)


def encode(container: Container) -> bytes:
    """The stored form."""
    return _encoder.encode(container)


def decode(record: bytes) -> Container:
    """Read a stored record. Raises msgspec.ValidationError for one this version cannot read."""
    return _decoder.decode(record)


def insert(connection: sqlite3.Connection, container: Container) -> None:
    """Raises sqlite3.IntegrityError when the name or id is taken."""
    connection.execute(
        "INSERT INTO containers (id, name, record) VALUES (?, ?, ?)", (container.id, container.name, encode(container))
    )


def update(connection: sqlite3.Connection, container: Container) -> None:
    """Replace the stored record; no row, no effect (it was removed meanwhile)."""
    connection.execute(
        "UPDATE containers SET name = ?, record = ? WHERE id = ?", (container.name, encode(container), container.id)
    )


def delete(connection: sqlite3.Connection, container_id: ContainerId) -> None:
    """Forget it. Idempotent."""
    connection.execute("DELETE FROM containers WHERE id = ?", (container_id,))


def load_all(connection: sqlite3.Connection) -> list[Container]:
    """Every record, oldest first."""
    rows: list[tuple[Any]] = connection.execute("SELECT record FROM containers").fetchall()
    return sorted((decode(row[0]) for row in rows), key=lambda container: container.created_at)
