"""rtnetlink, packed by hand: the few requests a container network needs, synchronous and some 50 µs each.

A `Netlink` belongs to the network namespace it was opened in, whatever the thread that uses it is in later; so a
socket opened inside a container's namespace configures that container from anywhere. Not for two threads at once.
Source: netlink(7), rtnetlink(7), linux/if_link.h, linux/if_bridge.h.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator

from msgspec import Struct

from tare.base.errors import Conflict, InternalError, NotFound, TareError, Unavailable

IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP, _EXCL, _CREATE = 1, 4, 0x300, 0x200, 0x400
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_PROTINFO = 1, 3, 4, 5, 10, 12
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_NET_NS_FD = 18, 20, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_IFLA_MACVLAN_MODE, _IFLA_IPVLAN_MODE, _IFLA_IPVLAN_FLAGS, _IFLA_VLAN_ID = 1, 1, 2, 1
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
_IFLA_BRPORT_STATE, _IFLA_BRPORT_MODE, _IFLA_BRPORT_ISOLATED = 1, 4, 33
_BRIDGE_DISABLED, _BRIDGE_FORWARDING = 0, 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RTN_UNICAST = 254, 3, 0, 253, 1
_IFF_UP = 1
_IFF_RUNNING = 0x40
_AF_BRIDGE = 7
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_RECEIVE_BYTES = 1 << 18

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


class Link(Struct, frozen=True, kw_only=True):
    """An interface. `is_up`: somebody set it up, `is_running`: the kernel lets packets through. `master` is the index of its bridge, 0 without one; `kind` is bridge, veth, … or "" .

    `peer`: the index of a veth's other end, in whatever namespace that is, or of a macvlan's parent. `alias`: a line
    of text that whoever made it may have given it.
    """

    index: int
    name: str
    is_up: bool
    is_running: bool = False
    mac: str = ""
    mtu: int = 0
    master: int = 0
    kind: str = ""
    peer: int = 0
    alias: str = ""


class Address(Struct, frozen=True, kw_only=True):
    """An address on an interface."""

    index: int
    interface: IPInterface


class Route(Struct, frozen=True, kw_only=True):
    """A route of the main table. `destination` of a default route is 0.0.0.0/0 or ::/0."""

    destination: IPNetwork
    gateway: IPAddress | None = None
    index: int = 0


class Netlink:
    """One rtnetlink socket. Errors of the kernel come as NotFound, Conflict or InternalError."""

    def __init__(self) -> None:
        """Open a socket in the network namespace of the calling thread."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket; a second time does nothing."""
        self._socket.close()

    # --- links

    def links(self) -> list[Link]:
        """Every interface of the namespace."""
        return [_parse_link(body) for body in self._dump(_RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0))]

    def link(self, name: str) -> Link | None:
        """One interface by name, or None."""
        body = _LINK.pack(0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, name)
        try:
            return _parse_link(self._ask(_RTM_GETLINK, 0, body, what=f"look at {name}"))
        except NotFound:
            return None

    def link_at(self, index: int) -> Link | None:
        """One interface by its number, or None."""
        try:
            return _parse_link(self._ask(_RTM_GETLINK, 0, _LINK.pack(0, 0, index, 0, 0), what=f"look at link {index}"))
        except NotFound:
            return None

    def create_bridge(self, name: str, *, mac: str, mtu: int = 1500) -> None:
        """Make a bridge and set it up. Its own mac: else it would take, and lose, that of a member."""
        attributes = _text(_IFLA_IFNAME, name) + _mac(mac) + _number(_IFLA_MTU, mtu)
        attributes += _attribute(_IFLA_LINKINFO, _text(_IFLA_INFO_KIND, "bridge"))
        body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + attributes
        self._ask(_RTM_NEWLINK, _CREATE | _EXCL, body, what=f"make bridge {name}")

    def create_veth(
        self, name: str, *, master: int, peer_name: str, peer_namespace_fd: int, peer_mac: str, mtu: int = 1500
    ) -> None:
        """Make a pair: `name` up on the bridge `master` here, the peer under its final name in another namespace.

        The peer is to be set up there: asked for here, the kernel answers ENOTCONN, as the two are not joined yet.
        Nothing is moved or renamed afterwards: each of that waits for an RCU grace period.
        """
        peer = _LINK.pack(0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, peer_name) + _mac(peer_mac)
        peer += _number(_IFLA_MTU, mtu) + _number(_IFLA_NET_NS_FD, peer_namespace_fd)
        data = _attribute(_IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, peer))
        attributes = _text(_IFLA_IFNAME, name) + _number(_IFLA_MTU, mtu) + _number(_IFLA_MASTER, master)
        attributes += _attribute(_IFLA_LINKINFO, _text(_IFLA_INFO_KIND, "veth") + data)
        body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + attributes
        self._ask(_RTM_NEWLINK, _CREATE | _EXCL, body, what=f"make veth {name}")

    def create_child(
        self, name: str, *, kind: str, parent: int, namespace_fd: int, data: bytes, mac: str = "", mtu: int = 0
    ) -> None:
        """Make a macvlan, ipvlan or vlan of `parent`, under its final name in another namespace; it is down there.

        parent: 0 for links without one. namespace_fd: -1 for our own namespace. data: from `macvlan_data`, `ipvlan_data`. Raises Unavailable when this kernel has no such links.
        """
        attributes = _text(_IFLA_IFNAME, name) + (_number(_IFLA_LINK, parent) if parent else b"")
        attributes += _mac(mac) if mac else b""
        attributes += _number(_IFLA_MTU, mtu) if mtu else b""
        attributes += _number(_IFLA_NET_NS_FD, namespace_fd) if namespace_fd >= 0 else b""
        info = _text(_IFLA_INFO_KIND, kind) + (_attribute(_IFLA_INFO_DATA, data) if data else b"")
        attributes += _attribute(_IFLA_LINKINFO, info)
        body = _LINK.pack(0, 0, 0, 0, 0) + attributes
        self._ask(_RTM_NEWLINK, _CREATE | _EXCL, body, what=f"make {kind} {name}")

    def set_master(self, index: int, master: int) -> None:
        """Put an interface on a bridge."""
        body = _LINK.pack(0, 0, index, 0, 0) + _number(_IFLA_MASTER, master)
        self._ask(_RTM_SETLINK, 0, body, what=f"put link {index} on a bridge")

    def set_up(self, index: int) -> None:
        """Set an interface up."""
        self._ask(_RTM_SETLINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP), what=f"set link {index} up")

    def set_alias(self, index: int, alias: str) -> None:
        """Give an interface a line of text, at most 255 bytes. Not done when it is made: the kernel ignores it there."""
        body = _LINK.pack(0, 0, index, 0, 0) + _attribute(_IFLA_IFALIAS, alias.encode())
        self._ask(_RTM_SETLINK, 0, body, what=f"set the alias of link {index}")

    def isolate(self, index: int) -> None:
        """Forbid a bridge port to talk to other isolated ports (inter-container communication off)."""
        self._set_port(index, _IFLA_BRPORT_ISOLATED, 1, what=f"isolate link {index}")

    def reflect(self, index: int) -> None:
        """Let a bridge port send packets back where they came from: a container that uses its own published port.

        Where br_netfilter is loaded the packet is rewritten on the bridge and never reaches the host's routing.
        """
        self._set_port(index, _IFLA_BRPORT_MODE, 1, what=f"set link {index} to hairpin mode")

    def block(self, index: int, *, is_blocked: bool = True) -> None:
        """Let nothing pass a bridge port, at once: nobody waits as for a link that is set down or deleted.

        Raises Conflict where the bridge decides by the spanning tree protocol.
        """
        state = _BRIDGE_DISABLED if is_blocked else _BRIDGE_FORWARDING
        self._set_port(index, _IFLA_BRPORT_STATE, state, what=f"block link {index}")

    def _set_port(self, index: int, attribute: int, value: int, *, what: str) -> None:
        body = _LINK.pack(_AF_BRIDGE, 0, index, 0, 0)
        body += _attribute(_IFLA_PROTINFO | _NESTED, _attribute(attribute, bytes([value])))
        self._ask(_RTM_SETLINK, 0, body, what=what)

    def delete_link(self, name: str) -> None:
        """Delete an interface; one that is not there is as good. Waits for a grace period (13 to 20 ms)."""
        link = self.link(name)
        if link is not None:
            self.delete_index(link.index)

    def delete_index(self, index: int) -> None:
        """The same by the number, which no other interface gets soon. Others stop seeing it before this returns."""
        try:
            self._ask(_RTM_DELLINK, 0, _LINK.pack(0, 0, index, 0, 0), what=f"delete link {index}")
        except NotFound:
            return

    # --- addresses and routes

    def addresses(self) -> list[Address]:
        """Every address of the namespace."""
        found = (_parse_address(body) for body in self._dump(_RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)))
        return [address for address in found if address is not None]

    def add_address(self, index: int, interface: IPInterface) -> None:
        """Give an interface an address. Raises Conflict when it has it already."""
        raw = interface.ip.packed
        attributes = _attribute(_IFA_LOCAL, raw) + _attribute(_IFA_ADDRESS, raw)
        if isinstance(interface, ipaddress.IPv4Interface):
            family = socket.AF_INET
            if interface.network.prefixlen < 31:
                attributes += _attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed)
        else:
            family = socket.AF_INET6
            # Addresses are ours to give: waiting a second for a duplicate would be in vain.
            attributes += _number(_IFA_FLAGS, _IFA_F_NODAD)
        body = _ADDRESS.pack(family, interface.network.prefixlen, 0, 0, index) + attributes
        self._ask(_RTM_NEWADDR, _CREATE | _EXCL, body, what=f"add address {interface}")

    def delete_address(self, index: int, interface: IPInterface) -> None:
        """Take an address away."""
        family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
        body = _ADDRESS.pack(family, interface.network.prefixlen, 0, 0, index)
        body += _attribute(_IFA_LOCAL, interface.ip.packed)
        self._ask(_RTM_DELADDR, 0, body, what=f"delete address {interface}")

    def routes(self) -> list[Route]:
        """Unicast routes of the main table."""
        found = (_parse_route(body) for body in self._dump(_RTM_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)))
        return [route for route in found if route is not None]

    def add_route(self, route: Route) -> None:
        """Add a route to the main table. Raises Conflict when there is one to that destination."""
        body = self._route(route)
        self._ask(_RTM_NEWROUTE, _CREATE | _EXCL, body, what=f"add route {route.destination}")

    def delete_route(self, route: Route) -> None:
        """Take a route away; one that is not there is as good."""
        try:
            self._ask(_RTM_DELROUTE, 0, self._route(route), what=f"delete route {route.destination}")
        except NotFound:
            return

    @staticmethod
    def _route(route: Route) -> bytes:
        family = socket.AF_INET if route.destination.version == 4 else socket.AF_INET6
        scope = _RT_SCOPE_UNIVERSE if route.gateway is not None else _RT_SCOPE_LINK
        body = _ROUTE.pack(
            family, route.destination.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0
        )
        if route.destination.prefixlen:
            body += _attribute(_RTA_DST, route.destination.network_address.packed)
        if route.gateway is not None:
            body += _attribute(_RTA_GATEWAY, route.gateway.packed)
        if route.index:
            body += _number(_RTA_OIF, route.index)
        return body

    # --- the wire

    def _send(self, kind: int, flags: int, body: bytes) -> int:
        self._sequence += 1
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, kind, flags | _REQUEST, self._sequence, 0) + body)
        return self._sequence

    def _answers(self, sequence: int) -> Iterator[tuple[int, bytes]]:
        """Messages that answer `sequence`; those of an abandoned earlier request are skipped."""
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, _, number, _ = _HEADER.unpack_from(data, at)
                if number == sequence:
                    yield kind, data[at + _HEADER.size : at + length]
                at += (length + 3) & ~3

    def _ask(self, kind: int, flags: int, body: bytes, *, what: str) -> bytes:
        sequence = self._send(kind, flags | _ACK, body)
        answer = b""
        for got, data in self._answers(sequence):
            if got == _NLMSG_ERROR:
                _raise_for(-struct.unpack_from("=i", data)[0], what)
                return answer
            answer = data
        raise AssertionError("unreachable")

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        sequence = self._send(kind, _DUMP, body)
        out: list[bytes] = []
        for got, data in self._answers(sequence):
            if got == _NLMSG_DONE:
                return out
            if got == _NLMSG_ERROR:
                _raise_for(-struct.unpack_from("=i", data)[0], "list")
            out.append(data)
        raise AssertionError("unreachable")


