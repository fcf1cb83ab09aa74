"""From a container's endpoint to the interface it is given. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from msgspec import UNSET

from tare.base.errors import InvalidArgument
from tare.drivers.network.bridge import Plug, mac_for, random_mac
from tare.networks import interfaces, parents
from tare.networks.plan import EndpointPlan
from tare.networks.records import NetworkRecord
from tare.wire.config import EndpointSettings

_LINK_LOCAL_BITS = {4: 16, 6: 64}


def addresses(network: NetworkRecord, address: IPv4Address | None, address6: IPv6Address | None) -> dict[str, Any]:
    """The addressing fields of `EndpointSettings`."""
    found: dict[str, Any] = {"Gateway": "", "IPAddress": "", "IPPrefixLen": 0}
    found |= {"IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0}
    has_gateway = not network.internal and not parents.routes_directly(network)
    if address is not None and network.subnet is not None:
        found |= {"IPAddress": str(address), "IPPrefixLen": network.subnet.prefixlen}
        if network.gateway is not None and has_gateway:
            found["Gateway"] = str(network.gateway)
    if address6 is not None and network.subnet6 is not None:
        found |= {"GlobalIPv6Address": str(address6), "GlobalIPv6PrefixLen": network.subnet6.prefixlen}
        if network.gateway6 is not None and has_gateway:
            found["IPv6Gateway"] = str(network.gateway6)
    return found


def link_local(settings: EndpointSettings) -> list[tuple[str, IPv4Address | IPv6Address]]:
    """The link-local addresses a client asks for besides the network's own. Raises InvalidArgument."""
    ipam = settings.IPAMConfig
    asked = [] if ipam is None or ipam.LinkLocalIPs is UNSET else ipam.LinkLocalIPs
    found: list[tuple[str, IPv4Address | IPv6Address]] = []
    for text in asked:
        try:
            found.append((text, ipaddress.ip_address(text)))
        except ValueError:
            raise InvalidArgument(f"invalid link-local IP address: {text}") from None
    return found


def plug(
    network: NetworkRecord,
    settings: EndpointSettings,
    *,
    gateways: Sequence[int],
    mtu: int,
    reflects: bool,
    interface: str = "",
) -> Plug:
    """What to make for an endpoint whose addresses are known.

    gateways: the families whose default route goes by it. mtu: where the network says nothing.
    """
    texts = [
        f"{text}/{length}"
        for text, length in (
            (settings.IPAddress, settings.IPPrefixLen),
            (settings.GlobalIPv6Address, settings.GlobalIPv6PrefixLen),
        )
        if text
    ]
    texts += [f"{text}/{_LINK_LOCAL_BITS[ip.version]}" for text, ip in link_local(settings)]
    child = parents.child_of(network)
    is_direct = parents.routes_directly(network)
    by_version = {4: network.gateway, 6: network.gateway6 if settings.GlobalIPv6Address else None}
    ways = () if is_direct else tuple(way for version in gateways if (way := by_version[version]) is not None)
    return Plug(
        bridge=network.bridge,
        child=child,
        interface=interfaces.asked_name(settings) or interface,
        is_named=bool(interfaces.asked_name(settings)),
        sysctls=interfaces.sysctls(settings),
        mac=settings.MacAddress,
        addresses=tuple(ipaddress.ip_interface(text) for text in texts),
        gateways=ways,
        direct=tuple(gateways) if is_direct else (),
        mtu=network.mtu or (mtu if child is None else 0),
        isolated=child is None and not network.icc,
        reflects=reflects and child is None,
    )


def mac(endpoint: EndpointPlan, address: IPv4Address | None) -> str:
    """The address of its link. An ipvlan has its parent's."""
    if endpoint.network.driver == "ipvlan":
        return ""
    return endpoint.mac or (mac_for(address) if address is not None else random_mac())
