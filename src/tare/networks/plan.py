"""From what a container asks for to what is to be plugged in. Pure: no address is chosen and no link made here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from msgspec import UNSET, Struct
from msgspec.structs import replace

from tare.base.errors import Forbidden, InvalidArgument, NotFound
from tare.networks import interfaces
from tare.networks.records import NetworkRecord
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_DEFAULT = "bridge"
NAMESPACE_MODE = "ns:"


class Mode(StrEnum):
    """HOST: the host's own namespace. JOINED: another container's. PATH: one that somebody else made.

    OWN: a namespace with `endpoints` in it.
    """

    HOST = "host"
    JOINED = "joined"
    PATH = "path"
    OWN = "own"


class EndpointPlan(Struct, frozen=True, kw_only=True):
    """One network to be plugged into. `interface` "" for networks without a link (host, none).

    `gateways`: the families (4, 6) whose default route goes by it.
    """

    network: NetworkRecord
    settings: EndpointSettings
    interface: str = ""
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    mac: str | None = None
    gateways: tuple[int, ...] = ()


class NetworkPlan(Struct, frozen=True, kw_only=True):
    """The network of a container. `joined` is the name or id in `container:NAME`, or the path in `ns:PATH`."""

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
    if mode.startswith(NAMESPACE_MODE):
        return NetworkPlan(mode=Mode.PATH, joined=mode.removeprefix(NAMESPACE_MODE))
    if mode == "default":
        mode = _DEFAULT
    first = resolve(mode, networks)
    # An endpoint the user has disconnected is in no record any more: the mode only counts while nothing is recorded.
    asked: dict[str, tuple[NetworkRecord, EndpointSettings]] = {}
    if not endpoints or not first.has_links:
        asked[first.id] = (first, EndpointSettings())
    for name, settings in endpoints.items():
        network = resolve(_DEFAULT if name == "default" else name, networks)
        asked[network.id] = (network, settings or EndpointSettings())
    if len(asked) > 1 and any(network.driver in ("host", "null") for network, _ in asked.values()):
        names = ", ".join(sorted(network.name for network, _ in asked.values()))
        raise InvalidArgument(f"Container cannot be connected to network endpoints: {names}")
    mac = config.MacAddress if isinstance(config.MacAddress, str) else ""
    called = interfaces.names([interfaces.asked_name(settings) for _, settings in asked.values()])
    plans = [
        endpoint(network, settings, name, mac=mac if network.id == first.id else "")
        for name, (network, settings) in zip(called, asked.values(), strict=True)
    ]
    if first.driver == "host":
        return NetworkPlan(mode=Mode.HOST, endpoints=tuple(plans))
    return NetworkPlan(mode=Mode.OWN, endpoints=_with_gateway(plans))


def _with_gateway(plans: Sequence[EndpointPlan]) -> tuple[EndpointPlan, ...]:
    """In each family one endpoint carries the default route: the highest GwPriority, then the first by name."""
    pairs = [(p.network, p.settings) for p in plans if p.interface]
    chosen = {version: choose_gateway(pairs, version) for version in (4, 6)}
    return tuple(
        replace(p, gateways=tuple(v for v, network in chosen.items() if network is not None and p.network == network))
        for p in plans
    )


def choose_gateway(
    endpoints: Sequence[tuple[NetworkRecord, EndpointSettings]], version: int = 4
) -> NetworkRecord | None:
    """The network that carries the default route of a family, or None: internal ones do not."""
    able = [pair for pair in endpoints if pair[0].has_links and not pair[0].internal and pair[0].pool(version)]
    return min(able, key=lambda pair: (-pair[1].GwPriority, pair[0].name))[0] if able else None


def endpoint(
    network: NetworkRecord, settings: EndpointSettings, interface: str = "eth0", *, mac: str = ""
) -> EndpointPlan:
    """What to plug in at one network, under which name. mac: used where the settings name none.

    Raises InvalidArgument for what that kind of network cannot give.
    """
    interfaces.asked_name(settings)
    interfaces.sysctls(settings)
    wanted, wanted6 = _wanted_addresses(settings)
    if network.config_only:
        raise Forbidden("cannot create endpoint on configuration-only network")
    is_asked = wanted is not None or wanted6 is not None
    if not network.has_links:
        if is_asked:
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        return EndpointPlan(network=network, settings=settings)
    if network.is_predefined:
        if is_asked:
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        if settings.Aliases:
            raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")
    elif is_asked and not network.is_subnet_asked:
        raise InvalidArgument(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
        )
    for address, pool, version in ((wanted, network.pool(4), 4), (wanted6, network.pool(6), 6)):
        if address is not None and pool is None:
            raise InvalidArgument(
                f"invalid endpoint settings: no configured subnet contains IP address {address}",
                hint=f"network {network.name} has no IPv{version}",
            )
    return EndpointPlan(
        network=network,
        settings=settings,
        interface=interface,
        address=wanted,
        address6=wanted6,
        mac=check_mac(settings.MacAddress or mac),
    )


def _wanted_addresses(settings: EndpointSettings) -> tuple[IPv4Address | None, IPv6Address | None]:
    ipam = settings.IPAMConfig
    if ipam is None:
        return None, None
    wanted4, wanted6 = ipam.IPv4Address, ipam.IPv6Address
    address = address6 = None
    try:
        if wanted4 is not UNSET and wanted4:
            address = IPv4Address(wanted4)
    except ValueError:
        raise InvalidArgument(f"invalid IPv4 address: {wanted4}") from None
    try:
        if wanted6 is not UNSET and wanted6:
            address6 = IPv6Address(wanted6)
    except ValueError:
        raise InvalidArgument(f"invalid IPv6 address: {wanted6}") from None
    return address, address6


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
