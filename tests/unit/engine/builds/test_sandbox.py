"""What becomes of a step's container that does not end when it is told to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tare.base.errors import Conflict
from tare.engine.builds import sandbox


def test_a_container_that_does_not_end_in_time_is_removed_when_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        slot: Any = SimpleNamespace(stopped=asyncio.Event())
        gone = asyncio.Event()

        async def remove(_engine: object, which: Any, *, force: bool, volumes: bool) -> None:
            assert force
            assert volumes
            if not which.stopped.is_set():
                raise Conflict("it does not end after SIGKILL")
            gone.set()

        monkeypatch.setattr(sandbox, "remove", remove)
        engine: Any = None
        await sandbox.take_away(engine, slot)
        assert not gone.is_set()
        slot.stopped.set()
        await asyncio.wait_for(gone.wait(), 5)

    asyncio.run(main())
