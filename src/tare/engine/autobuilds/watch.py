"""Autobuilds are started when they are due: woken by what changes and by the clock, and nothing is asked again and again."""

from __future__ import annotations

import asyncio

from tare.aio.tasks import spawn
from tare.base import clock
from tare.base.clock import NEVER
from tare.build.autobuild import choose, wakes_at
from tare.engine.engine import Engine

_LONGEST_S = 3600.0  # a clock that is set, or a machine that slept, is noticed by then


async def watch(engine: Engine) -> None:
    """As long as the engine runs."""
    table = engine.autobuilds
    slots = engine.settings.concurrent_autobuilds
    while True:
        table.changed.clear()
        for item in choose(table.items(), now=clock.now(), running=table.live, slots=slots):
            from tare.engine.autobuilds.run import run  # builds are loaded when there is one

            live = table.start(item)
            live.task = spawn(run(engine, item, live), name=f"autobuild {item.name}")
        wait_s = _LONGEST_S
        at = wakes_at(table.items(), running=table.live) if len(table.live) < slots else NEVER
        if at != NEVER:
            wait_s = min(wait_s, max(0.0, (at - clock.now()) / 1e9))
        try:
            await asyncio.wait_for(table.changed.wait(), wait_s)
        except TimeoutError:
            continue


__all__ = ["watch"]
