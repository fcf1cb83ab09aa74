"""Elements of nftables sets and maps by nfnetlink, packed by hand: some 50 µs however many tables the host has.

libnftables reads every table of the host before it adds an element: 0.3 ms with one network, 25 with a hundred.
Source: linux/netfilter/nf_tables.h, nfnetlink.h; key and data as nft(8) lays concatenations out (four-byte cells).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence

from msgspec import Struct

from tare.base.errors import Conflict, InternalError, NotFound

_NETLINK_NETFILTER, _SUBSYSTEM = 12, 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW, _DELETE = _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14
_ERROR = 2
_REQUEST, _ACK, _CREATE = 1, 4, 0x400
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEMENT = 1, 2, 3, 1
_KEY, _DATA, _FLAGS, _KEY_END, _VALUE, _VERDICT, _CODE = 1, 2, 3, 10, 1, 2, 1
_INTERVAL_END = 1
_VERDICTS = {"drop": 0, "accept": 1}
_LINK_NAME_BYTES = 16
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_RECEIVE_BYTES = 1 << 16

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Element(Struct, frozen=True, kw_only=True):
    """One entry of the set or map `name` in `table` (family 4 or 6).

    `data` or `verdict` (accept, drop) in a map. `end`: the last key of a range of concatenations, `is_end`: the key is
    the first one behind an interval.
    """

    version: int
    table: str
    name: str
    key: bytes
    data: bytes = b""
    verdict: str = ""
    end: bytes = b""
    is_end: bool = False


def link_name(name: str) -> bytes:
    """The name of a link as a field of a key."""
    return name.encode().ljust(_LINK_NAME_BYTES, b"\0")


def cells(*fields: IPAddress | str | int | bytes) -> bytes:
    """A concatenation: an address, a protocol by name, a port, bytes as they are; each in cells of four bytes."""
    out = b""
    for field in fields:
        if isinstance(field, bytes):
            out += field
        elif isinstance(field, str):
            out += bytes([_PROTOCOLS[field], 0, 0, 0])
        elif isinstance(field, int):
            out += field.to_bytes(2, "big") + b"\0\0"
        else:
            out += field.packed
    return out


class Elements:
    """One nfnetlink socket, of the network namespace it was opened in. Not for two threads at once."""

    def __init__(self) -> None:
        """Open it in the namespace of the calling thread."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket; a second time does nothing."""
        self._socket.close()

    def change(self, elements: Sequence[Element], *, present: bool) -> None:
        """Add or delete them, all or none. Raises NotFound (table, map or element), Conflict, InternalError."""
        if not elements:
            return
        begin = self._sequence + 1
        batch = self._message(_BATCH_BEGIN, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))
        wanted = set()
        for element in elements:
            kind, flags = (_NEW, _ACK | _CREATE) if present else (_DELETE, _ACK)
            batch += self._message(kind, flags, _body(element, with_data=present))
            wanted.add(self._sequence)
        batch += self._message(_BATCH_END, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))
        self._socket.send(batch)
        problem = 0
        while wanted:
            for number, code in self._answers():
                if number in wanted or number == begin:
                    problem = problem or code
                    wanted.discard(number)
                if number == begin:
                    wanted.clear()
        _raise_for(problem)

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, self._sequence, 0) + body

    def _answers(self) -> list[tuple[int, int]]:
        """(sequence, errno) of each answer in the next datagram."""
        data = self._socket.recv(_RECEIVE_BYTES)
        found, at = [], 0
        while at + _HEADER.size <= len(data):
            length, kind, _, number, _ = _HEADER.unpack_from(data, at)
            if length < _HEADER.size:
                break
            if kind == _ERROR:
                found.append((number, -struct.unpack_from("=i", data, at + _HEADER.size)[0]))
            at += (length + 3) & ~3
        return found


def _body(element: Element, *, with_data: bool) -> bytes:
    family = socket.AF_INET if element.version == 4 else socket.AF_INET6
    entry = _nested(_KEY, _attribute(_VALUE, element.key))
    if element.end:
        entry += _nested(_KEY_END, _attribute(_VALUE, element.end))
    if element.is_end:
        entry += _attribute(_FLAGS, struct.pack(">I", _INTERVAL_END))
    if with_data and element.verdict:
        code = _attribute(_CODE, struct.pack(">I", _VERDICTS[element.verdict]))
        entry += _nested(_DATA, _nested(_VERDICT, code))
    elif with_data and element.data:
        entry += _nested(_DATA, _attribute(_VALUE, element.data))
    return (
        struct.pack(">BBH", family, 0, 0)
        + _attribute(_LIST_TABLE, element.table.encode() + b"\0")
        + _attribute(_LIST_SET, element.name.encode() + b"\0")
        + _nested(_LIST_ELEMENTS, _nested(_LIST_ELEMENT, entry))
    )


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length & 3)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _raise_for(code: int) -> None:
    if code == 0:
        return
    text = f"nftables: a set of ours could not be changed: {os.strerror(code).lower()}"
    if code == errno.ENOENT:
        raise NotFound(text)
    raise Conflict(text) if code == errno.EEXIST else InternalError(text)
