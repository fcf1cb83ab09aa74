"""The records of automated builds, and what of them is known after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from tare.base.clock import Nanos
from tare.base.errors import Conflict, NotFound
from tare.build.autobuild import INTERRUPTED, KEPT_RUNS, RUNNING, SUCCEEDED, Autobuild, Run, next_at
from tare.build.autobuilds import SCHEMA, Autobuilds
from tare.store.db import Database

ITEM = Autobuild(id="1", name="site", git="https://git.example/site.git", tags=("site:snapshot",))
Story = Callable[[Autobuilds], Awaitable[None]]


class Clock:
    """A second later at each look."""

    def __init__(self) -> None:
        self.at = 1_000_000_000_000

    def __call__(self) -> Nanos:
        self.at += 1_000_000_000
        return Nanos(self.at)


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Story], list[tuple[Autobuild, Run]]]:
    """Play a story with the records of the test's directory; what the start found unfinished."""
    clock = Clock()

    def player(story: Story) -> list[tuple[Autobuild, Run]]:
        async def main() -> list[tuple[Autobuild, Run]]:
            database = Database(tmp_path / "state.db", (SCHEMA,))
            try:
                table = Autobuilds(database, clock)
                left = await table.load()
                await story(table)
                return left
            finally:
                database.close()

        return asyncio.run(main())

    return player


def ran(number: int, status: str = RUNNING) -> Run:
    return Run(number=number, status=status, cause="schedule", commit=f"c{number}", log_bytes=1)


def test_what_was_added_is_there_after_a_restart(play: Callable[[Story], object]) -> None:
    async def first(table: Autobuilds) -> None:
        await table.add(ITEM)
        with pytest.raises(Conflict, match="already"):
            await table.add(replace(ITEM, id="2"))
        await table.ask(table.find("site"), cause="hook", is_forced=True)

    async def second(table: Autobuilds) -> None:
        (item,) = table.items()
        assert item.created_at
        assert next_at(item) == item.asked_at > item.created_at
        assert item.is_forced
        await table.remove(item)
        with pytest.raises(NotFound):
            table.find("site")

    async def third(table: Autobuilds) -> None:
        assert table.items() == []

    for story in (first, second, third):
        assert play(story) == []


def test_a_run_that_was_cut_off_is_interrupted(play: Callable[[Story], list[tuple[Autobuild, Run]]]) -> None:
    async def first(table: Autobuilds) -> None:
        item = await table.add(ITEM)
        await table.begin(item, table.start(item), ran(1))

    async def second(table: Autobuilds) -> None:
        (run,) = table.runs(table.find("site"))
        assert run.status == INTERRUPTED
        assert run.ended_at
        assert table.find("site").last_run == 1

    async def third(table: Autobuilds) -> None:
        assert table.run(table.find("site"), 0).status == INTERRUPTED

    assert play(first) == []
    assert [run.number for _, run in play(second)] == [1]
    assert play(third) == []


def test_what_is_asked_while_it_runs_comes_after_it(play: Callable[[Story], object]) -> None:
    async def story(table: Autobuilds) -> None:
        item = await table.add(ITEM)
        begun = table.begun(item)
        await table.ask(item, cause="request")
        live = table.start(table.find("site"))
        assert await begun is live
        await table.ask(table.find("site"), cause="hook")
        await table.begin(item, live, ran(1))
        await table.end(item, ran(1, SUCCEEDED))
        table.over(live)
        item = table.find("site")
        assert item.built == "c1"
        assert next_at(item) == item.asked_at
        live = table.start(item)
        assert live.number == 2
        await table.looked(item, live)
        assert not next_at(table.find("site"))
        with pytest.raises(NotFound, match="no run 2"):
            table.run(item, 2)

    play(story)


def test_a_run_that_could_not_be_recorded_does_not_begin_again(play: Callable[[Story], object]) -> None:
    async def story(table: Autobuilds) -> None:
        item = await table.add(ITEM)
        await table.ask(item, cause="request")
        table.over(table.start(table.find("site")))
        assert not next_at(table.find("site"))

    play(story)


def test_old_runs_go(play: Callable[[Story], object]) -> None:
    async def first(table: Autobuilds) -> None:
        item = await table.add(ITEM)
        gone: list[int] = []
        for number in range(1, KEPT_RUNS + 3):
            await table.begin(item, table.start(item), ran(number))
            gone += await table.end(item, ran(number, SUCCEEDED))
        assert gone == [1, 2]

    async def second(table: Autobuilds) -> None:
        assert [run.number for run in table.runs(table.find("site"))] == list(range(KEPT_RUNS + 2, 2, -1))

    play(first)
    play(second)


def test_one_that_goes_while_it_runs_leaves_no_rows(play: Callable[[Story], object]) -> None:
    async def first(table: Autobuilds) -> None:
        item = await table.add(ITEM)
        waiting = table.begun(item)
        table.hide(item)
        assert waiting.cancelled()
        live = table.start(item)
        await table.begin(item, live, ran(1))
        assert await table.end(item, ran(1, SUCCEEDED)) == []
        await table.remove(item)

    async def second(table: Autobuilds) -> None:
        assert table.items() == []

    play(first)
    assert play(second) == []


def test_a_pause_ends_with_the_time_it_ends(play: Callable[[Story], object]) -> None:
    async def story(table: Autobuilds) -> None:
        item = await table.add(replace(ITEM, schedule="hourly"))
        await table.pause(item, is_paused=True)
        assert not next_at(table.find("site"))
        await table.pause(table.find("site"), is_paused=False)
        assert next_at(table.find("site")) > table.find("site").resumed_at > item.created_at

    play(story)
