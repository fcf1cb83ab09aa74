"""Background tasks with an owner: kept alive while they run, named, and loud when they fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, T], *, name: str, is_awaited: bool = False) -> asyncio.Task[T]:
    """Start a task that the loop cannot lose. Its exception is logged unless the caller awaits it.

    What the caller does not await outlives the request and is not done in its name: it gets an empty context.
    """
    context = copy_context() if is_awaited else Context()
    task = asyncio.get_running_loop().create_task(coroutine, name=name, context=context)
    _running.add(task)
    task.add_done_callback(_running.discard if is_awaited else _finished)
    return task


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task %s failed", task.get_name(), exc_info=error)


async def finish(coroutine: Coroutine[Any, Any, T], *, name: str) -> T:
    """Run to the end even when the client that asked for it leaves (shielded); only then are its errors logged."""
    task = spawn(coroutine, name=name, is_awaited=True)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_finished)
        raise


async def settle(coroutine: Coroutine[Any, Any, T], *, name: str) -> T:
    """Run to the end, and when the caller is cancelled meanwhile, wait for that end before saying so.

    What the caller cleans up afterwards is then not in use any more.
    """
    task = spawn(coroutine, name=name)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def cancel_all() -> None:
    """At shutdown: cancel what still runs and wait until it has cleaned up."""
    current = asyncio.current_task()
    pending = [task for task in _running if task is not current]
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
