"""What is stored about volumes: one row each, the name unique."""

from __future__ import annotations

import sqlite3

import msgspec

ANONYMOUS = "com.docker.volume.anonymous"
"""The label of a volume whose name the engine made up (W83)."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS volumes (
    name TEXT PRIMARY KEY,
    document BLOB NOT NULL
) WITHOUT ROWID;
"""


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A volume: its driver, that driver's options, its labels. `created_at` in nanoseconds."""

    name: str
    driver: str
    created_at: int
    options: dict[str, str] = {}
    labels: dict[str, str] = {}

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody gave it a name."""
        return ANONYMOUS in self.labels


def load(connection: sqlite3.Connection) -> list[VolumeRecord]:
    """Every volume, by name."""
    rows = connection.execute("SELECT document FROM volumes ORDER BY name").fetchall()
    return [msgspec.json.decode(row[0], type=VolumeRecord) for row in rows]


def save(connection: sqlite3.Connection, record: VolumeRecord) -> None:
    """Insert or replace by name."""
    connection.execute(
        "INSERT INTO volumes (name, document) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET document = excluded.document",
        (record.name, msgspec.json.encode(record)),
    )


def delete(connection: sqlite3.Connection, name: str) -> None:
    """Forget it. Idempotent."""
    connection.execute("DELETE FROM volumes WHERE name = ?", (name,))
