"""The records: one SQLite file in WAL mode, one thread that talks to it, only the daemon opens it.

    <data-root>/state.db        tables are declared by the domains that own them (`SCHEMA` in their records.py)

Promise: when a durable write returns, it survives a power cut (synchronous=FULL). Uniqueness constraints are the
concurrency control; a violated one surfaces as sqlite3.IntegrityError for the domain to translate.
Writes that arrive together are committed together: one sync serves them all.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from tare.aio import failpoints
from tare.store.reserve import no_space

T = TypeVar("T")
Transaction = Callable[[sqlite3.Connection], T]

Outcome = tuple[Future[Any], Any, BaseException | None]

_BATCH = 64


class Database:
    """A connection with its own thread. `close()` waits for what was accepted."""

    def __init__(self, path: Path, schema: Sequence[str], *, make_room: Callable[[], bool] = lambda: False) -> None:
        """Open or create `path` and apply `schema` (idempotent `CREATE … IF NOT EXISTS` statements).

        make_room: called in the thread when the disk is full; True if it is worth another try.
        """
        self._make_room = make_room
        self._jobs: queue.SimpleQueue[tuple[Transaction[Any], bool, Future[Any]] | None] = queue.SimpleQueue()
        # Nobody but root reads it: there are environments and build arguments in it. The journals get the file's mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.chmod(path, 0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        self._full = True
        for statement in schema:
            self._connection.executescript(statement)
        self._thread = threading.Thread(target=self._serve, name="tare-db", daemon=True)
        self._thread.start()

    def submit(self, transaction: Transaction[T], *, durable: bool = True) -> Future[T]:
        """Queue `transaction` (called in the database thread inside BEGIN…COMMIT); the future resolves after COMMIT.

        A future cancelled before its turn takes the transaction with it. durable=False is for facts the kernel or a file can tell again after a power cut.
        """
        future: Future[T] = Future()
        self._jobs.put((transaction, durable, future))
        return future

    async def write(self, transaction: Transaction[T], *, durable: bool = True) -> T:
        """`submit` and wait."""
        return await asyncio.wrap_future(self.submit(transaction, durable=durable))

    async def read(self, query: Transaction[T]) -> T:
        """Run a read-only transaction."""
        return await self.write(query, durable=False)

    def close(self) -> None:
        """Finish what is queued, then close the file."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _serve(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch = [first]
            stop = False
            while len(batch) < _BATCH:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    stop = True
                    break
                batch.append(job)
            self._commit(batch)
            if stop:
                return

    def _commit(self, batch: list[tuple[Transaction[Any], bool, Future[Any]]]) -> None:
        """Run a batch in one transaction, each job in a savepoint so that one failure does not undo its neighbours.

        A job whose waiter has left before its turn is not run; from here on it cannot be cancelled.
        """
        batch = [job for job in batch if job[2].set_running_or_notify_cancel()]
        if not batch:
            return
        connection = self._connection
        full = any(durable for _, durable, _ in batch)
        if full != self._full:
            connection.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
            self._full = full
        outcomes = self._run(batch)
        if _is_full(outcomes[0][2]) and self._make_room():
            outcomes = self._run(batch)
        failpoints.passed("database.committed")
        for future, value, failure in outcomes:
            if _is_full(failure):
                future.set_exception(no_space())
            elif failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(value)

    def _run(self, batch: list[tuple[Transaction[Any], bool, Future[Any]]]) -> list[Outcome]:
        """The outcome of each job; when the disk is full, of all of them that."""
        connection = self._connection
        outcomes: list[Outcome] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            failpoints.hit("database.begun", sqlite3.OperationalError)
            for transaction, _, future in batch:
                connection.execute("SAVEPOINT job")
                try:
                    outcomes.append((future, transaction(connection), None))
                    connection.execute("RELEASE job")
                except BaseException as error:
                    if _is_full(error):
                        raise
                    connection.execute("ROLLBACK TO job")
                    connection.execute("RELEASE job")
                    outcomes.append((future, None, error))
            failpoints.hit("database.written", sqlite3.OperationalError)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            outcomes = [(future, None, error) for _, _, future in batch]
        return outcomes


def _is_full(error: BaseException | None) -> bool:
    """Whether the disk has no room for it."""
    return isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
