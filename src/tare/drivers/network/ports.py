"""Host ports held by sockets, so that nobody else takes them: bound, listening, never accepting.

The packet filter sends what arrives to the container before a socket sees it; the socket only keeps the number. The
exception are sockets of a family that the container does not have, and ::1: there `networks.relay` accepts.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct, field

from tare.base.errors import Conflict, InternalError, InvalidArgument, Unavailable

_SCTP = 132
_KINDS = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, _SCTP),
}


IPAddress = IPv4Address | IPv6Address


class AlreadyAllocated(Conflict):
    """Another published port of this engine has the number."""


class PortHolder(Struct):
    """The host ports that this engine holds. Its own lists tell its conflicts from those with the host's processes."""

    _held: dict[tuple[str, IPAddress, int], socket.socket] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, protocol: str, host_ip: IPAddress, first: int, last: int) -> int:
        """Take the first free port of the range (0: any) and return it.

        Raises AlreadyAllocated (by us), Conflict (by a process of the host), InvalidArgument (no such address).
        """
        problem: Conflict | None = None
        for port in range(first, last + 1):
            try:
                return self._take(protocol, host_ip, port)
            except Conflict as error:
                problem = problem or error
        assert problem is not None
        raise problem

    def _take(self, protocol: str, host_ip: IPAddress, port: int) -> int:
        if port and self._is_ours(protocol, host_ip, port):
            raise AlreadyAllocated(f"Bind for {place_of(host_ip, port)} failed: port is already allocated")
        held = _bound(protocol, host_ip, port)
        number: int = held.getsockname()[1]
        self._held[protocol, host_ip, number] = held
        return number

    def _is_ours(self, protocol: str, host_ip: IPAddress, port: int) -> bool:
        return any(
            (kind, number, ip.version) == (protocol, port, host_ip.version)
            and (ip == host_ip or ip.is_unspecified or host_ip.is_unspecified)
            for kind, ip, number in self._held
        )

    def release(self, protocol: str, host_ip: IPAddress, port: int) -> None:
        """Let go. Idempotent."""
        held = self._held.pop((protocol, host_ip, port), None)
        if held is not None:
            held.close()

    def has(self, protocol: str, host_ip: IPAddress, port: int) -> bool:
        """Whether we hold it."""
        return (protocol, host_ip, port) in self._held

    def held(self) -> frozenset[tuple[str, IPAddress, int]]:
        """All of them."""
        return frozenset(self._held)

    def descriptor(self, protocol: str, host_ip: IPAddress, port: int) -> socket.socket:
        """A second descriptor of the socket that holds a port, which is the caller's to close. Raises KeyError."""
        return self._held[protocol, host_ip, port].dup()

    def close(self) -> None:
        """Let go of everything."""
        for held in self._held.values():
            held.close()
        self._held.clear()


def place_of(host_ip: IPAddress, port: int) -> str:
    """`127.0.0.1:80`, `[::1]:80`."""
    return f"{host_ip}:{port}" if host_ip.version == 4 else f"[{host_ip}]:{port}"


def _bound(protocol: str, host_ip: IPAddress, port: int) -> socket.socket:
    kind, number = _KINDS[protocol]
    try:
        family = socket.AF_INET if host_ip.version == 4 else socket.AF_INET6
        held = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, number)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            raise InvalidArgument(f"failed to bind host port for {host_ip}: this host has no IPv6") from None
        if error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            raise Unavailable(f"the kernel has no {protocol}") from None
        raise InternalError(f"cannot hold a {protocol} port: {error.strerror}") from None
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol != "udp":
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((str(host_ip), port))
        if protocol != "udp":
            held.listen(1)
    except OSError as error:
        held.close()
        place = place_of(host_ip, port)
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"failed to bind host port for {place}/{protocol}: address already in use") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidArgument(
                f"failed to bind host port for {place}/{protocol}: cannot assign requested address"
            ) from None
        raise InternalError(f"failed to bind host port for {place}/{protocol}: {error.strerror}") from None
    return held
