"""`/networks`: Docker's requests to the `Networks` service, and to the verbs that plug containers in and out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from tare.aio import tasks
from tare.api.handler import read_json
from tare.base import clock
from tare.base.errors import InvalidArgument
from tare.engine import connect
from tare.networks.records import NetworkRecord, Pool
from tare.networks.service import Member
from tare.web.message import Answer, Request, Response, json_response, no_content
from tare.wire.config import EndpointSettings
from tare.wire.filters import Filters, flag, labels_match, parse_filters
from tare.wire.networks import (
    IPAM,
    ConfigReference,
    EndpointResource,
    IPAMConfig,
    NetworkConnect,
    NetworkCreate,
    NetworkCreated,
    NetworkDisconnect,
    NetworkResource,
)

if TYPE_CHECKING:
    from tare.engine.engine import Engine

_HAS_IPV4_SWITCH = (1, 48)
_FILTERS = frozenset({"dangling", "driver", "id", "label", "label!", "name", "scope", "type"})


async def list_networks(engine: Engine, request: Request) -> Answer:
    """`GET /networks`: every network that passes `filters`; who is on them is told by inspect only."""
    filters = parse_filters(request.query.text("filters"), _FILTERS)
    chosen = [
        resource(network)
        for network in engine.networks.list()
        if matches(network, filters, is_used=bool(engine.networks.members(network.id)))
    ]
    return json_response(chosen)


async def inspect_network(engine: Engine, request: Request) -> Answer:
    """`GET /networks/{id}`: one network with its containers."""
    scope = request.query.text("scope")
    if scope not in ("", "local", "swarm", "global"):
        raise InvalidArgument(f"invalid scope {scope}")
    network = engine.networks.inspect(request.params["id"])
    return json_response(resource(network, engine.networks.members(network.id)))


async def create_network(engine: Engine, request: Request) -> Answer:
    """`POST /networks/create`."""
    body = await read_json(request, NetworkCreate, required=True)
    if request.version < _HAS_IPV4_SWITCH:
        body = msgspec.structs.replace(body, EnableIPv4=None)
    record = await tasks.finish(engine.networks.create(body), name="create network")
    return json_response(NetworkCreated(Id=record.id), 201)


async def remove_network(engine: Engine, request: Request) -> Answer:
    """`DELETE /networks/{id}`."""
    await tasks.finish(engine.networks.remove(request.params["id"]), name="remove network")
    return no_content()


async def connect_network(engine: Engine, request: Request) -> Answer:
    """`POST /networks/{id}/connect`."""
    body = await read_json(request, NetworkConnect, required=True)
    slot = engine.containers.find(body.Container)
    network = engine.networks.inspect(request.params["id"])
    asked = body.EndpointConfig or EndpointSettings()
    await tasks.finish(connect.connect(engine, slot, network.id, asked), name="connect")
    return Response(200)


async def disconnect_network(engine: Engine, request: Request) -> Answer:
    """`POST /networks/{id}/disconnect`."""
    body = await read_json(request, NetworkDisconnect, required=True)
    slot = engine.containers.find(body.Container)
    network = engine.networks.inspect(request.params["id"])
    await tasks.finish(connect.disconnect(engine, slot, network.id), name="disconnect")
    return Response(200)


async def prune_networks(engine: Engine, request: Request) -> Answer:
    """`POST /networks/prune`: the users' networks nobody is plugged into."""
    filters = parse_filters(request.query.text("filters"), {"label", "label!", "until"})
    deleted = await tasks.finish(connect.prune_networks(engine, filters), name="prune networks")
    return json_response({"NetworksDeleted": deleted or None})


def resource(network: NetworkRecord, members: Sequence[Member] = ()) -> NetworkResource:
    """A network in Docker's words."""
    return NetworkResource(
        Name=network.name,
        Id=network.id,
        Created=clock.rfc3339nano(network.created_at),
        Driver=network.driver,
        EnableIPv4=network.ipv4,
        EnableIPv6=network.ipv6,
        ConfigOnly=network.config_only,
        ConfigFrom=ConfigReference(Network=network.config_from),
        IPAM=IPAM(Options=network.ipam_options, Config=[_pool(pool) for pool in network.pools]),
        Internal=network.internal,
        Attachable=network.attachable,
        Containers={member.container_id: _member(member) for member in members},
        Options=dict(network.options),
        Labels=dict(network.labels),
    )


def _pool(pool: Pool) -> IPAMConfig:
    return IPAMConfig(
        Subnet=pool.subnet,
        IPRange=pool.ip_range or UNSET,
        Gateway=pool.gateway or UNSET,
        AuxiliaryAddresses=dict(pool.auxiliary) or UNSET,
    )


def _member(member: Member) -> EndpointResource:
    settings = member.settings
    return EndpointResource(
        Name=member.container_name,
        EndpointID=settings.EndpointID,
        MacAddress=settings.MacAddress,
        IPv4Address=f"{settings.IPAddress}/{settings.IPPrefixLen}" if settings.IPAddress else "",
        IPv6Address=(
            f"{settings.GlobalIPv6Address}/{settings.GlobalIPv6PrefixLen}" if settings.GlobalIPv6Address else ""
        ),
    )


def matches(network: NetworkRecord, filters: Filters, *, is_used: bool) -> bool:
    """Values of one key are alternatives (labels: all), keys must all hold; name and id match any part."""
    kind = "builtin" if network.is_predefined else "custom"
    if not set(filters.get("type", ())) <= {"builtin", "custom"}:
        raise InvalidArgument(f"invalid filter 'type={filters['type'][0]}'")
    dangling = flag(filters, "dangling")
    if dangling is not None and dangling != (not is_used and not network.is_predefined):
        return False
    tests: Mapping[str, Callable[[str], bool]] = {
        "driver": lambda value: value == network.driver,
        "id": lambda value: value in network.id,
        "name": lambda value: value in network.name,
        "scope": lambda value: value == "local",
        "type": lambda value: value == kind,
    }
    return labels_match(filters, network.labels) and all(
        any(test(value) for value in filters[key]) for key, test in tests.items() if key in filters
    )
