"""Volume records in a real database."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tare.volumes import records
from tare.volumes.records import ANONYMOUS, VolumeRecord


def test_what_is_saved_is_loaded_by_name() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(records.SCHEMA)
        first = VolumeRecord(name="b", driver="local", created_at=1, options={"type": "tmpfs"}, labels={"x": "y"})
        second = VolumeRecord(name="a", driver="local", created_at=2, labels={ANONYMOUS: ""})
        records.save(connection, first)
        records.save(connection, second)
        records.save(connection, first)
        assert records.load(connection) == [second, first]
        assert (first.is_anonymous, second.is_anonymous) == (False, True)
        records.delete(connection, "a")
        records.delete(connection, "a")
        assert records.load(connection) == [first]
