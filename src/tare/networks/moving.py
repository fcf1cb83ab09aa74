"""Networks that travel with a container: their definition, and what becomes of it where addresses are taken (pure)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from tare.networks.definition import IPNetwork
from tare.networks.records import NetworkRecord
from tare.wire.config import EndpointSettings
from tare.wire.networks import IPAM, IPAMConfig, NetworkCreate


def definition_of(record: NetworkRecord) -> NetworkCreate:
    """The request that makes such a network, its subnets included."""
    configs = [
        IPAMConfig(
            Subnet=pool.subnet,
            Gateway=pool.gateway or UNSET,
            IPRange=pool.ip_range or UNSET,
            AuxiliaryAddresses=dict(pool.auxiliary) or UNSET,
        )
        for pool in record.pools
    ]
    return NetworkCreate(
        Name=record.name,
        Driver=record.driver,
        EnableIPv4=record.ipv4,
        EnableIPv6=record.ipv6,
        IPAM=IPAM(Options=record.ipam_options, Config=configs),
        Internal=record.internal,
        Attachable=record.attachable,
        Options=dict(record.options),
        Labels=dict(record.labels),
    )


def taken(body: NetworkCreate, in_use: Sequence[IPNetwork]) -> list[str]:
    """The subnets of a definition that overlap what is in use already. Raises ValueError for what is no subnet."""
    wanted = [ipaddress.ip_network(text) for text in _subnets(body)]
    return [str(subnet) for subnet in wanted if any(_overlap(subnet, other) for other in in_use)]


def _subnets(body: NetworkCreate) -> list[str]:
    configs = body.IPAM.Config if body.IPAM is not None else []
    return [str(config.Subnet) for config in configs if config.Subnet is not UNSET and config.Subnet]


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and (one[0] in other or other[0] in one)


def without_subnets(body: NetworkCreate) -> NetworkCreate:
    """The same network with addresses of the engine's choice."""
    asked = body.IPAM or IPAM()
    return msgspec.structs.replace(body, IPAM=msgspec.structs.replace(asked, Config=[]))


def fitted(settings: EndpointSettings, record: NetworkRecord) -> tuple[EndpointSettings, list[str]]:
    """The endpoint without the addresses that are not on the network, and those addresses."""
    asked = settings.IPAMConfig
    if asked is None:
        return settings, []
    lost: list[str] = []
    kept: dict[str, str] = {}
    for name, subnet in (("IPv4Address", record.subnet), ("IPv6Address", record.subnet6)):
        text = getattr(asked, name)
        if text is UNSET or not text:
            continue
        try:
            fits = subnet is not None and ipaddress.ip_address(text) in subnet
        except ValueError:
            fits = False
        if fits:
            kept[name] = text
        else:
            lost.append(text)
    if not lost:
        return settings, []
    left = msgspec.structs.replace(asked, **{name: kept.get(name, UNSET) for name in ("IPv4Address", "IPv6Address")})
    return msgspec.structs.replace(settings, IPAMConfig=left if kept else None), lost


__all__ = ["definition_of", "fitted", "taken", "without_subnets"]
