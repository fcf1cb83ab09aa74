"""Editing an existing container, which keeps its file system: name, labels, environment, command, mounts, health, limits.

Labels, name, health check, limits and restart policy hold at once; of a running container the rest at its next start,
which the warnings say.
"""

from __future__ import annotations

import os

from msgspec.structs import replace

from tare.aio.undo import undo_on_error
from tare.base.errors import Conflict, InvalidArgument
from tare.containers import checks, names
from tare.containers.container import MountPoint
from tare.containers.edit import Edit, plan
from tare.containers.service import Slot
from tare.engine import health, ports, volumes
from tare.engine.engine import Engine
from tare.engine.rename import rename
from tare.engine.start import restart_unhealthy
from tare.engine.update import update
from tare.wire.config import UpdateBody


async def edit(engine: Engine, slot: Slot, wanted: UpdateBody) -> list[str]:
    """Change what `wanted` names and nothing else. Returns warnings.

    Everything is checked first; then come the ports, which the host may have given away, the limits, which the kernel may refuse, the record, and the name.
    Raises InvalidArgument, Conflict.
    """
    _check(engine, slot, wanted)
    before = await ports.replace(engine, slot, wanted.PortBindings) if wanted.PortBindings is not None else None
    try:
        warnings = await update(engine, slot, wanted)
    except BaseException:
        if before is not None:
            await ports.replace(engine, slot, before)
        raise
    async with slot.lock:
        planned = plan(slot.container, wanted)
        if planned.changes(slot.container):
            warnings = [*warnings, *await _apply(engine, slot, planned, has_health=bool(wanted.Healthcheck))]
    if wanted.Name:
        await rename(engine, slot, wanted.Name)
    return warnings


def _check(engine: Engine, slot: Slot, wanted: UpdateBody) -> None:
    container = slot.container
    planned = plan(container, wanted)
    if planned.changes(container):
        checks.validate(planned.config, planned.host_config, facts=engine.host, runtimes=frozenset(engine.runtimes))
    for point in planned.added:
        if point.type == "bind" and point.must_exist and not os.path.exists(point.source):
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
            )
    if wanted.Name:
        engine.containers.refuse_taken(names.check_name(wanted.Name))


async def _apply(engine: Engine, slot: Slot, planned: Edit, *, has_health: bool) -> list[str]:
    container = slot.container
    if slot.is_being_removed:
        raise Conflict(f"Cannot update container {container.id}: Container is marked for removal and cannot be updated")
    before = container.all_mounts
    changes: dict[str, object] = {"config": planned.config, "host_config": planned.host_config}
    async with undo_on_error("edit") as undo:
        if "mounts" in planned.later:
            provided = await volumes.provide(engine, container.id, planned.added, undo)
            points = volumes.in_order(engine, container.id, (*planned.kept, *provided))
            if container.is_running:
                changes["next_mounts"] = points
            else:
                await _fill(engine, slot, provided)
                changes |= {"mounts": points, "next_mounts": None}
        await engine.containers.save(slot, durable=True, **changes)
    volumes.let_go(engine, before, slot.container)
    if not slot.container.is_running:
        return []
    if has_health:
        engine.containers.change(slot, health=None)
        health.watch(engine, slot, restarter=restart_unhealthy)
    return [f"The new {what} holds from the container's next start on." for what in planned.later]


async def _fill(engine: Engine, slot: Slot, points: tuple[MountPoint, ...]) -> None:
    """New volumes of a stopped container get what it has at their place, as at create."""
    await volumes.fill(engine, replace(slot.container, mounts=points))
