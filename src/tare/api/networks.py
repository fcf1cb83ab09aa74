"""`/networks`: looking at networks. Making and changing them comes with user-defined networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import UNSET

from tare.base import clock
from tare.base.errors import InvalidArgument, NotImplementedYet
from tare.networks.records import NetworkRecord, Pool
from tare.networks.service import Member
from tare.web.message import Answer, Request, json_response
from tare.wire.filters import Filters, flag, labels_match, parse_filters
from tare.wire.networks import IPAM, EndpointResource, IPAMConfig, NetworkResource

if TYPE_CHECKING:
    from tare.engine.engine import Engine

_LATER = "user-defined networks are not served yet"
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


async def create_network(_engine: Engine, _request: Request) -> Answer:
    """`POST /networks/create`."""
    raise NotImplementedYet(_LATER)


async def remove_network(engine: Engine, request: Request) -> Answer:
    """`DELETE /networks/{id}`."""
    engine.networks.check_removable(request.params["id"])
    raise NotImplementedYet(_LATER)


async def connect_network(engine: Engine, request: Request) -> Answer:
    """`POST /networks/{id}/connect`."""
    engine.networks.inspect(request.params["id"])
    raise NotImplementedYet(_LATER)


async def disconnect_network(engine: Engine, request: Request) -> Answer:
    """`POST /networks/{id}/disconnect`."""
    engine.networks.inspect(request.params["id"])
    raise NotImplementedYet(_LATER)


async def prune_networks(_engine: Engine, request: Request) -> Answer:
    """`POST /networks/prune`: without user-defined networks there is never anything to remove."""
    parse_filters(request.query.text("filters"), {"label", "label!", "until"})
    return json_response({"NetworksDeleted": None})


def resource(network: NetworkRecord, members: Sequence[Member] = ()) -> NetworkResource:
    """A network in Docker's words."""
    return NetworkResource(
        Name=network.name,
        Id=network.id,
        Created=clock.rfc3339nano(network.created_at),
        Driver=network.driver,
        IPAM=IPAM(Config=[_pool(pool) for pool in network.pools]),
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
