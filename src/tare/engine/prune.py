"""Removing all stopped containers."""

from __future__ import annotations

import re

from tare.aio.threads import in_thread
from tare.base import clock
from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.containers.container import State
from tare.engine.engine import Engine
from tare.engine.remove import remove
from tare.wire.filters import Filters, labels_match

KNOWN = frozenset({"label", "label!", "until"})
_STOPPED = frozenset({State.CREATED, State.EXITED, State.DEAD})
_UNITS = {"s": 1, "m": 60, "h": 3600}


def until_of(filters: Filters, now: int) -> int:
    """The `until` filter as nanoseconds: a unix time or a Go duration before now; 0 if absent."""
    values = filters.get("until", [])
    if not values:
        return 0
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    text = values[0]
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return int(float(text) * 1e9)
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgument(f"invalid until filter: {text}")
    return now - int(sum(float(number) * _UNITS[unit] for number, unit in parts) * 1e9)


async def prune(engine: Engine, filters: Filters) -> tuple[list[str], int]:
    """Remove every container that does not run and passes the filters. Returns ids and bytes freed."""
    if "containers" in engine.pruning:
        raise Conflict("a prune operation is already running")
    engine.pruning.add("containers")
    try:
        deleted: list[str] = []
        reclaimed = 0
        until = until_of(filters, clock.now())
        for slot in list(engine.containers):
            container = slot.container
            if container.state not in _STOPPED or not labels_match(filters, container.labels):
                continue
            if until and container.created_at >= until:
                continue
            try:
                usage = await in_thread(engine.snapshots.usage, container.id)
                await remove(engine, slot)
            except (Conflict, NotFound):
                continue
            deleted.append(container.id)
            reclaimed += usage.size_bytes
        return deleted, reclaimed
    finally:
        engine.pruning.discard("containers")
