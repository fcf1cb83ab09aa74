"""Whether a network has gateways, and whether the host's bridge carries them. Pure.

Source: options of Docker's bridge driver: gateway_mode_ipv4, gateway_mode_ipv6, inhibit_ipv4.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from tare.base.errors import InvalidArgument, NotFound
from tare.drivers.network.nft import NAT, ROUTED, UNPROTECTED
from tare.networks.records import FALSE_TEXTS, TRUE_TEXTS, NetworkRecord

IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

INHIBIT = "com.docker.network.bridge.inhibit_ipv4"
MODES = {4: "com.docker.network.bridge.gateway_mode_ipv4", 6: "com.docker.network.bridge.gateway_mode_ipv6"}
ISOLATED = "isolated"
_KNOWN = frozenset({NAT, UNPROTECTED, ROUTED, ISOLATED})


def check(options: Mapping[str, str], *, internal: bool) -> None:
    """Raises InvalidArgument: a mode nobody knows, isolated and not internal."""
    text = options.get(INHIBIT, "false")
    if text not in TRUE_TEXTS | FALSE_TEXTS:
        raise InvalidArgument(f"failed to parse {INHIBIT} value: {text} (invalid syntax)")
    for label in MODES.values():
        mode = options.get(label)
        if mode is not None and mode not in _KNOWN:
            raise InvalidArgument(f"failed to parse {label} value: {mode} (unknown gateway mode {mode})")
        if mode == ISOLATED and not internal:
            raise InvalidArgument("gateway mode 'isolated' can only be used for an internal network")


def mode_of(options: Mapping[str, str], version: int) -> str:
    """How the network is reached in this family (4, 6), nat where nothing is said."""
    return options.get(MODES[version], NAT)


def routed_by_all(options: Iterable[Mapping[str, str]]) -> frozenset[int]:
    """The families (4, 6) in which each of these networks, told by its options, is routed."""
    found = list(options)
    return frozenset(version for version in MODES if all(mode_of(each, version) == ROUTED for each in found))


def is_isolated(options: Mapping[str, str], version: int) -> bool:
    """The host has no part in the network in this family (4, 6)."""
    return mode_of(options, version) == ISOLATED


def unreserved(driver: str, options: Mapping[str, str], *, internal: bool) -> frozenset[int]:
    """The families (4, 6) in which no address is kept for a gateway, unless one is named: nobody would use it."""
    if driver != "bridge":
        return frozenset({4, 6}) if internal else frozenset()
    found = {version for version in MODES if is_isolated(options, version)}
    if internal and options.get(INHIBIT) in TRUE_TEXTS:
        found.add(4)
    return frozenset(found)


def of_bridge(record: NetworkRecord) -> list[IPInterface]:
    """The addresses that the host has on a network's bridge. Raises NotFound for a gateway that is missing."""
    found: list[IPInterface] = []
    for pool in record.pools:
        version = 6 if ":" in pool.subnet else 4
        if is_isolated(record.options, version) or (version == 4 and record.is_on(INHIBIT, default=False)):
            continue
        if not pool.gateway:
            raise NotFound(f"network {record.name} has no gateway")
        prefix = pool.subnet.rpartition("/")[2]
        found.append(ipaddress.ip_interface(f"{pool.gateway}/{prefix}"))
    return found