def macvlan_data(mode: str) -> bytes:
    """The kind's attributes for `create_child`."""
    return _number(_IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])


def ipvlan_data(mode: str, flag: str) -> bytes:
    """The kind's attributes for `create_child`."""
    return _attribute(_IFLA_IPVLAN_MODE, struct.pack("=H", IPVLAN_MODES[mode])) + _attribute(
        _IFLA_IPVLAN_FLAGS, struct.pack("=H", IPVLAN_FLAGS[flag])
    )


def vlan_data(number: int) -> bytes:
    """The kind's attributes for `create_child`."""
    return _attribute(_IFLA_VLAN_ID, struct.pack("=H", number))


def _raise_for(code: int, what: str) -> None:
    if code == 0:
        return
    text = f"cannot {what}: {os.strerror(code).lower()}"
    kinds: dict[int, type[TareError]] = {
        errno.ENODEV: NotFound,
        errno.EADDRNOTAVAIL: NotFound,
        errno.ESRCH: NotFound,
        errno.EEXIST: Conflict,
        errno.EBUSY: Conflict,
        errno.EOPNOTSUPP: Unavailable,
    }
    raise kinds.get(code, InternalError)(text)


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length & 3)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _mac(value: str) -> bytes:
    return _attribute(_IFLA_ADDRESS, bytes.fromhex(value.replace(":", "")))


