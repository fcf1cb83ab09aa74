"""Publishing ports of a container that exists, and taking them back; of a running one at once."""

from __future__ import annotations

import msgspec

from tare.base.errors import Conflict, InvalidArgument
from tare.containers import checks
from tare.containers.service import Slot
from tare.engine.engine import Engine
from tare.engine.news import tell
from tare.networks import ports
from tare.networks.plan import NAMESPACE_MODE
from tare.networks.ports import Bindings
from tare.wire.config import HostConfig


async def change(engine: Engine, slot: Slot, *, add: Bindings, remove: Bindings) -> None:
    """Take bindings away, then add others: both or neither.

    Raises NotFound (not published), Conflict, InvalidArgument, InternalError (the host's port is taken).
    """
    async with slot.lock:
        host = slot.container.host_config
        wanted = ports.edited(host.PortBindings or {}, add=add, remove=remove, published=slot.container.ports)
        await _put(engine, slot, msgspec.structs.replace(host, PortBindings=wanted))
    tell(engine, slot.container, "update")


async def replace(engine: Engine, slot: Slot, wanted: Bindings) -> Bindings:
    """Publish exactly this. Returns what was asked for before. Raises as `change`."""
    async with slot.lock:
        host = slot.container.host_config
        before = host.PortBindings or {}
        if dict(wanted) != before:
            await _put(engine, slot, msgspec.structs.replace(host, PortBindings=dict(wanted)))
    return before


async def _put(engine: Engine, slot: Slot, host: HostConfig) -> None:
    container = slot.container
    if slot.is_being_removed:
        raise Conflict(f"Cannot update container {container.id}: Container is marked for removal and cannot be updated")
    mode = host.NetworkMode
    if mode == "host" or mode.startswith(NAMESPACE_MODE) or checks.joined_container(mode) is not None:
        raise InvalidArgument(f"ports of a container in network mode {mode} cannot be published")
    ports.wishes(container.config, host)
    given = container.ports
    if container.is_running:
        attachment = await engine.networks.change_ports(container.id, host)
        given = attachment.ports if attachment is not None else given
    await engine.containers.save(slot, durable=True, host_config=host, ports=given)
