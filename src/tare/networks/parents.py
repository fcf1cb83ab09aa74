"""macvlan and ipvlan: which link of the host a network lives on, and in which mode. Pure.

Source: the drivers' options and texts in Docker's documentation: parent, macvlan_mode, ipvlan_mode, ipvlan_flag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tare.base.errors import Forbidden, InvalidArgument
from tare.drivers.network import netlink
from tare.drivers.network.bridge import Child
from tare.networks.records import IPVLAN_FLAG, IPVLAN_MODE, MACVLAN_MODE, PARENT, NetworkRecord

DUMMY = "dm-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")
_VLANS = range(1, 4095)


def parent_of(driver: str, options: Mapping[str, str], network_id: str, present: Iterable[NetworkRecord]) -> str:
    """The link below a new network; without one asked for a dummy of its own, which leads nowhere.

    Raises InvalidArgument (modes, names), Forbidden (the parent belongs to a passthru network alone).
    """
    modes = _modes(driver, options)
    parent = options.get(PARENT, "")
    if not parent:
        if "passthru" in modes:
            raise InvalidArgument("passthru needs a parent interface", hint="add -o parent=eth0")
        return DUMMY + network_id[:12]
    if not _NAME.match(parent):
        raise InvalidArgument(f"invalid parent interface {parent!r}: letters, digits, _ . and -, at most 15")
    if parent == "lo":
        raise InvalidArgument(f"loopback interface is not a valid {driver} parent link")
    vlan(parent)
    for other in present:
        if other.parent != parent:
            continue
        is_alone = "passthru" in modes or "passthru" in _modes(other.driver, other.options)
        if is_alone or other.driver != driver:
            raise Forbidden(f"network {other.id} is already using parent interface {parent}")
    return parent


def _modes(driver: str, options: Mapping[str, str]) -> tuple[str, ...]:
    """The mode of macvlan, mode and flag of ipvlan. Raises InvalidArgument."""
    if driver == "macvlan":
        mode = options.get(MACVLAN_MODE) or "bridge"
        if mode not in netlink.MACVLAN_MODES:
            raise InvalidArgument(
                f"requested macvlan mode '{mode}' is not valid, 'bridge' mode is the macvlan driver default"
            )
        return (mode,)
    mode, flag = options.get(IPVLAN_MODE) or "l2", options.get(IPVLAN_FLAG) or "bridge"
    if mode not in netlink.IPVLAN_MODES:
        raise InvalidArgument(f"requested ipvlan mode '{mode}' is not valid, 'l2' mode is the ipvlan driver default")
    if flag not in netlink.IPVLAN_FLAGS:
        raise InvalidArgument(
            f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default flag"
        )
    return mode, flag


def child_of(network: NetworkRecord) -> Child | None:
    """How containers are plugged into a network of these drivers; None for others."""
    if network.driver == "macvlan":
        return Child(
            kind="macvlan", parent=network.parent, data=netlink.macvlan_data(*_modes("macvlan", network.options))
        )
    if network.driver == "ipvlan":
        return Child(kind="ipvlan", parent=network.parent, data=netlink.ipvlan_data(*_modes("ipvlan", network.options)))
    return None


def routes_directly(network: NetworkRecord) -> bool:
    """ipvlan of layer 3 has no neighbours: its default route is the link itself."""
    return network.driver == "ipvlan" and _modes("ipvlan", network.options)[0] != "l2"


def vlan(parent: str) -> tuple[str, int] | None:
    """`eth0.10` as link and VLAN number; None for a plain link. Raises InvalidArgument."""
    link, dot, number = parent.rpartition(".")
    if not dot:
        return None
    if not (number.isascii() and number.isdigit()) or int(number) not in _VLANS:
        raise InvalidArgument(f"invalid parent interface {parent}: a VLAN number is 1 to 4094")
    return link, int(number)
