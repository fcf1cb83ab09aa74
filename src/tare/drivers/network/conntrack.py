"""Forgetting UDP flows by nfnetlink: what `conntrack -D -p udp --orig-port-dst PORT` does, without that program.

A UDP flow has no end the kernel could see. A client that keeps sending would go on reaching the container that had the
port before, or nobody at all: the address a flow is translated to is chosen by its first packet only.
Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import struct
from collections.abc import Collection, Iterator

log = logging.getLogger(__name__)

_NETLINK_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_TUPLE_ORIG, _TUPLE_PROTO, _PROTO_NUM, _PROTO_DST_PORT, _ID, _ZONE = 1, 2, 1, 3, 12, 18
_TUPLE_IP, _V4_DESTINATION, _V6_DESTINATION = 1, 2, 4
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
_RECEIVE_BYTES = 1 << 18

End = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]
"""An address and a port."""


def forget_udp(ports: Collection[int], ends: Collection[End] = ()) -> int:
    """Delete every UDP flow whose first packet went to one of these ports, in the calling thread's namespace.

    ends: and to these ports at these addresses only.
    Returns how many. A kernel without conntrack over netlink is logged, not raised: flows then end by their time-out.
    """
    if not ports and not ends:
        return 0
    wanted = frozenset((address.packed, port) for address, port in ends)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as netlink:
            netlink.bind((0, 0))
            return sum(_forget(netlink, family, ports, wanted) for family in (socket.AF_INET, socket.AF_INET6))
    except OSError as error:
        log.warning("UDP flows could not be forgotten: %s", error.strerror)
        return 0


def _forget(netlink: socket.socket, family: int, ports: Collection[int], ends: Collection[tuple[bytes, int]]) -> int:
    head = _FAMILY.pack(family, 0, 0)
    found = []
    for body in _exchange(netlink, _GET, _DUMP, head):
        end = udp_end(body)
        if end is not None and (end[1] in ports or end in ends):
            found.append(body)
    for body in found:
        for _ in _exchange(netlink, _DELETE, _ACK, head + _identity(body)):
            pass
    return len(found)


def _exchange(netlink: socket.socket, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    """Bodies of the answers; ends with the kernel's last word. A flow that is gone already (ENOENT) is as good."""
    netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, 1, 0) + body)
    while True:
        data = netlink.recv(_RECEIVE_BYTES)
        at = 0
        while at + _HEADER.size <= len(data):
            length, got, _, _, _ = _HEADER.unpack_from(data, at)
            if got == _DONE:
                return
            if got == _ERROR:
                code = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                if code not in (0, 2):
                    raise OSError(code, os.strerror(code))
                return
            yield data[at + _HEADER.size : at + length]
            at += (length + 3) & ~3


def udp_end(body: bytes) -> tuple[bytes, int] | None:
    """Where a UDP flow's first packet went: packed address and port; None for other protocols.

    body: after the netlink header.
    """
    first = _attributes(_attributes(body[4:]).get(_TUPLE_ORIG, b""))
    protocol = _attributes(first.get(_TUPLE_PROTO, b""))
    if protocol.get(_PROTO_NUM, b"\0")[0] != socket.IPPROTO_UDP:
        return None
    addresses = _attributes(first.get(_TUPLE_IP, b""))
    address = addresses.get(_V4_DESTINATION) or addresses.get(_V6_DESTINATION, b"")
    return address, int.from_bytes(protocol.get(_PROTO_DST_PORT, b""), "big")


def _identity(body: bytes) -> bytes:
    """What names one flow in a request to delete it: its first packet, its zone, its id."""
    found = _attributes(body[4:])
    nested = 0x8000
    pairs = [(_TUPLE_ORIG | nested, found[_TUPLE_ORIG])]
    pairs += [(kind, found[kind]) for kind in (_ZONE, _ID) if kind in found]
    return b"".join(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) & 3) for kind, value in pairs
    )


def _attributes(data: bytes) -> dict[int, bytes]:
    out: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        out[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return out
