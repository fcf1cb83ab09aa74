"""From what a container asks for to what is to be plugged in. Pure: no address is chosen and no link made here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address

from msgspec import UNSET

from tare.base.errors import InvalidArgument, NotFound
from tare.networks.records import NetworkRecord
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_DEFAULT = "bridge"


class Mode(StrEnum):
    """HOST: the host's own namespace. JOINED: another container's. OWN: a namespace with `endpoints` in it."""

    HOST = "host"
    JOINED = "joined"
    OWN = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPlan:
    """One network to be plugged into. `interface` "" for networks without a link (host, none)."""

    network: NetworkRecord
    settings: EndpointSettings
    interface: str = ""
    address: IPv4Address | None = None
    mac: str | None = None
    is_gateway: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """The network of a container. `joined` is the name or id in `container:NAME`."""

    mode: Mode
    endpoints: tuple[EndpointPlan, ...] = ()
    joined: str = ""


def resolve(name: str, networks: Sequence[NetworkRecord]) -> NetworkRecord:
    """Full id, then full name, then unique id prefix. Raises NotFound, InvalidArgument (ambiguous)."""
    for network in networks:
        if network.id == name:
            return network
    for network in networks:
        if network.name == name:
            return network
    found = [network for network in networks if name and network.id.startswith(name)]
    if len(found) > 1:
        raise InvalidArgument(f"network {name} is ambiguous ({len(found)} matches found based on ID prefix)")
    if not found:
        raise NotFound(f"network {name} not found")
    return found[0]


def plan(
    config: ContainerConfig,
    host: HostConfig,
    endpoints: Mapping[str, EndpointSettings | None],
    *,
    networks: Sequence[NetworkRecord],
) -> NetworkPlan:
    """Decide where a container is plugged in.

    endpoints: `NetworkingConfig.EndpointsConfig`, or what the record holds. Raises NotFound (`network x not found`)
    and InvalidArgument with Docker's texts.
    """
    mode = host.NetworkMode or _DEFAULT
    if config.NetworkDisabled is True:
        return NetworkPlan(mode=Mode.OWN)
    if mode.startswith("container:"):
        return NetworkPlan(mode=Mode.JOINED, joined=mode.partition(":")[2])
    if mode == "default":
        mode = _DEFAULT
    first = resolve(mode, networks)
    # An endpoint the user has disconnected is in no record any more: the mode only counts while nothing is recorded.
    asked: dict[str, tuple[NetworkRecord, EndpointSettings]] = {}
    if not endpoints or first.driver != "bridge":
        asked[first.id] = (first, EndpointSettings())
    for name, settings in endpoints.items():
        network = resolve(_DEFAULT if name == "default" else name, networks)
        asked[network.id] = (network, settings or EndpointSettings())
    if len(asked) > 1 and any(network.driver in ("host", "null") for network, _ in asked.values()):
        names = ", ".join(sorted(network.name for network, _ in asked.values()))
        raise InvalidArgument(f"Container cannot be connected to network endpoints: {names}")
    mac = config.MacAddress if isinstance(config.MacAddress, str) else ""
    plans = [
        endpoint(network, settings, number, mac=mac if network.id == first.id else "")
        for number, (network, settings) in enumerate(asked.values())
    ]
    if first.driver == "host":
        return NetworkPlan(mode=Mode.HOST, endpoints=tuple(plans))
    return NetworkPlan(mode=Mode.OWN, endpoints=_with_gateway(plans))


def _with_gateway(plans: Sequence[EndpointPlan]) -> tuple[EndpointPlan, ...]:
    """One endpoint carries the default route: the highest GwPriority, then the first by network name."""
    chosen = choose_gateway([(p.network, p.settings) for p in plans if p.interface])
    return tuple(
        EndpointPlan(
            network=p.network,
            settings=p.settings,
            interface=p.interface,
            address=p.address,
            mac=p.mac,
            is_gateway=chosen is not None and p.network.id == chosen.id,
        )
        for p in plans
    )


def choose_gateway(endpoints: Sequence[tuple[NetworkRecord, EndpointSettings]]) -> NetworkRecord | None:
    """The network that carries the default route, or None: internal ones do not."""
    able = [pair for pair in endpoints if pair[0].driver == "bridge" and not pair[0].internal]
    return min(able, key=lambda pair: (-pair[1].GwPriority, pair[0].name))[0] if able else None


def endpoint(network: NetworkRecord, settings: EndpointSettings, number: int, *, mac: str = "") -> EndpointPlan:
    """What to plug in at one network as `eth<number>`. mac: used where the settings name none.

    Raises InvalidArgument for what that kind of network cannot give.
    """
    wanted = _wanted_address(settings)
    if network.driver != "bridge":
        if wanted is not None:
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        return EndpointPlan(network=network, settings=settings)
    if network.is_predefined:
        if wanted is not None:
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        if settings.Aliases:
            raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")
    elif wanted is not None and not network.is_subnet_asked:
        raise InvalidArgument(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
        )
    return EndpointPlan(
        network=network,
        settings=settings,
        interface=f"eth{number}",
        address=wanted,
        mac=check_mac(settings.MacAddress or mac),
    )


def _wanted_address(settings: EndpointSettings) -> IPv4Address | None:
    ipam = settings.IPAMConfig
    if ipam is None or ipam.IPv4Address is UNSET or not ipam.IPv4Address:
        return None
    try:
        return IPv4Address(ipam.IPv4Address)
    except ValueError:
        raise InvalidArgument(f"invalid IPv4 address: {ipam.IPv4Address}") from None


def check_mac(text: str) -> str | None:
    """A unicast MAC in lower case; None when none is asked for. Raises InvalidArgument."""
    if not text:
        return None
    mac = text.lower().replace("-", ":")
    if not _MAC.match(mac):
        raise InvalidArgument(f"{text} is not a valid mac address")
    if int(mac[:2], 16) & 1:
        raise InvalidArgument(f"{text} is not a valid mac address: it is a group address")
    return mac
