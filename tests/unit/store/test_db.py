"""The records' database: one thread, batches, savepoints, what a failing neighbour does not undo."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.base.errors import Unavailable
from tare.store.db import Database

SCHEMA = "CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY, value TEXT);"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "state.db", (SCHEMA,))
    yield database
    database.close()


def put(name: str, value: str = ""):  # type: ignore[no-untyped-def]
    def run(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO things VALUES (?, ?)", (name, value))
        return name

    return run


def names(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM things ORDER BY name")]


class Gate:
    """Holds the database thread, so that what is queued meanwhile becomes one batch."""

    def __init__(self, db: Database) -> None:
        self._open = threading.Event()
        self._entered = threading.Event()
        self._held = db.submit(self._hold)
        assert self._entered.wait(10)

    def _hold(self, _: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._open.wait(10)

    def open(self) -> None:
        self._open.set()
        self._held.result(10)


def test_writes_answer_and_stay(db: Database) -> None:
    async def main() -> list[str]:
        assert await db.write(put("a")) == "a"
        await db.write(put("b"), durable=False)
        return await db.read(names)

    assert asyncio.run(main()) == ["a", "b"]


def test_a_failing_job_does_not_undo_its_neighbours_of_the_batch(db: Database) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES ('half', '')")
        raise KeyError("in the middle")

    gate = Gate(db)
    first, twice, broken, last = (db.submit(job) for job in (put("a"), put("a"), half, put("z")))
    gate.open()
    assert first.result(10) == "a"
    with pytest.raises(sqlite3.IntegrityError):
        twice.result(10)
    with pytest.raises(KeyError):
        broken.result(10)
    assert last.result(10) == "z"
    assert db.submit(names).result(10) == ["a", "z"]


def test_a_job_sees_what_its_neighbours_wrote_before_it(db: Database) -> None:
    gate = Gate(db)
    futures = [db.submit(put("a")), db.submit(names), db.submit(put("b"))]
    gate.open()
    assert futures[1].result(10) == ["a"]


def test_more_than_a_batch(db: Database) -> None:
    gate = Gate(db)
    futures = [db.submit(put(f"{number:04}")) for number in range(500)]
    gate.open()
    assert [future.result(10) for future in futures] == [f"{number:04}" for number in range(500)]
    assert len(db.submit(names).result(10)) == 500


def test_a_durable_job_makes_its_whole_batch_durable(db: Database) -> None:
    def level(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    full, normal = 2, 1
    assert db.submit(level).result(10) == full
    assert db.submit(level, durable=False).result(10) == normal
    gate = Gate(db)
    futures = [db.submit(level, durable=False), db.submit(level), db.submit(level, durable=False)]
    gate.open()
    assert [future.result(10) for future in futures] == [full] * 3


def test_close_finishes_what_is_queued(tmp_path: Path) -> None:
    db = Database(tmp_path / "state.db", (SCHEMA,))
    gate = Gate(db)
    futures = [db.submit(put(f"{number:04}"), durable=False) for number in range(200)]
    gate.open()
    db.close()
    assert all(future.done() for future in futures)
    again = Database(tmp_path / "state.db", (SCHEMA,))
    try:
        assert len(again.submit(names).result(10)) == 200
    finally:
        again.close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database at all, but long enough to be taken for one" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Database(tmp_path / "state.db", (SCHEMA,))


def test_writers_that_have_left_do_not_stop_the_thread(db: Database) -> None:
    """A cancelled waiter cancels the future it waits for: the job is not run, the next one is served."""

    async def main() -> list[str]:
        gate = Gate(db)
        waiter = asyncio.ensure_future(db.write(put("left")))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        gate.open()
        await asyncio.wait_for(db.write(put("next")), 10)
        return await db.read(names)

    assert asyncio.run(main()) == ["next"]


@pytest.mark.parametrize("is_there", [False, True])
def test_nobody_else_reads_it_and_its_journals(tmp_path: Path, is_there: bool) -> None:
    path = tmp_path / "state.db"
    if is_there:  # from an engine that did not mind
        path.touch(mode=0o644)
        path.chmod(0o644)
    db = Database(path, (SCHEMA,))
    asyncio.run(db.write(put("a")))
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    db.close()
    assert {"state.db", "state.db-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("helps", [True, False])
def test_a_full_disk_gets_one_more_try_and_is_told_in_words(tmp_path: Path, helps: bool) -> None:
    asked = []

    def make_room() -> bool:  # in the database's thread
        asked.append(1)
        db._connection.execute("PRAGMA max_page_count=100000")
        return helps

    db = Database(tmp_path / "s.db", ("CREATE TABLE t (x BLOB);",), make_room=make_room)
    try:
        db.submit(lambda c: c.execute("PRAGMA max_page_count=5")).result()
        write = db.submit(lambda c: c.execute("INSERT INTO t VALUES (zeroblob(100000))").rowcount)
        if helps:
            assert write.result() == 1
        else:
            with pytest.raises(Unavailable, match="no space left on device"):
                write.result()
        assert asked == [1]
        assert db.submit(lambda c: c.execute("SELECT count(*) FROM t").fetchone()[0]).result() == int(helps)
    finally:
        db.close()
