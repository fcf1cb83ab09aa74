"""The autobuilds of an engine and their runs: records, and which of them run now.

All of it is in memory too; the loop's thread alone touches it. What is answered is durable.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from tare.base.clock import Nanos, now
from tare.base.errors import Conflict, NotFound
from tare.build.autobuild import INTERRUPTED, RUNNING, SUCCEEDED, Autobuild, Run, surplus
from tare.store.db import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS autobuilds (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    record BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS autobuild_runs (
    autobuild TEXT NOT NULL REFERENCES autobuilds (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (autobuild, number)
) WITHOUT ROWID;
"""


class Live(Struct, eq=False):
    """A run under way, for who follows it. `run` is None until it is known that there is something to build.

    number: what it is or would be called. looks_at: what was asked for until then is answered by it. commit: what the
    branch is.
    """

    id: str
    number: int
    looks_at: Nanos
    run: Run | None = None
    task: asyncio.Task[None] | None = None
    is_over: bool = False
    commit: str = ""
    _event: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Wake everybody who follows."""
        self._event.set()
        self._event = asyncio.Event()

    async def news(self) -> None:
        """Return when something has changed."""
        await self._event.wait()


class Autobuilds:
    """See the module. `load` first."""

    def __init__(self, database: Database, clock: Callable[[], Nanos] = now) -> None:
        self._db = database
        self._clock = clock
        self._items: dict[str, Autobuild] = {}
        self._runs: dict[str, dict[int, Run]] = {}
        self._begun: dict[str, list[asyncio.Future[Live]]] = {}
        self.changed = asyncio.Event()
        self.live: dict[str, Live] = {}

    def __repr__(self) -> str:
        return f"Autobuilds({len(self._items)}, {len(self.live)} running)"

    async def load(self) -> list[tuple[Autobuild, Run]]:
        """Read the rows, once. Runs that an engine which is gone left unfinished are interrupted; they are returned."""

        def read(db: sqlite3.Connection) -> tuple[list[tuple[bytes]], list[tuple[str, bytes]]]:
            items = db.execute("SELECT record FROM autobuilds").fetchall()
            return items, db.execute("SELECT autobuild, record FROM autobuild_runs").fetchall()

        items, runs = await self._db.read(read)
        for (raw,) in items:
            item = msgspec.json.decode(raw, type=Autobuild)
            self._items[item.id] = item
            self._runs[item.id] = {}
        left: list[tuple[Autobuild, Run]] = []
        for key, raw in runs:
            run = msgspec.json.decode(raw, type=Run)
            if run.status == RUNNING:
                error = "the engine ended while it ran"
                run = replace(run, status=INTERRUPTED, error=error, ended_at=self._clock())
                left.append((self._items[key], run))
            self._runs[key][run.number] = run
        for item, run in left:
            await self._record(item, run)
        return left

    # -- looking ------------------------------------------------------------------------------------------------------

    def items(self) -> list[Autobuild]:
        """All, by name."""
        return sorted(self._items.values(), key=lambda item: item.name)

    def find(self, name: str) -> Autobuild:
        """The one of that name. Raises NotFound."""
        for item in self._items.values():
            if item.name == name:
                return item
        raise NotFound(f"No such autobuild: {name[:200]}")

    def runs(self, item: Autobuild) -> list[Run]:
        """What is kept of its history, the newest first."""
        return sorted(self._runs.get(item.id, {}).values(), key=lambda run: run.number, reverse=True)

    def run(self, item: Autobuild, number: int) -> Run:
        """One of its runs; 0 for the newest. Raises NotFound."""
        known = self.runs(item)
        for run in known:
            if number in (0, run.number):
                return run
        raise NotFound(
            f"autobuild {item.name} has no run {number}" if number else f"autobuild {item.name} has not run yet"
        )

    # -- changing -----------------------------------------------------------------------------------------------------

    async def add(self, item: Autobuild) -> Autobuild:
        """Make one. Raises Conflict when the name is taken."""
        at = self._clock()
        item = replace(item, created_at=at, resumed_at=at)

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO autobuilds VALUES (?,?,?)", (item.id, item.name, msgspec.json.encode(item)))

        try:
            await self._db.write(write)
        except sqlite3.IntegrityError:
            raise Conflict(f"there is an autobuild {item.name} already", hint="choose another name") from None
        self._items[item.id] = item
        self._runs[item.id] = {}
        self.changed.set()
        return item

    def hide(self, item: Autobuild) -> None:
        """Nothing of it begins any more; who waits for that is told. For `remove`."""
        self._items.pop(item.id, None)
        self._runs.pop(item.id, None)
        for waiting in self._begun.pop(item.id, ()):
            waiting.cancel()

    async def remove(self, item: Autobuild) -> None:
        """Forget it with its history, when nothing of it runs. Idempotent."""
        self.hide(item)
        await self._db.write(lambda db: db.execute("DELETE FROM autobuilds WHERE id=?", (item.id,)) and None)

    async def ask(self, item: Autobuild, *, cause: str, is_forced: bool = False) -> None:
        """Somebody wants a run, as soon as one may begin. It is not forgotten when the engine ends before that."""
        is_forced = is_forced or (item.is_forced and item.asked_at > item.checked_at)
        live = self.live.get(item.id)  # what runs has looked already, and the clock may have been set back
        at = max(self._clock(), Nanos(max(item.checked_at, live.looks_at if live else 0) + 1))
        await self._put(replace(item, asked_at=at, asked_by=cause, is_forced=is_forced))
        self.changed.set()

    async def pause(self, item: Autobuild, *, is_paused: bool) -> None:
        """Let its schedule and hooks rest, or go on from now."""
        await self._put(replace(item, is_paused=is_paused, resumed_at=self._clock()))
        self.changed.set()

    def begun(self, item: Autobuild) -> asyncio.Future[Live]:
        """Resolves with the next run that begins. Cancelled when the autobuild is removed before."""
        waiting: asyncio.Future[Live] = asyncio.get_running_loop().create_future()
        self._begun.setdefault(item.id, []).append(waiting)
        return waiting

    # -- runs ---------------------------------------------------------------------------------------------------------

    def start(self, item: Autobuild) -> Live:
        """A run of it begins now: whoever waits for one gets it."""
        live = Live(item.id, item.last_run + 1, looks_at=max(self._clock(), item.asked_at))
        self.live[item.id] = live
        for waiting in self._begun.pop(item.id, ()):
            if not waiting.done():
                waiting.set_result(live)
        return live

    async def looked(self, item: Autobuild, live: Live) -> None:
        """The run knows what there is: what was asked for until it began is answered by it."""
        current = self._items.get(item.id)
        if current is not None:
            await self._put(replace(current, checked_at=live.looks_at))

    async def begin(self, item: Autobuild, live: Live, run: Run) -> None:
        """There is something to build: the run is recorded, and its number is taken."""
        current = self._items.get(item.id)
        live.run = run
        if current is not None:
            await self._record(replace(current, checked_at=live.looks_at, last_run=run.number), run)
        live.tell()

    def over(self, live: Live) -> None:
        """The run has ended, however; also one that could not be recorded does not begin again at once."""
        self.live.pop(live.id, None)
        if (item := self._items.get(live.id)) is not None and item.checked_at < live.looks_at:
            self._items[live.id] = replace(item, checked_at=live.looks_at)
        live.is_over = True
        live.tell()
        self.changed.set()

    async def end(self, item: Autobuild, run: Run) -> list[int]:
        """The run is over. The numbers of those that are not kept any more."""
        current = self._items.get(item.id)
        if current is None:
            return []
        gone = surplus([run, *(known for known in self.runs(item) if known.number != run.number)])
        built = run.commit if run.status == SUCCEEDED else current.built
        await self._record(replace(current, built=built), run, gone=gone)
        return gone

    async def _put(self, item: Autobuild) -> None:
        self._items[item.id] = item
        raw = msgspec.json.encode(item)
        await self._db.write(
            lambda db: db.execute("UPDATE autobuilds SET record=? WHERE id=?", (raw, item.id)) and None
        )

    async def _record(self, item: Autobuild, run: Run, *, gone: Sequence[int] = ()) -> None:
        """Write both at once; runs that are `gone` go."""
        self._items[item.id] = item
        runs = self._runs[item.id]
        runs[run.number] = run
        for number in gone:
            runs.pop(number, None)
        raw, row = msgspec.json.encode(item), (item.id, run.number, msgspec.json.encode(run))
        rows = [(item.id, number) for number in gone]

        def write(db: sqlite3.Connection) -> None:
            db.execute("UPDATE autobuilds SET record=? WHERE id=?", (raw, item.id))
            db.execute("INSERT OR REPLACE INTO autobuild_runs VALUES (?,?,?)", row)
            db.executemany("DELETE FROM autobuild_runs WHERE autobuild=? AND number=?", rows)

        await self._db.write(write)


__all__ = ["SCHEMA", "Autobuilds", "Live"]
