"""Watching one file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tare.drivers.inotify import FileWatch


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
