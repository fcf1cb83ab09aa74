"""From a request to make a network to its record. Pure: what the host uses already is handed in.

Source: texts and defaults of dockerd; the keys of the bridge driver's options in Docker's documentation.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from types import MappingProxyType

import msgspec
from msgspec import UNSET

from tare.base import clock
from tare.base.errors import Conflict, Forbidden, InvalidArgument, NotFound
from tare.base.ids import random_id
from tare.networks import gateways, ipam, parents
from tare.networks.records import (
    BRIDGE_NAME,
    FALSE_TEXTS,
    HOST_BINDING,
    ICC,
    MASQUERADE,
    MTU,
    ON_LINKS,
    PREDEFINED,
    TRUE_TEXTS,
    NetworkRecord,
    Pool,
)
from tare.wire.networks import IPAM, ConfigReference, IPAMConfig, NetworkCreate

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = IPv4Address | IPv6Address
_NO_PREFIX = ipam.local_prefix("")

_LINK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")
_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
_MTU_RANGE = range(68, 65536)
_FAMILIES = {"EnableIPv4": "com.docker.network.enable_ipv4", "EnableIPv6": "com.docker.network.enable_ipv6"}


def define(
    body: NetworkCreate,
    *,
    known: Iterable[NetworkRecord],
    in_use: Sequence[IPNetwork],
    links: Iterable[str] = (),
    prefix6: IPv6Network = _NO_PREFIX,
    defaults: Sequence[tuple[IPNetwork, int]] = ipam.DEFAULT_POOLS,
    default_options: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> NetworkRecord:
    """The record of a new network.

    known: the networks there are. in_use: what the host's routes and addresses cover, which a subnet of our choice must
    not overlap. links: names of the host's interfaces; a bridge that is there already is used and never deleted.
    prefix6: where subnets of IPv6 come from that nobody names. defaults: pools of both families. default_options: by
    driver, options for requests that do not have them and take nothing from another network.
    Raises InvalidArgument, Forbidden, NotFound (driver, no subnet free), Conflict (name taken) with Docker's texts.
    """
    present, there = list(known), set(links)
    _check_name(body.Name, present)
    if body.ConfigFrom is None or not body.ConfigFrom.Network:
        body = _with_options(body, default_options.get(_driver(body), {}))
    body = _configured(body, present)
    _check_kind(body)
    driver = _driver(body)
    options = dict(body.Options or {})
    network_id = random_id()
    bridge = parent = ""
    if driver == "bridge" and not body.ConfigOnly:
        _check_options(options)
        gateways.check(options, internal=body.Internal)
        bridge = options.get(BRIDGE_NAME) or f"br-{network_id[:12]}"
        _check_bridge(bridge, network_id, present)
    elif not body.ConfigOnly:
        parent = parents.parent_of(driver, options, network_id, present)
    internal = body.Internal or parent.startswith(parents.DUMMY)
    asked = body.IPAM or IPAM()
    if asked.Driver not in ("", "default"):
        raise NotFound(f"could not resolve ipam driver {asked.Driver}: plugin not found")
    return NetworkRecord(
        id=network_id,
        name=body.Name,
        driver="null" if body.ConfigOnly else driver,
        created_at=clock.now(),
        bridge=bridge,
        parent=parent,
        pools=_pools(
            body,
            asked.Config,
            present=present,
            in_use=in_use,
            prefix6=prefix6,
            defaults=defaults,
            unreserved=frozenset({4, 6})
            if body.ConfigOnly
            else gateways.unreserved(driver, options, internal=internal),
        ),
        internal=internal,
        attachable=body.Attachable,
        options=options,
        labels=dict(body.Labels or {}),
        ipam_options=dict(asked.Options) if asked.Options is not None else None,
        is_subnet_asked=any(config.Subnet for config in asked.Config if config.Subnet is not UNSET),
        owns_bridge=(bridge or parent) not in there,
        ipv4=body.EnableIPv4 is not False,
        ipv6=bool(body.EnableIPv6),
        config_only=body.ConfigOnly,
        config_from=body.ConfigFrom.Network if body.ConfigFrom is not None else "",
    )


def _with_options(body: NetworkCreate, default: Mapping[str, str]) -> NetworkCreate:
    """The request with the engine's options where it has none, and with the families that options name.

    A family that the request names itself counts; its option is left out then, since it would look wrong in inspect.
    Raises InvalidArgument.
    """
    options = {**default, **(body.Options or {})}
    families: dict[str, bool] = {}
    for name, key in _FAMILIES.items():
        text = options.get(key)
        if text is None:
            continue
        if getattr(body, name) is not None:
            del options[key]
        elif text in TRUE_TEXTS | FALSE_TEXTS:
            families[name] = text in TRUE_TEXTS
        else:
            raise InvalidArgument(f'driver-opt "{key}" is not a valid bool')
    return msgspec.structs.replace(body, Options=options or ({} if body.Options else body.Options), **families)


def _driver(body: NetworkCreate) -> str:
    return body.Driver if body.Driver not in ("", "default") else "bridge"


def _configured(body: NetworkCreate, present: Sequence[NetworkRecord]) -> NetworkCreate:
    """The request with what the network named by --config-from says put in. Raises Forbidden, NotFound."""
    wanted = body.ConfigFrom.Network if body.ConfigFrom is not None else ""
    if body.ConfigOnly:
        if wanted:
            raise Forbidden("a configuration network cannot depend on another configuration network")
        if body.Internal or body.Attachable or body.Ingress or body.Scope not in ("", "local"):
            raise Forbidden(
                "configuration network can only contain network specific fields. Network operator fields like "
                "[ ingress | internal | attachable | scope ] are not supported."
            )
    if not wanted:
        return body
    source = next((network for network in present if wanted in (network.name, network.id)), None)
    if source is None or not source.config_only:
        raise NotFound(f'configuration network "{wanted}" does not exist')
    if (body.IPAM is not None and body.IPAM.Config) or body.Options or body.Labels or body.EnableIPv6:
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration network"
        )
    configs = [
        IPAMConfig(
            Subnet=pool.subnet,
            Gateway=pool.gateway,
            IPRange=pool.ip_range,
            AuxiliaryAddresses=dict(pool.auxiliary),
        )
        for pool in source.pools
    ]
    return msgspec.structs.replace(
        body,
        ConfigFrom=ConfigReference(Network=source.name),
        IPAM=IPAM(Options=source.ipam_options, Config=configs),
        Options=dict(source.options),
        Labels=dict(source.labels),
        EnableIPv4=source.ipv4,
        EnableIPv6=source.ipv6,
    )


def _check_name(name: str, present: Sequence[NetworkRecord]) -> None:
    if not name.strip() or "/" in name or any(ord(letter) < 32 for letter in name):
        raise InvalidArgument(f"invalid name: {name}")
    if name in PREDEFINED or name == "default":
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if any(network.name == name for network in present):
        raise Conflict(f"network with name {name} already exists")


def _check_kind(body: NetworkCreate) -> None:
    if body.Ingress or body.Driver == "overlay":
        raise Forbidden(_NO_SWARM)
    if body.Scope == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if body.Scope not in ("", "local"):
        raise InvalidArgument(f"invalid scope {body.Scope}")
    if body.Driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{body.Driver}" network is allowed')
    if body.Driver not in ("", "default", *ON_LINKS):
        raise NotFound(f'could not find plugin {body.Driver}: plugin "{body.Driver}" not found')
    if body.EnableIPv4 is False and not body.EnableIPv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")


def _check_options(options: Mapping[str, str]) -> None:
    for key in (ICC, MASQUERADE):
        if options.get(key, "true") not in TRUE_TEXTS | FALSE_TEXTS:
            raise InvalidArgument(f"failed to parse {key} value: {options[key]} (invalid syntax)")
    if mtu := options.get(MTU, ""):
        if not (mtu.isascii() and mtu.isdigit()):
            raise InvalidArgument(f"failed to parse {MTU} value: {mtu} (invalid syntax)")
        if int(mtu) and int(mtu) not in _MTU_RANGE:
            raise InvalidArgument(f"invalid MTU number: {mtu}")
    if address := options.get(HOST_BINDING, ""):
        try:
            IPv4Address(address)
        except ValueError:
            raise InvalidArgument(f"failed to parse {HOST_BINDING} value: {address} (invalid ip)") from None


def _check_bridge(bridge: str, network_id: str, present: Sequence[NetworkRecord]) -> None:
    if not _LINK_NAME.match(bridge):
        raise InvalidArgument(f"invalid bridge name {bridge!r}: letters, digits, _ . and -, at most 15")
    for other in present:
        if other.bridge == bridge:
            raise Forbidden(
                f"cannot create network {network_id} ({bridge}): conflicts with network {other.id} ({other.bridge}): "
                "networks have same bridge name"
            )


def _pools(
    body: NetworkCreate,
    configs: Sequence[IPAMConfig],
    *,
    present: Sequence[NetworkRecord],
    in_use: Sequence[IPNetwork],
    prefix6: IPv6Network,
    defaults: Sequence[tuple[IPNetwork, int]],
    unreserved: frozenset[int],
) -> tuple[Pool, ...]:
    """One subnet for each family the network has; what is said of a family it has not is left out, as Docker does.

    unreserved: the families in which no gateway is chosen.
    """
    by_version: dict[int, list[IPAMConfig]] = {4: [], 6: []}
    for config in configs:
        subnet = str(config.Subnet) if config.Subnet is not UNSET else ""
        by_version[6 if ":" in subnet else 4].append(config)
    ours = [
        subnet
        for network in present
        if not (network.config_only or body.ConfigOnly)
        for subnet in (network.subnet, network.subnet6)
        if subnet is not None
    ]
    found: list[Pool] = []
    for version, is_wanted in ((4, body.EnableIPv4 is not False), (6, bool(body.EnableIPv6))):
        given = by_version[version]
        if not is_wanted or (body.ConfigOnly and not given):
            continue
        if len(given) > 1:
            raise InvalidArgument(f"{_driver(body)} driver doesn't support multiple subnets")
        if given and (given[0].Subnet or version == 4):
            config = given[0]
            if config.Subnet:
                found.append(_asked_pool(config, ours, has_gateway=version not in unreserved))
                continue
            if any((config.IPRange, config.Gateway, config.AuxiliaryAddresses)):
                raise InvalidArgument("invalid network config: a subnet must be given with a gateway or a range")
        if version == 4:
            chosen: IPNetwork = ipam.choose_subnet([*in_use, *ours], pools=defaults)
        else:
            chosen = ipam.choose_subnet6([*in_use, *ours], prefix=prefix6, pools=defaults)
        gateway = "" if version in unreserved else str(ipam.default_gateway(chosen))
        found.append(Pool(subnet=str(chosen), gateway=gateway))
    return tuple(found)


def _asked_pool(config: IPAMConfig, ours: Sequence[IPNetwork], *, has_gateway: bool) -> Pool:
    """has_gateway: one is chosen where none is named."""
    subnet = _network(str(config.Subnet), word="subnet")
    if any(_overlap(subnet, network) for network in ours):
        raise Forbidden("Pool overlaps with other one on this address space")
    auxiliary = config.AuxiliaryAddresses if isinstance(config.AuxiliaryAddresses, dict) else {}
    reserved = {name: _inside(address, subnet, word="auxiliary address") for name, address in auxiliary.items()}
    gateway: IPAddress | None
    if config.Gateway:
        gateway = _inside(str(config.Gateway).partition("/")[0], subnet, word="gateway")
    elif has_gateway:
        gateway = ipam.allocate(subnet, taken=set(reserved.values()))
    else:
        gateway = None
    if gateway in reserved.values():
        raise Forbidden("Address already in use")
    ip_range = _network(str(config.IPRange), word="ip-range") if config.IPRange else None
    if ip_range is not None and not _holds(subnet, ip_range):
        raise InvalidArgument(f"invalid ip-range {ip_range}: it is not inside subnet {subnet}")
    return Pool(
        subnet=str(subnet),
        gateway=str(gateway) if gateway is not None else "",
        ip_range=str(ip_range) if ip_range is not None else "",
        auxiliary={name: str(address) for name, address in reserved.items()},
    )


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and (one[0] in other or other[0] in one)


def _holds(subnet: IPNetwork, part: IPNetwork) -> bool:
    return part.version == subnet.version and part.prefixlen >= subnet.prefixlen and part[0] in subnet


def _network(text: str, *, word: str) -> IPNetwork:
    try:
        network = ipaddress.ip_network(text, strict=False)
        if "/" not in text:
            raise ValueError(text)
    except ValueError:
        raise InvalidArgument(f"invalid {word} {text}: invalid CIDR address: {text}") from None
    if network.network_address != ipaddress.ip_address(text.partition("/")[0]):
        raise InvalidArgument(f"invalid network config:\ninvalid {word} {text}: it should be {network}")
    return network


def _inside(text: str, subnet: IPNetwork, *, word: str) -> IPAddress:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid {word} {text}: not an IP address") from None
    has_edges = subnet.prefixlen < subnet.max_prefixlen - 1  # RFC 3021: a link between two has neither
    is_edge = address == subnet.network_address or (address.version == 4 and address == subnet.broadcast_address)
    is_edge = is_edge and has_edges
    if address not in subnet or is_edge:
        raise InvalidArgument(f"failed to allocate {word} ({address}): Requested address is out of range")
    return address
