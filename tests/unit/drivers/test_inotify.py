"""Watching files through one inotify instance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tare.drivers.inotify import Alarms


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def rotate(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


def test_a_change_before_the_wait_is_not_missed_and_many_are_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()

    async def main() -> None:
        alarms = Alarms()
        alarm = alarms.set(path)
        for _ in range(10):
            append(path)
        await asyncio.wait_for(alarm.rung(), 5)
        alarm.close()
        alarm = alarms.set(path)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not alarm.future.done()
        alarm.close()
        alarms.close()

    asyncio.run(main())


def test_many_wait_for_one_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()

    async def main() -> None:
        alarms = Alarms()
        many = [alarms.set(path, beside=tmp_path) for _ in range(5)]
        many.pop().close()  # who leaves takes nothing from the others
        append(path)
        await asyncio.wait_for(asyncio.gather(*(alarm.rung() for alarm in many)), 5)
        for alarm in many:
            alarm.close()
        assert Path(f"/proc/self/fdinfo/{alarms._fd}").read_text().count("inotify wd:") == 0
        alarms.close()

    asyncio.run(main())


def test_a_file_that_is_not_there_leaves_no_watch(tmp_path: Path) -> None:
    (tmp_path / "log").touch()

    async def main() -> None:
        alarms = Alarms()
        with pytest.raises(FileNotFoundError):
            alarms.set(tmp_path / "nothing")
        with pytest.raises(FileNotFoundError):
            alarms.set(tmp_path / "log", beside=tmp_path / "nowhere")
        assert Path(f"/proc/self/fdinfo/{alarms._fd}").read_text().count("inotify wd:") == 0
        alarms.close()

    asyncio.run(main())


def test_it_rings_for_what_is_moved_beside_it(tmp_path: Path) -> None:
    path, other = tmp_path / "log", tmp_path / "log.tmp"
    path.touch()
    other.touch()

    async def main() -> None:
        alarms = Alarms()
        alarm = alarms.set(path, beside=tmp_path)
        other.rename(tmp_path / "new")
        await asyncio.wait_for(alarm.rung(), 5)
        alarm.close()
        alarms.close()

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
