"""Undo on error: every acquisition pushes its release on the next line.

Undo answers errors; `engine/restore.py` answers crashes. Both end in the same idempotent remove.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

log = logging.getLogger(__name__)


class Undo:
    """A stack of releases, run in reverse if the block fails, forgotten if it succeeds."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._steps: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def push(self, release: Callable[..., Any], *args: Any) -> None:
        """Remember to call `release(*args)`; a coroutine function is awaited."""
        self._steps.append((release, args))

    async def run(self) -> None:
        """Release everything, last first. A release that fails is logged and does not stop the others."""
        while self._steps:
            release, args = self._steps.pop()
            try:
                result = release(*args)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                log.exception("%s: undo step %r failed", self.what, release)


@asynccontextmanager
async def undo_on_error(what: str) -> AsyncIterator[Undo]:
    """Yield an `Undo`; run it if the block raises (cancellation included), drop it otherwise."""
    undo = Undo(what)
    try:
        yield undo
    except BaseException:
        await undo.run()
        raise
