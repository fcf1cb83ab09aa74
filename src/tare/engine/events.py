"""Events: the news of all domains in the order they happened, for whoever listens now or asks later, and who asked.

They are kept in the records' database, the last `KEPT` of them for `KEPT_NS`. Publishing queues a row behind the record
that the news is about and waits for nothing; `settled` waits until what was published is past kill -9, which the API does
before it answers a request that changes something. So the events have no gap for what was answered.

A reader that does not keep up reads from the records what it has missed, at its own pace, and costs the others nothing
meanwhile; one that takes nothing for `PATIENCE_S` is told by the end of its stream.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import msgspec
from msgspec import Struct

from tare.base import clock
from tare.base.errors import ClientGone, TareError
from tare.base.news import News, asked_by
from tare.store.db import Database
from tare.web.message import Sink

log = logging.getLogger(__name__)

KEPT = 100_000
KEPT_NS = 30 * 24 * 3600 * 1_000_000_000
RECENT = 256
"""What dockerd remembers, and what it shows to who names an end without a beginning. Source: moby daemon/events."""
PATIENCE_S = 600.0
GAP_S = 0.02
"""An event after a pause is sent at once; what follows closely goes together, since each write to each reader costs."""
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


class Event(Struct, frozen=True, eq=False):
    """News with the time it was told (nanoseconds). user: whose request caused it; "" when nobody's did.

    The same only as itself: every reader gets the one object, and what is made of it once can be found again.
    """

    at: int
    news: News
    user: str = ""


class _Reader:
    """One that is up to date: it gets what is published. `position` is the first time it has not seen or has waiting."""

    __slots__ = ("_line", "_push", "_until", "_waiting", "_waits_from", "behind", "position")

    def __init__(self, sink: Sink, line: Callable[[Event], bytes], *, position: int, until: int) -> None:
        self._push = sink.push
        self._line = line
        self._until = until
        self._waiting: list[bytes] = []
        self._waits_from = 0
        self.position = position
        self.behind: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, event: Event) -> bool:
        """Keep it for `flush`. False when it wants no more."""
        if event.at < self.position:
            return True
        if self._until and event.at > self._until:
            self.flush()
            return False
        if line := self._line(event):
            if not self._waiting:
                self._waits_from = event.at
            self._waiting.append(line)
        self.position = event.at + 1
        return True

    def flush(self) -> bool:
        """Send what waits. False when the client is behind: then `position` is that of the first it has not got."""
        if not self._waiting:
            return True
        is_sent = self._push(self._waiting)
        self._waiting = []
        if not is_sent:
            self.position = self._waits_from
        return is_sent


class Events:
    """Publish and subscribe, and the memory for `since`. Call `load` first."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._unwritten: deque[Event] = deque()
        self._write: Future[None] | None = None
        self._live: set[_Reader] = set()
        self._flushing: asyncio.TimerHandle | None = None
        self._flushed = 0.0
        self._followers = 0
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
        if not self._live:
            return
        for reader in list(self._live):
            if not reader.take(event):
                self._leave(reader)
        if self._flushing is None:
            wait_s = self._flushed + GAP_S - time.monotonic()
            if wait_s <= 0:
                self._flush()
            else:
                self._flushing = asyncio.get_running_loop().call_later(wait_s, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        self._flushed = time.monotonic()
        for reader in list(self._live):
            if not reader.flush():
                self._leave(reader)

    def _leave(self, reader: _Reader) -> None:
        """Let it look for itself what it has missed, or whether it has all."""
        self._live.discard(reader)
        if not reader.behind.done():
            reader.behind.set_result(None)

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
        return self._followers

    @property
    def count(self) -> int:
        """How many were published since the start."""
        return self._count

    async def follow(self, sink: Sink, line: Callable[[Event], bytes], *, since: int, until: int) -> None:
        """Give `sink` each event from `since` to `until` (0: for ever), in nanoseconds, and return then.

        since: 0 for what comes from now on or, if there is an end, from the last `RECENT` on.
        line: an event as it is sent, b"" for one that is not wanted. On a full disk only those who keep up see all.
        Raises ClientGone also for a client that takes nothing for `PATIENCE_S`.
        """
        self._followers += 1
        try:
            position = since or (await self._recent() if until else self._last + 1)
            while not until or position <= until:
                position = await self._catch_up(sink, line, position, until)
                reader = _Reader(sink, line, position=position, until=until)
                self._live.add(reader)  # in the same turn as the last look at the newest event: nothing lies between
                try:
                    await asyncio.wait_for(reader.behind, (until - clock.now()) / 1e9 if until else None)
                except TimeoutError:
                    if not reader.flush():
                        await self._catch_up(sink, line, reader.position, until)
                    return
                finally:
                    self._live.discard(reader)
                position = reader.position
        finally:
            self._followers -= 1

    async def _catch_up(self, sink: Sink, line: Callable[[Event], bytes], position: int, until: int) -> int:
        """Send what is recorded from `position` on until nothing newer was published; returns the new position."""
        while position <= self._last:
            newest = self._last
            page = await self._page(position, until)
            for event in page:
                if text := line(event):
                    try:
                        async with asyncio.timeout(PATIENCE_S):
                            await sink.send(text)
                    except TimeoutError:
                        raise ClientGone("the client does not read") from None
                position = event.at + 1
            if len(page) < _PAGE:
                position = max(position, newest + 1)
        return position

    async def _recent(self) -> int:
        """The time of the first of the last `RECENT`."""

        def read(connection: sqlite3.Connection) -> int:
            found: tuple[int | None] = connection.execute(
                "SELECT min(at) FROM (SELECT at FROM events ORDER BY at DESC LIMIT ?)", (RECENT,)
            ).fetchone()
            return found[0] or 1

        return await self._db.read(read)

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
