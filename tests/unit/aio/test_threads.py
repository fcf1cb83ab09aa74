"""Blocking work in the pool."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from tare.aio.threads import in_thread


def test_it_runs_elsewhere_and_answers_here() -> None:
    async def main() -> tuple[str, int]:
        return await in_thread(lambda *, n: (threading.current_thread().name, n), n=3)

    name, number = asyncio.run(main())
    assert name.startswith("tare-bytes")
    assert number == 3


def test_its_error_is_the_callers() -> None:
    def fail() -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        asyncio.run(in_thread(fail))


def test_the_loop_goes_on_meanwhile() -> None:
    async def main() -> None:
        gate = threading.Event()
        waiting = asyncio.ensure_future(in_thread(gate.wait, 10))
        await asyncio.sleep(0)
        gate.set()  # could not be reached if the loop were held
        assert await waiting is True

    asyncio.run(main())


def test_a_thread_gives_way_soon() -> None:
    assert sys.getswitchinterval() <= 0.001
