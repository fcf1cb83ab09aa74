"""Watching one file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tare.drivers.inotify import Alarms, FileWatch


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def rotate(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


@pytest.mark.parametrize("change", [append, rotate, Path.unlink])
def test_it_wakes(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = tmp_path / "log"
    path.touch()

    async def main() -> None:
        watch = FileWatch(path)
        waiting = asyncio.ensure_future(watch.changed())
        await asyncio.sleep(0)
        assert not waiting.done()
        change(path)
        await asyncio.wait_for(waiting, 5)
        watch.close()

    asyncio.run(main())


def test_a_change_before_the_wait_is_not_missed_and_many_are_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()

    async def main() -> None:
        watch = FileWatch(path)
        for _ in range(10):
            append(path)
        await asyncio.wait_for(watch.changed(), 5)
        waiting = asyncio.ensure_future(watch.changed())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        watch.close()

    asyncio.run(main())


def test_a_file_that_is_not_there_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        FileWatch(tmp_path / "nothing")
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_wakes_for_what_is_moved_beside_it(tmp_path: Path) -> None:
    path, other = tmp_path / "log", tmp_path / "log.tmp"
    path.touch()
    other.touch()

    async def main() -> None:
        watch = FileWatch(path, beside=tmp_path)
        waiting = asyncio.ensure_future(watch.changed())
        await asyncio.sleep(0)
        other.rename(tmp_path / "new")
        await asyncio.wait_for(waiting, 5)
        watch.close()

    asyncio.run(main())


@pytest.mark.parametrize("change", [append, rotate, Path.unlink])
def test_an_alarm_rings_once_for_its_file_only(tmp_path: Path, change: Callable[[Path], object]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()

    async def main() -> None:
        alarms = Alarms()
        waiting = [asyncio.ensure_future(alarms.next_change(path)) for path in (one, two)]
        await asyncio.sleep(0)
        change(one)
        await asyncio.wait_for(waiting[0], 5)
        assert not waiting[1].done()
        append(two)
        await asyncio.wait_for(waiting[1], 5)
        again = asyncio.ensure_future(alarms.next_change(two))
        await asyncio.sleep(0)
        append(two)
        await asyncio.wait_for(again, 5)
        given_up = asyncio.ensure_future(alarms.next_change(two))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        with pytest.raises(FileNotFoundError):
            await alarms.next_change(tmp_path / "none")
        alarms.close()

    asyncio.run(main())
