"""Undo: last first, all of it, only on errors."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tare.aio.undo import undo_on_error


def test_success_forgets() -> None:
    async def main() -> list[str]:
        done: list[str] = []
        async with undo_on_error("start") as undo:
            undo.push(done.append, "a")
        return done

    assert asyncio.run(main()) == []


def test_an_error_releases_last_first_and_goes_on_to_the_caller() -> None:
    done: list[str] = []

    async def later(text: str) -> None:
        await asyncio.sleep(0)
        done.append(text)

    async def main() -> None:
        async with undo_on_error("start") as undo:
            undo.push(done.append, "a")
            undo.push(later, "b")
            undo.push(done.append, "c")
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        asyncio.run(main())
    assert done == ["c", "b", "a"]


def test_a_failing_step_is_logged_and_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def broken() -> None:
        raise OSError("busy")

    async def main() -> None:
        async with undo_on_error("start") as undo:
            undo.push(done.append, "a")
            undo.push(broken)
            raise ValueError("the first error")

    with caplog.at_level(logging.ERROR, "tare.aio.undo"), pytest.raises(ValueError, match="the first error"):
        asyncio.run(main())
    assert done == ["a"]
    assert "start: undo step" in caplog.text
    assert "busy" in caplog.text


def test_cancellation_releases_too() -> None:
    async def main() -> list[str]:
        done: list[str] = []
        inside = asyncio.Event()

        async def work() -> None:
            async with undo_on_error("start") as undo:
                undo.push(done.append, "a")
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return done

    assert asyncio.run(main()) == ["a"]
