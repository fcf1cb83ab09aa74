"""Reading a container's log for a client, once or for as long as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from tare.aio.threads import in_thread
from tare.base import clock
from tare.containers import logtag
from tare.containers.container import Container
from tare.containers.logs import LogFile, Wanted, open_all, seek_tail
from tare.containers.service import Slot
from tare.drivers.inotify import Alarm
from tare.engine.engine import Engine, log_path

_FIRST_WORDS_S = 0.1
_REST_S = 0.01
_SHORT = 4096  # bytes of a log that is only beginning


async def read_logs(
    engine: Engine,
    slot: Slot,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since: int = 0,
    until: int = 0,
    tail: int | None = None,
    timestamps: bool = False,
    details: bool = False,
    follow: bool = False,
    is_raw: bool = False,
) -> AsyncGenerator[bytes, None]:
    """Frames (raw bytes with a terminal or if asked for). Times in nanoseconds. follow: until the container ends;
    one that does not run has nothing to come, even if it was never started.

    Rotated files come first, oldest first; one that is rotated meanwhile is read to its end before the next.
    """
    container = slot.container
    wanted = Wanted(
        stdout=stdout,
        stderr=stderr,
        since=since,
        until=until,
        timestamps=timestamps,
        has_tty=container.config.Tty or is_raw,
        details=_details(container) if details else b"",
    )
    path = log_path(engine, container)
    files = open_all(path, since=since)
    alarm: Alarm | None = None
    try:
        if not follow:
            await _first_words(engine, slot, path)
            for log in files:
                log.end_here()
        if tail is not None:
            await in_thread(seek_tail, files, tail)
        while files:
            log = files[0]
            has_ended = not slot.container.is_running
            # Asked before the rest is read: when there is a newer one, the monitor is done with this one.
            if follow and len(files) == 1 and (newer := log.open_newer()) is not None:
                files.append(newer)
            while piece := await _next_piece(engine, log, wanted):
                yield piece
            if log.is_past_until:
                return
            if len(files) > 1:
                files.pop(0).close()
            elif not follow or has_ended:
                return
            elif alarm is None:
                alarm = engine.alarms.set(log.place, beside=path.parent)  # and look again for what came before it
                continue
            else:
                await _either(alarm, slot)
            if alarm is not None:
                alarm.close()
                alarm = None
    finally:
        for file in files:
            file.close()
        if alarm is not None:
            alarm.close()


async def _next_piece(engine: Engine, log: LogFile, wanted: Wanted) -> bytes:
    """One reader at a time: they would hold the interpreter in turn, and the loop would have to wait for all of them."""
    async with engine.translating:
        return await in_thread(log.next_piece, wanted)


async def _first_words(engine: Engine, slot: Slot, path: Path) -> None:
    """Let a program that was started this instant say something: until it has, or has ended, a tenth of a second.

    Scripts ask for the log right after a start. With an engine that takes long to start it is there by then.
    """
    left = _FIRST_WORDS_S - max(
        0.0, (clock.now() - slot.container.started_at) / 1e9
    )  # the clock may have been set back
    for patience in (left, min(left, _REST_S)):  # the first write, then what follows at once
        if patience <= 0 or not slot.container.is_running or not path.exists() or path.stat().st_size > _SHORT:
            return
        alarm = engine.alarms.set(path)
        try:
            await asyncio.wait_for(_either(alarm, slot), patience)
        except TimeoutError:
            return
        finally:
            alarm.close()


async def _either(alarm: Alarm, slot: Slot) -> None:
    """Wait until the file changes or the container ends; no wait if it has ended since the file was read."""
    if not slot.container.is_running and slot.container.started_at:
        return
    ended = slot.wait("next-exit")
    waiting: set[asyncio.Future[Any]] = {alarm.future, ended}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()


def _details(container: Container) -> bytes:
    """`k=v,k=v ` of what the log options choose: labels, variables, the tag."""
    options = container.host_config.LogConfig.Config or {}
    facts = logtag.facts_of(container, options)
    chosen = dict(facts.attributes)
    if options.get("tag"):
        chosen["tag"] = logtag.render(options["tag"], facts)
    text = ",".join(f"{quote_plus(name)}={quote_plus(chosen[name])}" for name in sorted(chosen))
    return f"{text} ".encode() if text else b""
