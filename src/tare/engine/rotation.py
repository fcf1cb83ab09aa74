"""Keeping logs within what their containers asked for: `container.log` becomes `container.log.1` and so on.

The daemon renames, the monitor opens a new file when told to. No process polls a quiet log: the kernel tells its first
change (one inotify instance for all containers). From then on its size is looked at on a timer, whose pace follows the
growth, until it rests again. So a flood costs fifty looks a second at most, not one for each write, and outgrows its limit by
what is written in a look's time.
While the daemon is away nothing is rotated; when it is back, the first look is at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

from tare.aio import failpoints, tasks
from tare.aio.threads import in_thread
from tare.base.errors import Conflict, InvalidArgument
from tare.containers import logs
from tare.containers.logoptions import DEFAULT, Limit, limit_of
from tare.containers.service import Slot
from tare.engine.engine import Engine, log_path
from tare.engine.news import tell

log = logging.getLogger(__name__)

QUICKEST_S = 0.02
SLOWEST_S = 0.1


def watch(engine: Engine, slot: Slot, *, adopted: bool = False) -> None:
    """Begin to keep the log of a running container within its limit; ended by `cancel` when it exits.

    adopted: an earlier daemon started it, and may have died between renaming its log and telling its monitor.
    """
    cancel(slot)
    limit = _limit(slot)
    if limit is None:
        return
    if adopted and not log_path(engine, slot.container).exists():
        _reopen(engine, slot)
    slot.rotation = tasks.spawn(_keep_within(engine, slot, limit), name=f"log of {slot.container.name}")


def cancel(slot: Slot) -> None:
    """Stop looking."""
    if slot.rotation is not None:
        slot.rotation.cancel()
        slot.rotation = None


def _limit(slot: Slot) -> Limit | None:
    """What its options say; a container made before options were checked must not fail to start for them."""
    try:
        return limit_of(slot.container.host_config.LogConfig)
    except InvalidArgument as error:
        log.warning("log options of container %s: %s", slot.container.name, error.message)
        return DEFAULT


def finish(engine: Engine, slot: Slot) -> None:
    """It has ended: remove what a rotation just before that left to be removed."""
    cancel(slot)
    limit = _limit(slot)
    if limit is not None:
        path = log_path(engine, slot.container)
        logs.trim(path, limit.max_files - path.exists())
        if limit.compress:
            _pack(path)


async def _keep_within(engine: Engine, slot: Slot, limit: Limit) -> None:
    path = log_path(engine, slot.container)
    before, at, pause_s = 0, time.monotonic(), QUICKEST_S / 2
    await in_thread(logs.trim, path, limit.max_files - 1)
    if limit.compress:  # what an earlier engine left
        _pack(path)
    has_more = False  # files than are to be kept; they go when the new one is there, so that readers have something
    while True:
        size, now = _size(path), time.monotonic()
        if size is not None:  # else the monitor is about to open it
            if has_more:
                await in_thread(logs.trim, path, limit.max_files - 1)
                has_more = False
                if limit.compress:
                    _pack(path)
            if size >= limit.max_bytes:
                logs.rotate(path)
                failpoints.passed("log.rotated")
                _reopen(engine, slot)
                has_more, size = True, None
            elif size == before:
                await _next_change(engine, path, size)
                pause_s = QUICKEST_S / 2  # it may be the first drop of a flood
                now = time.monotonic()
        grown = (size or 0) - before
        pause_s = min(2 * pause_s, pause_before_look(limit.max_bytes - (size or 0), grown=grown, in_s=now - at))
        before, at = size or 0, now
        await asyncio.sleep(QUICKEST_S if has_more else max(pause_s, QUICKEST_S))


_packing: set[Path] = set()
"""Logs whose older files are being packed, by one task each."""


def _pack(path: Path) -> None:
    """See that the older files become packed ones. What fails is tried again after the next rotation."""
    if path not in _packing and logs.unpacked_files(path):
        _packing.add(path)
        tasks.spawn(_pack_all(path), name=f"packing of {path}").add_done_callback(lambda _: _packing.discard(path))


async def _pack_all(path: Path) -> None:
    """The oldest first, as it has the longest to stay, until none is left. The newest of them is the monitor's until it
    has made another file.
    """
    while path.exists() and (waiting := logs.unpacked_files(path)):
        try:
            packing = logs.Packing(path, waiting[0])
        except FileNotFoundError:
            continue  # trimmed meanwhile
        try:
            await in_thread(packing.write)
            packing.replace()
        except OSError as error:
            log.warning("%s stays as it is: %s", waiting[0], error)
            return
        finally:
            packing.close()


def pause_before_look(left: int, *, grown: int, in_s: float) -> float:
    """Seconds until the size is to be looked at again: half of what is left at the present pace, within bounds.

    left: bytes up to the limit; grown: bytes written in the last `in_s` seconds.
    """
    if grown <= 0:
        return SLOWEST_S
    return min(max(left * in_s / grown / 2, QUICKEST_S), SLOWEST_S)


async def _next_change(engine: Engine, path: Path, size: int) -> None:
    """Wait until a file that has rested at `size` is written to."""
    changed = asyncio.ensure_future(engine.alarms.next_change(path))
    try:
        await asyncio.sleep(0)  # it watches now
        if _size(path) != size and not changed.done():
            return
        await changed
    except FileNotFoundError:
        return
    finally:
        changed.cancel()
        await asyncio.gather(changed, return_exceptions=True)


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def _reopen(engine: Engine, slot: Slot) -> None:
    try:
        engine.monitor.reopen_log(slot.container.id)
    except Conflict:
        log.debug("container %s ended while its log was rotated", slot.container.name)


async def clear(engine: Engine, slot: Slot) -> None:
    """Forget what it has written so far; who follows its log goes on with what is written from now on.

    Raises Conflict when it is being removed.
    """
    container = slot.container
    if slot.is_being_removed:
        raise Conflict("can not clear logs of container which is dead or marked for removal")
    path = log_path(engine, container)
    if path.exists():
        logs.rotate(path)
        if container.is_running:
            _reopen(engine, slot)
    await in_thread(logs.trim, path, 0)
    tell(engine, container, "clear_logs")
