"""`/networks`: looking at networks. Making and changing them comes with user-defined networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from tare.base import clock
from tare.base.errors import InvalidArgument, NotImplementedYet
from tare.networks.records import NetworkRecord, Pool
from tare.networks.service import Member
from tare.web.message import Answer, Request, json_response
from tare.wire.networks import IPAM, EndpointResource, IPAMConfig, NetworkResource

if TYPE_CHECKING:
    from tare.engine.engine import Engine

_LATER = "user-defined networks are not served yet"
_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})


async def list_networks(engine: Engine, request: Request) -> Answer:
    """`GET /networks`: every network that passes `filters`; who is on them is told by inspect only."""
    filters = parse_filters(request.query.text("filters"))
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


async def prune_networks(engine: Engine, request: Request) -> Answer:
    """`POST /networks/prune`: without user-defined networks there is never anything to remove."""
    parse_filters(request.query.text("filters"), known=frozenset({"label", "label!", "until"}))
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


def parse_filters(text: str, *, known: frozenset[str] = _FILTERS) -> dict[str, list[str]]:
    """`filters` in both of Docker's forms: `{"k":["v"]}` and `{"k":{"v":true}}`. Raises InvalidArgument."""
    if not text:
        return {}
    try:
        raw = msgspec.json.decode(text, type=dict[str, list[str] | dict[str, bool]])
    except (msgspec.DecodeError, RecursionError):
        raise InvalidArgument("invalid filter") from None
    for key in raw:
        if key not in known:
            raise InvalidArgument(f"invalid filter '{key}'")
    return {
        key: values if isinstance(values, list) else [value for value, wanted in values.items() if wanted]
        for key, values in raw.items()
    }


def matches(network: NetworkRecord, filters: Mapping[str, Sequence[str]], *, is_used: bool) -> bool:
    """Values of one key are alternatives (labels: all), keys must all hold; name and id match any part."""
    kind = "builtin" if network.is_predefined else "custom"
    tests: Mapping[str, Callable[[str], bool]] = {
        "driver": lambda value: value == network.driver,
        "id": lambda value: value in network.id,
        "name": lambda value: value in network.name,
        "scope": lambda value: value == "local",
        "type": lambda value: value == kind,
        "dangling": lambda value: _flag(value) == (not is_used and not network.is_predefined),
    }
    for key, values in filters.items():
        if key == "label":
            if not all(_has_label(network.labels, value) for value in values):
                return False
            continue
        if key == "type" and not set(values) <= {"builtin", "custom"}:
            raise InvalidArgument(f"invalid filter: 'type'='{values[0]}'")
        if values and not any(tests[key](value) for value in values):
            return False
    return True


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, found, value = wanted.partition("=")
    return key in labels and (not found or labels[key] == value)


def _flag(text: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise InvalidArgument(f'invalid value for "dangling" filter: {text}')
