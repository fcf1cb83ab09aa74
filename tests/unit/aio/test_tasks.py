"""Background tasks: not lost, loud when they fail, finished when a client leaves, ended at shutdown."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextvars import ContextVar

import pytest

from tare.aio import tasks


async def fail() -> None:
    raise ValueError("broken")


def test_a_failure_nobody_awaits_is_logged_under_the_tasks_name(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        task = tasks.spawn(fail(), name="watch web")
        await asyncio.wait([task])
        await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR, "tare.aio.tasks"):
        asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == ["task watch web failed"]


def test_a_failure_somebody_awaits_is_theirs(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="broken"):
            await tasks.spawn(fail(), name="x", is_awaited=True)

    asyncio.run(main())
    assert caplog.records == []


def test_a_task_without_an_owner_is_not_collected() -> None:
    async def main() -> str:
        done = asyncio.get_running_loop().create_future()

        async def work() -> None:
            await asyncio.sleep(0)
            done.set_result("done")

        tasks.spawn(work(), name="forgotten")
        gc.collect()
        return str(await asyncio.wait_for(done, 5))

    assert asyncio.run(main()) == "done"


def test_finish_goes_on_when_the_caller_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[str]:
        steps: list[str] = []
        going = asyncio.Event()
        go_on = asyncio.Event()

        async def work() -> None:
            going.set()
            await go_on.wait()
            steps.append("finished")
            raise ValueError("late")

        caller = asyncio.ensure_future(tasks.finish(work(), name="commit"))
        await going.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        go_on.set()
        for _ in range(10):
            await asyncio.sleep(0)
        return steps

    with caplog.at_level(logging.ERROR, "tare.aio.tasks"):
        assert asyncio.run(main()) == ["finished"]
    assert [record.getMessage() for record in caplog.records] == ["task commit failed"]


def test_finish_gives_result_and_error_to_the_caller_who_stays(caplog: pytest.LogCaptureFixture) -> None:
    async def give() -> int:
        return 5

    assert asyncio.run(tasks.finish(give(), name="x")) == 5
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(tasks.finish(fail(), name="x"))
    assert caplog.records == []


def test_cancel_all_waits_for_the_cleaning_up() -> None:
    async def main() -> list[str]:
        steps: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                steps.append("clean")

        for _ in range(3):
            tasks.spawn(work(), name="worker")
        await asyncio.sleep(0)
        await tasks.cancel_all()
        return steps

    assert asyncio.run(main()) == ["clean"] * 3


def test_background_work_is_nobodys_and_awaited_work_the_callers() -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")

    async def ask() -> str:
        return who.get()

    async def main() -> None:
        who.set("somebody")
        assert await tasks.spawn(ask(), name="background") == "nobody"
        assert await tasks.spawn(ask(), name="part of it", is_awaited=True) == "somebody"
        assert await tasks.finish(ask(), name="shielded") == "somebody"

    asyncio.run(main())
