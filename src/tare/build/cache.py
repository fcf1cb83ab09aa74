"""The build cache: which layer a step made, by a key of all that went into it.

A key is the digest of the key of the step before and of what the step says and reads, never of when. Rows are few and
small: all of them are in memory. What the rows name is kept by `chains`; two builds that come to the same step at the
same time do it once.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tare.base.clock import NEVER, Nanos, now
from tare.base.digest import Digest
from tare.base.errors import InvalidArgument
from tare.store.db import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS build_cache (key TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
"""
REGULAR, CACHE_MOUNT = "regular", "exec.cachemount"
FILTERS = frozenset(
    {"until", "id", "parent", "type", "description", "inuse", "shared", "private", "unused-for", "label", "label!"}
)


class Record(Struct, frozen=True, kw_only=True):
    """One step that was done. `chain` is the file system after it: that of the step before if it changed nothing.

    `parent` is the key before it; `size_bytes` of what it added.
    """

    key: str
    parent: str
    chain: Digest | None
    below: Digest | None
    description: str
    size_bytes: int
    kind: str = REGULAR
    created_at: Nanos = NEVER
    used_at: Nanos = NEVER
    uses: int = 1

    @property
    def is_empty(self) -> bool:
        """Whether the step changed nothing."""
        return self.chain == self.below


def key_of(*parts: object) -> str:
    """The digest of a step: everything that decides what it makes."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


class BuildCache:
    """See the module. `load` first."""

    def __init__(self, database: Database, clock: Callable[[], Nanos] = now) -> None:
        self._db = database
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._doing: dict[str, asyncio.Future[None]] = {}
        self._in_use: Counter[str] = Counter()

    async def load(self) -> None:
        """Read the rows, once."""

        def read(db: sqlite3.Connection) -> list[tuple[bytes]]:
            return db.execute("SELECT record FROM build_cache").fetchall()

        for (raw,) in await self._db.read(read):
            record = msgspec.json.decode(raw, type=Record)
            self._records[record.key] = record

    def __len__(self) -> int:
        return len(self._records)

    def records(self) -> list[Record]:
        """All of them, the latest used first."""
        return sorted(self._records.values(), key=lambda record: (record.used_at, record.key), reverse=True)

    def chains(self) -> set[Digest]:
        """The file systems that must be kept for it."""
        return {record.chain for record in self._records.values() if record.chain is not None}

    def find(self, key: str, *, below: Digest | None) -> Record | None:
        """What the step made when it was done on top of `below`, None if it is not known."""
        record = self._records.get(key)
        return record if record is not None and record.below == below else None

    def known(self, keys: Iterable[str]) -> dict[str, Record]:
        """Those of the keys that are known."""
        return {key: self._records[key] for key in keys if key in self._records}

    def used(self, record: Record) -> None:
        """Note that a build took it."""
        known = self._records.get(record.key)
        if known is not None:
            self._put(replace(known, used_at=self._clock(), uses=known.uses + 1))

    async def add(self, record: Record) -> None:
        """Remember a step."""
        at = self._clock()
        await asyncio.wrap_future(self._put(replace(record, created_at=record.created_at or at, used_at=at)))

    def _put(self, record: Record) -> Future[None]:
        self._records[record.key] = record
        raw = msgspec.json.encode(record)

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO build_cache VALUES (?,?)", (record.key, raw))

        return self._db.submit(write, durable=False)

    async def remove(self, keys: Iterable[str]) -> list[Record]:
        """Forget steps; those that a build uses now stay. The records that went."""
        gone = [self._records[key] for key in keys if key in self._records and not self.is_in_use(key)]
        for record in gone:
            del self._records[record.key]
        rows = [(record.key,) for record in gone]
        if rows:
            await self._db.write(lambda db: db.executemany("DELETE FROM build_cache WHERE key=?", rows) and None)
        return gone

    def take(self, key: str) -> None:
        """A build uses the step: it is not forgotten before `give_back`."""
        self._in_use[key] += 1

    def give_back(self, keys: Iterable[str]) -> None:
        """A build that took steps is over."""
        self._in_use.subtract(keys)
        self._in_use = +self._in_use

    def is_in_use(self, key: str) -> bool:
        """Whether a build that runs has the step."""
        return key in self._in_use

    # -- one at a time ------------------------------------------------------------------------------------------------

    async def claim(self, key: str) -> Claim:
        """Wait until nobody does the step, then have it; call the claim when the step is done and remembered."""
        waited = False
        while (busy := self._doing.get(key)) is not None:
            waited = True
            await asyncio.shield(busy)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._doing[key] = mine

        def release() -> None:
            if self._doing.get(key) is mine:
                del self._doing[key]
            if not mine.done():
                mine.set_result(None)

        return Claim(release, waited)


class Claim(Struct, frozen=True):
    """The right to do a step. `waited`: somebody else has just done it."""

    release: Callable[[], None]
    waited: bool

    def __call__(self) -> None:
        """Let others have it."""
        self.release()


class Budget(Struct, frozen=True, kw_only=True):
    """What a prune may take. Sizes in bytes, 0 for no bound; `older_ns`: only what was not used since."""

    everything: bool = False
    reserved_bytes: int = 0
    max_bytes: int = 0
    older_ns: int | None = None
    ids: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


def choose(records: Iterable[Record], budget: Budget, *, shared: Callable[[Record], bool]) -> list[Record]:
    """What a prune removes, the longest unused first. shared: images stand on it, so nothing would be freed.

    Without `everything` shared steps stay. A bound stops when what is left fits.
    """
    oldest = sorted(records, key=lambda record: (record.used_at, record.key))
    total = sum(record.size_bytes for record in oldest)
    chosen: list[Record] = []
    for record in oldest:
        if not budget.everything and shared(record):
            continue
        if budget.older_ns is not None and record.used_at >= budget.older_ns:
            continue
        if budget.ids and not any(record.key.startswith(wanted) for wanted in budget.ids):
            continue
        if budget.kinds and record.kind not in budget.kinds:
            continue
        bound = max(budget.reserved_bytes, budget.max_bytes)
        if bound and total <= bound:
            break
        chosen.append(record)
        total -= record.size_bytes
    return chosen


def refuse_unknown(filters: Iterable[str]) -> None:
    """Raise InvalidArgument for a filter that is not one."""
    for name in filters:
        if name not in FILTERS:
            raise InvalidArgument(f"invalid filter '{name}'")
