"""When images were last used: made, fetched, sent, run, built on, looked into.

One row for each image (`image_uses`, with the other tables of `records`), written at most once a minute and without waiting: what a power cut takes is a minute.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from tare.base.clock import Nanos, now
from tare.base.digest import Digest
from tare.store.db import Database

EVERY_NS = 60 * 1_000_000_000


class Usage:
    """The times by image ID, in memory and in the table. `load` first."""

    def __init__(self, database: Database, clock: Callable[[], Nanos] = now) -> None:
        self._db = database
        self._clock = clock
        self._at: dict[Digest, int] = {}

    def __repr__(self) -> str:
        return f"Usage({len(self._at)})"

    async def load(self, known: Iterable[Digest]) -> None:
        """Read the rows, once; those of images that are gone are dropped."""
        ids = set(known)

        def read(db: sqlite3.Connection) -> dict[str, int]:
            rows: dict[str, int] = dict(db.execute("SELECT image, at FROM image_uses"))
            db.executemany("DELETE FROM image_uses WHERE image=?", [(image,) for image in rows if image not in ids])
            return rows

        self._at = {Digest(image): at for image, at in (await self._db.write(read)).items() if image in ids}

    def at(self, image: Digest) -> int:
        """When it was used last, in ns since the epoch; 0 when that is not known."""
        return self._at.get(image, 0)

    def note(self, image: Digest) -> Future[None] | None:
        """It is used now. The write that was queued, None when the last one is less than a minute old."""
        at = self._clock()
        if at - self._at.get(image, 0) < EVERY_NS:
            return None
        self._at[image] = at

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO image_uses VALUES (?,?)", (image, at))

        return self._db.submit(write, durable=False)

    def forget(self, image: Digest) -> None:
        """The image is gone; its row goes with the next start."""
        self._at.pop(image, None)
