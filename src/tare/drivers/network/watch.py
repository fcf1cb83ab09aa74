"""News from the kernel about what somebody else may have taken from us: links deleted, nftables rules deleted.

Two netlink sockets that hear multicast groups. A socket that overflows says so: then everything is suspect.
Source: rtnetlink(7), linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import socket
import struct

from msgspec import Struct, field

_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP = 12, 270, 1
_GROUP_LINK, _GROUP_NFTABLES = 1, 7
_DELLINK = 17
_IFLA_IFNAME = 3
_NFTABLES = 10 << 8
_NFT_DELETIONS = {_NFTABLES | 2, _NFTABLES | 5, _NFTABLES | 8}  # a table, a chain, a rule
_NFT_NEW_CHAIN = {_NFTABLES | 3}
_NFTA_TABLE = 1  # the table's name in messages about tables, chains and rules alike
_HEADER = struct.Struct("=IHHII")
_LINK_BYTES, _NFGEN_BYTES = 16, 4
_RECEIVE_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 20
_SO_RCVBUFFORCE = 33


class Losses(Struct, frozen=True):
    """Names of links and of tables that lost something; `everything`: news were lost, look at all.

    `firewalls`: some table's chains changed, ours or not.
    """

    links: set[str] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)
    everything: bool = False
    firewalls: bool = False

    def __bool__(self) -> bool:
        return bool(self.links or self.tables or self.everything or self.firewalls)


class Watch:
    """Hears the network namespace of the thread that made it. Not for two threads at once."""

    def __init__(self) -> None:
        """Raises OSError where the kernel does not tell."""
        self.sockets = (
            _listening(socket.NETLINK_ROUTE, _GROUP_LINK),
            _listening(_NETLINK_NETFILTER, _GROUP_NFTABLES),
        )

    def close(self) -> None:
        """Hear no more. Idempotent."""
        for each in self.sockets:
            each.close()

    def read(self) -> Losses:
        """Everything that was told since the last time; never waits."""
        losses = Losses()
        for each, parse in zip(self.sockets, (_parse_link, _parse_rules), strict=True):
            while True:
                try:
                    data = each.recv(_RECEIVE_BYTES)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    losses = Losses(losses.links, losses.tables, everything=True, firewalls=True)
                    continue
                losses = parse(data, losses)
        return losses


def _listening(family: int, group: int) -> socket.socket:
    heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, family)
    try:
        heard.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        heard.bind((0, 0))
        heard.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except BaseException:
        heard.close()
        raise
    return heard


def _parse_link(data: bytes, losses: Losses) -> Losses:
    for kind, body in _messages(data):
        if kind == _DELLINK and (name := _text(body, _LINK_BYTES, _IFLA_IFNAME)):
            losses.links.add(name)
    return losses


def _parse_rules(data: bytes, losses: Losses) -> Losses:
    for kind, body in _messages(data):
        if kind in _NFT_DELETIONS and (name := _text(body, _NFGEN_BYTES, _NFTA_TABLE)):
            losses.tables.add(name)
            losses = Losses(losses.links, losses.tables, everything=losses.everything, firewalls=True)
        elif kind in _NFT_NEW_CHAIN:
            losses = Losses(losses.links, losses.tables, everything=losses.everything, firewalls=True)
    return losses


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    out, at = [], 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            break
        out.append((kind, data[at + _HEADER.size : at + length]))
        at += (length + 3) & ~3
    return out


def _text(body: bytes, at: int, wanted: int) -> str:
    """The first text attribute of this kind."""
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        if kind & 0x3FFF == wanted:
            return body[at + 4 : at + length].rstrip(b"\0").decode(errors="replace")
        at += (length + 3) & ~3
    return ""