def _attributes(data: bytes, at: int) -> dict[int, bytes]:
    out: dict[int, bytes] = {}
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        out[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return out


def _u32(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value else 0


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = _attributes(body, _LINK.size)
    info = _attributes(found.get(_IFLA_LINKINFO, b""), 0)
    return Link(
        index=index,
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        is_up=bool(flags & _IFF_UP),
        is_running=bool(flags & _IFF_RUNNING),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_u32(found.get(_IFLA_MTU)),
        master=_u32(found.get(_IFLA_MASTER)),
        kind=info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        peer=_u32(found.get(_IFLA_LINK)),
        alias=found.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
    )


def _parse_address(body: bytes) -> Address | None:
    family, prefix, _, _, index = _ADDRESS.unpack_from(body)
    found = _attributes(body, _ADDRESS.size)
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if raw is None or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return Address(index=index, interface=ipaddress.ip_interface((raw, prefix)))


def _parse_route(body: bytes) -> Route | None:
    family, prefix, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
    found = _attributes(body, _ROUTE.size)
    if family not in (socket.AF_INET, socket.AF_INET6) or kind != _RTN_UNICAST:
        return None
    if (_u32(found.get(_RTA_TABLE)) or table) != _RT_TABLE_MAIN:
        return None
    raw = found.get(_RTA_DST, b"\0" * (4 if family == socket.AF_INET else 16))
    gateway = found.get(_RTA_GATEWAY)
    return Route(
        destination=ipaddress.ip_network((raw, prefix)),
        gateway=ipaddress.ip_address(gateway) if gateway else None,
        index=_u32(found.get(_RTA_OIF)),
    )
