"""Events: the news of all domains in the order they happened, for whoever listens now or asks later, and who asked.

They are kept in the records' database, the last `KEPT` of them for `KEPT_NS`. Publishing queues a row behind the record
that the news is about and waits for nothing; `settled` waits until what was published is past kill -9, which the API does
before it answers a request that changes something. So the events have no gap for what was answered.

A reader that does not keep up loses its place, never the engine's memory: its queue is bounded and it is told by the
end of its stream.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec

from tare.base import clock
from tare.base.errors import TareError
from tare.base.news import News, asked_by
from tare.store.db import Database

log = logging.getLogger(__name__)

KEPT = 100_000
KEPT_NS = 30 * 24 * 3600 * 1_000_000_000
QUEUE = 4096
_PAGE = 1000
_TRIM_EVERY = 1024

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    at INTEGER PRIMARY KEY,
    user TEXT NOT NULL,
    news BLOB NOT NULL
);
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(News).decode


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """News with the time it was told (nanoseconds). user: whose request caused it; "" when nobody's did.

    The same only as itself: every reader gets the one object, and what is made of it once can be found again.
    """

    at: int
    news: News
    user: str = ""


class Events:
    """Publish and subscribe, and the memory for `since`. Call `load` first."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._unwritten: deque[Event] = deque()
        self._write: Future[None] | None = None
        self._queues: set[asyncio.Queue[Event | None]] = set()
        self._last = 0
        self._count = 0

    async def load(self) -> None:
        """Go on after the last event of an earlier daemon, and forget what is too old."""

        def read(connection: sqlite3.Connection) -> int:
            _trim(connection)
            row: tuple[int | None] = connection.execute("SELECT max(at) FROM events").fetchone()
            return row[0] or 0

        self._last = max(self._last, await self._db.read(read))

    def publish(self, news: News) -> None:
        """Tell everyone. Times never repeat or go back, so that `since` can continue exactly."""
        self._last = max(clock.now(), self._last + 1)
        self._count += 1
        event = Event(self._last, news, asked_by.get())
        self._unwritten.append(event)
        self._write = self._db.submit(self._write_all, durable=False)
        for queue in list(self._queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._queues.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)

    def _write_all(self, connection: sqlite3.Connection) -> None:
        """In the database's thread: whatever waits goes in at once; the jobs queued behind find nothing."""
        rows = []
        while self._unwritten:
            event = self._unwritten.popleft()
            rows.append((event.at, event.user, _encode(event.news)))
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        if rows and self._count % _TRIM_EVERY < len(rows):
            _trim(connection)

    async def settled(self) -> None:
        """Wait until everything published so far survives kill -9. A full disk is logged: the news are told anyway."""
        write = self._write
        if write is None:
            return
        try:
            await asyncio.wrap_future(write)
        except (TareError, sqlite3.Error) as error:
            log.warning("events could not be recorded: %s", error)
        if self._write is write:
            self._write = None

    @property
    def listeners(self) -> int:
        """How many streams are open (for `info`)."""
        return len(self._queues)

    @property
    def count(self) -> int:
        """How many were published since the start."""
        return self._count

    async def stream(self, *, since: int, until: int) -> AsyncIterator[Event]:
        """Events from `since` (0: from now on) to `until` (0: for ever), in nanoseconds."""
        position = since
        while since:  # what is long past, without a queue that would fill up meanwhile
            page = await self._page(position, until)
            for event in page:
                yield event
                position = event.at + 1
            if len(page) < _PAGE:
                break
        queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE)
        self._queues.add(queue)
        try:
            for event in await self._page(position, until) if since else ():
                yield event
                position = event.at + 1
            while True:
                left = (until - clock.now()) / 1e9 if until else None
                try:
                    queued = queue.get_nowait() if queue.qsize() else await asyncio.wait_for(queue.get(), left)
                except TimeoutError:
                    return
                if queued is None or (until and queued.at > until):
                    return
                if queued.at >= position:
                    yield queued
        finally:
            self._queues.discard(queue)

    async def _page(self, since: int, until: int) -> list[Event]:
        """The next recorded events, those that wait to be written included."""

        def read(connection: sqlite3.Connection) -> list[tuple[int, str, bytes]]:
            found = connection.execute(
                "SELECT at, user, news FROM events WHERE at >= ? AND (? = 0 OR at <= ?) ORDER BY at LIMIT ?",
                (since, until, until, _PAGE),
            )
            return found.fetchall()

        return [Event(at, _decode(news), user) for at, user, news in await self._db.read(read)]


def _trim(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM events WHERE at < ?", (clock.now() - KEPT_NS,))
    connection.execute(
        "DELETE FROM events WHERE at <= (SELECT at FROM events ORDER BY at DESC LIMIT 1 OFFSET ?)", (KEPT,)
    )


def matches(news: News, filters: Mapping[str, list[str]]) -> bool:
    """Whether an event passes Docker's event filters (W43).

    Source: moby daemon/events/filter.go.
    """
    if "event" in filters and not any(
        news.action == want or news.action.startswith(want + ":") for want in filters["event"]
    ):
        return False
    if "type" in filters and news.type not in filters["type"]:
        return False
    if "scope" in filters and "local" not in filters["scope"]:
        return False
    labels_wanted = filters.get("label", [])
    for want in labels_wanted:
        key, equals, value = want.partition("=")
        if key not in news.attributes or (equals and news.attributes[key] != value):
            return False
    for kind in ("container", "network", "volume", "image", "daemon", "plugin"):
        if kind not in filters:
            continue
        name = news.attributes.get("name", "")
        if kind == "image":
            candidates = [news.id, name] if news.type == "image" else [news.attributes.get("image", "")]
            candidates += [candidate.partition(":")[0] for candidate in list(candidates)]
        elif news.type != kind:
            candidates = [news.attributes.get(kind, "")] if news.attributes.get(kind) else []
        else:
            candidates = [news.id, name]
        if not any(c == want or (c == news.id and c.startswith(want)) for want in filters[kind] for c in candidates):
            return False
    return True
