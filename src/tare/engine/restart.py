"""Restarting a container."""

from __future__ import annotations

from tare.base.errors import NotModified
from tare.containers.service import Slot
from tare.engine.engine import Engine
from tare.engine.news import tell
from tare.engine.start import start
from tare.engine.stop import stop


async def restart(engine: Engine, slot: Slot, *, timeout_s: int | None, signal_text: str = "") -> None:
    """Stop it if it runs, then start it."""
    slot.is_coming_back = True
    try:
        try:
            await stop(engine, slot, timeout_s=timeout_s, signal_text=signal_text)
        except NotModified:
            pass
    finally:
        slot.is_coming_back = False
    await start(engine, slot)
    tell(engine, slot.container, "restart")
