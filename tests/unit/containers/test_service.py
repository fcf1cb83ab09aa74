"""The containers an engine knows: names, finding, waiting, and what a crash or a leaving client does to a record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tare.base.clock import Nanos
from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.base.ids import ContainerId
from tare.containers import records
from tare.containers.container import State
from tare.containers.service import Containers, Outcome
from tare.store.db import Database

A, B = ContainerId("a" * 64), ContainerId("ab" + "c" * 62)
Scene = Callable[[Containers, Database], Coroutine[Any, Any, None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scene], None]:
    """Run a scene with an empty service on a real database."""

    def run(scene: Scene) -> None:
        async def main() -> None:
            db = Database(tmp_path / "state.db", (records.SCHEMA,))
            try:
                containers = Containers(db)
                await containers.load()
                await asyncio.wait_for(scene(containers, db), 20)
            finally:
                db.close()

        asyncio.run(main())

    return run


def test_found_by_id_name_and_unique_prefix(play: Any, made: Any) -> None:
    async def scene(containers: Containers, _: Database) -> None:
        first = await containers.add(made(id=A, name="web"))
        second = await containers.add(made(id=B, name="db"))
        assert containers.find(A) is containers.find("web") is containers.find("/web") is containers.find("aa") is first
        assert containers.find("ab") is second
        with pytest.raises(InvalidArgument, match="multiple IDs found with provided prefix: a"):
            containers.find("a")
        for text in ("", "we", "WEB", "f" * 64, "../web"):
            with pytest.raises(NotFound, match=f"No such container: {text}"):
                containers.find(text)

    play(scene)


def test_a_name_that_looks_like_another_ones_id_wins_over_a_prefix(play: Any, made: Any) -> None:
    async def scene(containers: Containers, _: Database) -> None:
        await containers.add(made(id=A, name="web"))
        named = await containers.add(made(id=B, name="aaaa"))
        assert containers.find("aaaa") is named

    play(scene)


def test_names_are_chosen_checked_and_unique(play: Any, made: Any) -> None:
    async def scene(containers: Containers, _: Database) -> None:
        await containers.add(made(id=A, name="web"))
        assert containers.choose_name("/db", B) == "db"
        assert "_" in containers.choose_name("", B)
        with pytest.raises(InvalidArgument):
            containers.choose_name("-db", B)
        with pytest.raises(Conflict, match=f'"/web" is already in use by container "{A}"'):
            containers.choose_name("web", B)
        with pytest.raises(Conflict, match='"/web" is already in use'):
            await containers.add(made(id=B, name="web"))

    play(scene)


def test_two_creates_of_one_name_at_once(play: Any, made: Any) -> None:
    async def scene(containers: Containers, db: Database) -> None:
        tries = [containers.add(made(id=id_, name="web")) for id_ in (A, B)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Conflict", "Slot"]
        assert len(containers) == len(await db.read(records.load_all)) == 1

    play(scene)


def test_a_create_that_is_cancelled_frees_its_name(play: Any, made: Any) -> None:
    async def scene(containers: Containers, _: Database) -> None:
        creating = asyncio.ensure_future(containers.add(made(id=A, name="web")))
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        await containers.add(made(id=B, name="web"))

    play(scene)


def test_records_survive(play: Any, made: Any) -> None:
    async def scene(containers: Containers, db: Database) -> None:
        slot = await containers.add(made(id=A, name="web", created_at=Nanos(1)))
        await containers.add(made(id=B, name="db", created_at=Nanos(2)))
        await containers.save(slot, durable=True, state=State.EXITED, exit_code=3)
        again = Containers(db)
        await again.load()
        assert [other.container.name for other in again] == ["db", "web"], "newest first"
        assert again.find("web").container == slot.container
        assert again.find("web").stopped.is_set()

    play(scene)


def test_rename(play: Any, made: Any) -> None:
    async def scene(containers: Containers, db: Database) -> None:
        slot = await containers.add(made(id=A, name="web"))
        await containers.add(made(id=B, name="db"))
        for wanted, error in (
            ("", InvalidArgument),
            ("web", InvalidArgument),
            ("-x", InvalidArgument),
            ("db", Conflict),
        ):
            with pytest.raises(error):
                await containers.rename(slot, wanted)
        assert await containers.rename(slot, "/front") == "web"
        assert containers.find("front") is slot
        with pytest.raises(NotFound):
            containers.find("web")
        assert {container.name for container in await db.read(records.load_all)} == {"front", "db"}
        assert containers.choose_name("web", B) == "web"

    play(scene)


def test_forgetting_twice_and_late_changes(play: Any, made: Any) -> None:
    async def scene(containers: Containers, db: Database) -> None:
        slot = await containers.add(made(id=A, name="web"))
        await containers.forget(slot)
        await containers.forget(slot)
        containers.change(slot, exit_code=1)
        assert await db.read(records.load_all) == []
        other = await containers.add(made(id=B, name="web"))
        await containers.forget(slot)
        assert containers.find("web") is other, "the name belongs to another one now"

    play(scene)


def test_a_change_shows_at_once_and_clears_stopped(play: Any, made: Any) -> None:
    async def scene(containers: Containers, _: Database) -> None:
        slot = await containers.add(made(id=A, name="web"))
        assert slot.stopped.is_set()
        assert containers.change(slot, state=State.RUNNING).is_running
        assert slot.container.is_running
        assert not slot.stopped.is_set()

    play(scene)


# --- waiting


def test_conditions(play: Any, made: Any) -> None:
    async def scene(containers: Containers, _: Database) -> None:
        slot = await containers.add(made(id=A, name="web"))
        with pytest.raises(InvalidArgument, match='invalid condition: "gone"'):
            slot.wait("gone")
        assert slot.wait("not-running").result() == Outcome(0)
        nxt, removed = slot.wait("next-exit"), slot.wait("removed")
        containers.change(slot, state=State.RUNNING)
        running = slot.wait("not-running")
        assert not any(future.done() for future in (nxt, removed, running))
        containers.change(slot, state=State.EXITED, exit_code=7)
        slot.tell_exit()
        assert nxt.result() == running.result() == Outcome(7)
        assert not removed.done()
        slot.tell_removed()
        assert removed.result() == Outcome(7)

    play(scene)


def test_a_removal_that_failed_is_told_to_who_waits_for_it_only(play: Any, made: Any) -> None:
    async def scene(containers: Containers, _: Database) -> None:
        slot = await containers.add(made(id=A, name="web", exit_code=2))
        nxt, removed = slot.wait("next-exit"), slot.wait("removed")
        slot.tell_removed("device busy")
        assert removed.result() == Outcome(2, "device busy")
        assert not nxt.done()
        slot.tell_removed()
        assert nxt.done(), "nobody waits for ever for the exit of what is gone"

    play(scene)


def test_a_waiter_that_has_left(play: Any, made: Any) -> None:
    async def scene(containers: Containers, _: Database) -> None:
        slot = await containers.add(made(id=A, name="web"))
        left, stays = slot.wait("next-exit"), slot.wait("next-exit")
        left.cancel()
        slot.tell_exit()
        assert stays.done()
        slot.tell_exit()

    play(scene)
