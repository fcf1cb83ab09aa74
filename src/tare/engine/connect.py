"""Plugging containers into networks and out of them, running or not; pruning networks nobody uses."""

from __future__ import annotations

from tare.base import clock
from tare.base.errors import Conflict, Forbidden, InvalidArgument, NotFound
from tare.containers import checks
from tare.containers.container import Container, State
from tare.containers.service import Slot
from tare.engine.engine import Engine, directory_of
from tare.engine.prune import until_of
from tare.networks import plan as planning
from tare.networks.attachment import Attachment, FileTexts
from tare.wire.config import EndpointSettings
from tare.wire.filters import Filters, labels_match

_SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
_HOST = "container cannot be disconnected from host network or connected to host network"
_NONE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


async def connect(engine: Engine, slot: Slot, network: str, asked: EndpointSettings) -> None:
    """Plug a container into a network; a stopped one at its next start.

    Raises NotFound, InvalidArgument, Forbidden (it is there already), Conflict (address taken, being removed).
    """
    async with slot.lock:
        container = _usable(slot)
        record = engine.networks.inspect(network)
        name = record.name
        _refuse_modes(container, record.driver)
        planning.endpoint(record, asked)
        asked = _only_asked(asked)
        endpoints = {**container.asked_endpoints, name: asked}
        if not container.is_running:
            await engine.containers.save(slot, durable=True, asked_endpoints=endpoints, endpoints=endpoints)
            return
        before = engine.networks.attachment_of(container.id).files
        attachment = await engine.networks.connect(container.id, name, asked)
        await _keep(engine, slot, attachment, before=before, asked=endpoints)


async def disconnect(engine: Engine, slot: Slot, network: str) -> None:
    """Cut a container off a network. Raises NotFound, InvalidArgument, Forbidden (it is not there)."""
    async with slot.lock:
        container = _usable(slot)
        record = engine.networks.inspect(network)
        if record.driver == "host" or container.host_config.NetworkMode == "host":
            raise InvalidArgument(_HOST)
        if record.name not in container.endpoints:
            raise Forbidden(f"container {container.id} is not connected to the network {record.name}")
        asked = {name: settings for name, settings in container.asked_endpoints.items() if name != record.name}
        if not container.is_running or not record.has_links:
            endpoints = {name: settings for name, settings in container.endpoints.items() if name != record.name}
            await engine.containers.save(slot, durable=True, asked_endpoints=asked, endpoints=endpoints)
            return
        before = engine.networks.attachment_of(container.id).files
        attachment = await engine.networks.disconnect(container.id, record.name)
        await _keep(engine, slot, attachment, before=before, asked=asked)


def _usable(slot: Slot) -> Container:
    container = slot.container
    if slot.is_being_removed or container.state is State.REMOVING:
        raise Conflict(f"container {container.id} is marked for removal and cannot be connected or disconnected")
    return container


def _refuse_modes(container: Container, driver: str) -> None:
    mode = container.host_config.NetworkMode
    if checks.joined_container(mode) is not None or mode.startswith(planning.NAMESPACE_MODE):
        raise InvalidArgument(_SHARED)
    if mode == "host" or driver == "host":
        raise InvalidArgument(_HOST)
    if driver == "null" or "none" in container.endpoints:
        raise InvalidArgument(_NONE)


def _only_asked(settings: EndpointSettings) -> EndpointSettings:
    """Without what clients send back that they were told: ids and addresses are the engine's to give."""
    return EndpointSettings(
        IPAMConfig=settings.IPAMConfig,
        Links=settings.Links,
        Aliases=settings.Aliases,
        MacAddress=settings.MacAddress,
        DriverOpts=settings.DriverOpts,
        GwPriority=settings.GwPriority,
    )


async def _keep(
    engine: Engine, slot: Slot, attachment: Attachment, *, before: FileTexts, asked: dict[str, EndpointSettings]
) -> None:
    """Record what a running container has now, and let its files say so."""
    await engine.containers.save(
        slot, durable=True, asked_endpoints=asked, endpoints=attachment.endpoints, ports=attachment.ports
    )
    directory = directory_of(engine, slot.container.id)
    after = attachment.files
    for name, old, new in (
        ("hosts", before.hosts, after.hosts),
        ("resolv.conf", before.resolv_conf, after.resolv_conf),
    ):
        path = directory / name
        if old == new or not path.exists():
            continue
        path.write_text(_merged(path.read_text(errors="replace"), old, new))  # in place: the file is mounted


def _merged(present: str, old: str, new: str) -> str:
    """The new text; what the container itself wrote into the old one stays."""
    if present == old:
        return new
    olds, news = old.splitlines(), new.splitlines()
    kept = [line for line in present.splitlines() if line not in olds or line in news]
    return "\n".join([*kept, *(line for line in news if line not in kept)]) + "\n"


async def prune_networks(engine: Engine, filters: Filters) -> list[str]:
    """Remove every user's network nobody is plugged into that passes the filters; their names."""
    if "networks" in engine.pruning:
        raise Conflict("a prune operation is already running")
    engine.pruning.add("networks")
    try:
        until = until_of(filters, clock.now())
        deleted: list[str] = []
        for record in engine.networks.list():
            if record.is_predefined or not labels_match(filters, record.labels):
                continue
            if until and record.created_at >= until:
                continue
            try:
                await engine.networks.remove(record.id)
            except (NotFound, Forbidden):
                continue
            deleted.append(record.name)
        return deleted
    finally:
        engine.pruning.discard("networks")
