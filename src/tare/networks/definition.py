"""From a request to make a network to its record. Pure: what the host uses already is handed in.

Source: texts and defaults of dockerd; the keys of the bridge driver's options in Docker's documentation.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network

from msgspec import UNSET

from tare.base import clock
from tare.base.errors import Conflict, Forbidden, InvalidArgument, NotFound
from tare.base.ids import random_id
from tare.networks import ipam
from tare.networks.records import (
    BRIDGE_NAME,
    FALSE_TEXTS,
    HOST_BINDING,
    ICC,
    MASQUERADE,
    MTU,
    PREDEFINED,
    TRUE_TEXTS,
    NetworkRecord,
    Pool,
)
from tare.wire.networks import IPAM, IPAMConfig, NetworkCreate

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_LINK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")
_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
_MTU_RANGE = range(68, 65536)


def define(
    body: NetworkCreate, *, known: Iterable[NetworkRecord], in_use: Sequence[IPNetwork], links: Iterable[str] = ()
) -> NetworkRecord:
    """The record of a new bridge network.

    known: the networks there are. in_use: what the host's routes and addresses cover, which a subnet of our choice must
    not overlap. links: names of the host's interfaces; a bridge that is there already is used and never deleted.
    Raises InvalidArgument, Forbidden, NotFound (driver), Conflict (name taken, no subnet free) with Docker's texts.
    """
    present = list(known)
    _check_name(body.Name, present)
    _check_kind(body)
    options = dict(body.Options or {})
    _check_options(options)
    network_id = random_id()
    bridge = options.get(BRIDGE_NAME) or f"br-{network_id[:12]}"
    _check_bridge(bridge, network_id, present)
    asked = body.IPAM or IPAM()
    if asked.Driver not in ("", "default"):
        raise NotFound(f"could not resolve ipam driver {asked.Driver}: plugin not found")
    pool = _pool(asked.Config, present, in_use)
    return NetworkRecord(
        id=network_id,
        name=body.Name,
        driver="bridge",
        created_at=clock.now(),
        bridge=bridge,
        pools=(pool,),
        internal=body.Internal,
        attachable=body.Attachable,
        options=options,
        labels=dict(body.Labels or {}),
        ipam_options=dict(asked.Options or {}),
        is_subnet_asked=any(config.Subnet for config in asked.Config if config.Subnet is not UNSET),
        owns_bridge=bridge not in set(links),
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
    if body.ConfigOnly or (body.ConfigFrom is not None and body.ConfigFrom.Network):
        raise InvalidArgument("configuration-only networks are not served by this version")
    if body.Driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{body.Driver}" network is allowed')
    if body.Driver not in ("", "default", "bridge"):
        raise NotFound(f'could not find plugin {body.Driver}: plugin "{body.Driver}" not found')
    if body.EnableIPv6:
        raise InvalidArgument("IPv6 networks are not served by this version yet", hint="leave --ipv6 out")
    if body.EnableIPv4 is False:
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


def _pool(configs: Sequence[IPAMConfig], present: Sequence[NetworkRecord], in_use: Sequence[IPNetwork]) -> Pool:
    if len(configs) > 1:
        raise InvalidArgument("bridge driver doesn't support multiple subnets")
    config = configs[0] if configs else IPAMConfig()
    ours = [network.subnet for network in present if network.subnet is not None]
    if not config.Subnet:
        if any((config.IPRange, config.Gateway, config.AuxiliaryAddresses)):
            raise InvalidArgument("invalid network config: a subnet must be given with a gateway or a range")
        subnet = ipam.choose_subnet([*in_use, *ours])
        return Pool(subnet=str(subnet), gateway=str(ipam.default_gateway(subnet)))
    subnet = _network(str(config.Subnet), word="subnet")
    if subnet.prefixlen > 30:
        raise InvalidArgument(f"invalid subnet {subnet}: no room for containers in it")
    if any(subnet.overlaps(network) for network in ours):
        raise Forbidden("Pool overlaps with other one on this address space")
    auxiliary = config.AuxiliaryAddresses if isinstance(config.AuxiliaryAddresses, dict) else {}
    reserved = {name: _inside(address, subnet, word="auxiliary address") for name, address in auxiliary.items()}
    if config.Gateway:
        gateway = _inside(str(config.Gateway).partition("/")[0], subnet, word="gateway")
    else:
        gateway = _free_gateway(subnet, set(reserved.values()))
    if gateway in reserved.values():
        raise Forbidden("Address already in use")
    ip_range = _network(str(config.IPRange), word="ip-range") if config.IPRange else None
    if ip_range is not None and not ip_range.subnet_of(subnet):
        raise InvalidArgument(f"invalid ip-range {ip_range}: it is not inside subnet {subnet}")
    return Pool(
        subnet=str(subnet),
        gateway=str(gateway),
        ip_range=str(ip_range) if ip_range is not None else "",
        auxiliary={name: str(address) for name, address in reserved.items()},
    )


def _network(text: str, *, word: str) -> IPv4Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
        if "/" not in text:
            raise ValueError(text)
    except ValueError:
        raise InvalidArgument(f"invalid {word} {text}: invalid CIDR address: {text}") from None
    if not isinstance(network, IPv4Network):
        raise InvalidArgument("IPv6 networks are not served by this version yet", hint=f"give an IPv4 {word}")
    if str(network.network_address) != text.partition("/")[0]:
        raise InvalidArgument(f"invalid network config:\ninvalid {word} {text}: it should be {network}")
    return network


def _inside(text: str, subnet: IPv4Network, *, word: str) -> IPv4Address:
    try:
        address = IPv4Address(text)
    except ValueError:
        raise InvalidArgument(f"invalid {word} {text}: not an IPv4 address") from None
    if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
        raise InvalidArgument(f"failed to allocate {word} ({address}): Requested address is out of range")
    return address


def _free_gateway(subnet: IPv4Network, reserved: set[IPv4Address]) -> IPv4Address:
    """The first usable address that is not an auxiliary one."""
    return ipam.allocate(subnet, taken=reserved)
