"""Last use: written at most once a minute, read again, forgotten with the image."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tare.base.clock import Nanos
from tare.base.digest import sha256
from tare.images.records import SCHEMA
from tare.images.usage import EVERY_NS, Usage
from tare.store.db import Database

WEB, GONE = sha256(b"web"), sha256(b"gone")


def test_a_use_is_written_once_a_minute_and_survives(tmp_path: Path) -> None:
    async def main() -> None:
        now = [10 * EVERY_NS]
        database = Database(tmp_path / "db", [SCHEMA])
        try:
            usage = Usage(database, lambda: Nanos(now[0]))
            assert usage.at(WEB) == 0
            assert usage.note(WEB) is not None
            now[0] += EVERY_NS - 1
            assert usage.note(WEB) is None
            assert usage.at(WEB) == 10 * EVERY_NS
            now[0] += 1
            assert usage.note(WEB) is not None
            assert usage.note(GONE) is not None
            again = Usage(database)
            await again.load([WEB])
            assert (again.at(WEB), again.at(GONE)) == (11 * EVERY_NS, 0)
            again.forget(WEB)
            assert again.at(WEB) == 0
            rows = await database.read(lambda db: db.execute("SELECT count(*) FROM image_uses").fetchone()[0])
            assert rows == 1  # the image that is gone has no row any more
        finally:
            database.close()

    asyncio.run(main())
