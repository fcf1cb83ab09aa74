"""Published ports: from what a container asks for to what is to be held and mapped. Pure.

Source: Docker's PortBindings ("80/tcp": [{HostIp, HostPort}]) and PublishAllPorts; W74.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct
from msgspec.structs import replace

from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.wire.config import ContainerConfig, HostConfig, PortBinding

PROTOCOLS = ("tcp", "udp", "sctp")
IPAddress = IPv4Address | IPv6Address
ANY: tuple[IPAddress, ...] = (IPv4Address("0.0.0.0"), IPv6Address("::"))
_MAX_PORT = 65535


def opened_at(version: int) -> IPAddress:
    """What stands for the host's address where a port is reached at the container's own, by its family (4, 6)."""
    return ANY[0] if version == 4 else ANY[1]


class PortWish(Struct, frozen=True, kw_only=True):
    """One host side of a port. `first` 0: any free port of the host; host_ip None: where the network publishes."""

    protocol: str
    port: int
    host_ip: IPAddress | None = None
    first: int = 0
    last: int = 0

    @property
    def name(self) -> str:
        """`80/tcp`."""
        return f"{self.port}/{self.protocol}"


def wishes(config: ContainerConfig, host: HostConfig) -> list[PortWish]:
    """Every port to publish, fixed ones first, so that an ephemeral one cannot take theirs. Raises InvalidArgument."""
    found: list[PortWish] = []
    named: set[tuple[int, str]] = set()
    for name, bindings in (host.PortBindings or {}).items():
        port, protocol = parse_port(name)
        named.add((port, protocol))
        for binding in bindings or [PortBinding()]:
            first, last = _range(binding.HostPort)
            found.append(
                PortWish(protocol=protocol, port=port, host_ip=_host_ip(binding.HostIp), first=first, last=last)
            )
    if host.PublishAllPorts and isinstance(config.ExposedPorts, dict):
        for name in config.ExposedPorts:
            port, protocol = parse_port(name)
            if (port, protocol) not in named:
                found.append(PortWish(protocol=protocol, port=port))
    return sorted(found, key=order)


def order(wish: PortWish) -> tuple[bool, int, int, str]:
    """Fixed ports, then ranges by their width, then ephemeral ones."""
    return wish.first == 0, wish.last - wish.first, wish.port, wish.protocol


def again(wanted: Sequence[PortWish], published: Sequence[Published], default_ip: str) -> list[PortWish]:
    """To publish again what was published, perhaps on another network: numbers of the host stay.

    A wish of which the host had no part, or in one family only, stays what it is but for the number.
    """
    found: list[PortWish] = []
    for wish, entries in owners(wanted, published, default_ip):
        numbers = [entry.host_port for entry in entries if entry.host_port]
        if numbers and len(numbers) == len(entries):
            found += [wish_of(entry) for entry in entries]
        elif numbers:
            found.append(replace(wish, first=numbers[0], last=numbers[0]))
        else:
            found.append(wish)
    return sorted(found, key=order)


def wish_of(entry: Published) -> PortWish:
    """To publish again what was published at the host."""
    return PortWish(
        protocol=entry.protocol,
        port=entry.port,
        host_ip=entry.host_ip,
        first=entry.host_port,
        last=entry.host_port,
    )


def owners(
    wanted: Sequence[PortWish], published: Sequence[Published], default_ip: str
) -> list[tuple[PortWish, list[Published]]]:
    """Which wish each published port answers: those with fixed numbers take theirs first.

    wanted: in the order of `wishes`. default_ip: as in `host_ips`. What is reached at the container's own address has
    no number of the host: of that a wish takes one in each family.
    """
    left = list(published)
    found: list[tuple[PortWish, list[Published]]] = []
    for wish in wanted:
        ips = host_ips(wish, default_ip)
        fitting = [
            entry
            for entry in left
            if entry.host_port
            and (entry.port, entry.protocol) == (wish.port, wish.protocol)
            and entry.host_ip in ips
            and (not wish.first or wish.first <= entry.host_port <= wish.last)
        ]
        mine = [entry for entry in fitting if entry.host_port == fitting[0].host_port]
        for version in sorted({ip.version for ip in ips}):
            opened = Published(protocol=wish.protocol, port=wish.port, host_ip=opened_at(version), host_port=0)
            mine += [opened] if opened in left else []
        left = less(left, mine)
        found.append((wish, mine))
    return found


def less(published: Sequence[Published], gone: Sequence[Published]) -> list[Published]:
    """What is left: of equal ones as many go as are gone."""
    left = list(published)
    for entry in gone:
        if entry in left:
            left.remove(entry)
    return left


def parse_port(text: str) -> tuple[int, str]:
    """`80/tcp` or `80`. Raises InvalidArgument."""
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid port specification: {text!r}: unknown protocol {protocol}")
    return _number(number, text), protocol


def _number(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= _MAX_PORT:
        raise InvalidArgument(f'invalid port specification: "{whole}"')
    return int(text)


def _range(text: str) -> tuple[int, int]:
    if text in ("", "0"):
        return 0, 0
    start, dash, end = text.partition("-")
    first = _number(start, text)
    last = _number(end, text) if dash else first
    if last < first:
        raise InvalidArgument(f'invalid port specification: "{text}"')
    return first, last


def _host_ip(text: str) -> IPAddress | None:
    if not text:
        return None
    try:
        return ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None


def host_ips(wish: PortWish, default: str) -> tuple[IPAddress, ...]:
    """At which addresses of the host a port is published: both families where neither wish nor network says which.

    default: the network's option; "" and 0.0.0.0 mean every address.
    """
    if wish.host_ip is not None:
        return (wish.host_ip,)
    own = ipaddress.ip_address(default) if default else ANY[0]
    return ANY if own.is_unspecified else (own,)


class Published(Struct, frozen=True, kw_only=True):
    """A port that is published: what the host has at (host_ip, host_port) is `port` of the container.

    host_port 0: the host has nothing; the port is open at the container's own address, of the family of host_ip.
    """

    protocol: str
    port: int
    host_ip: IPAddress
    host_port: int


def bindings(published: Sequence[Published]) -> dict[str, list[PortBinding] | None]:
    """The published part of `NetworkSettings.Ports`."""
    found: dict[str, list[PortBinding] | None] = {}
    opened = {(entry.port, entry.protocol) for entry in published if not entry.host_port}
    for entry in sorted(published, key=lambda entry: _place(entry, by_family=(entry.port, entry.protocol) in opened)):
        binding = PortBinding(HostIp=str(entry.host_ip), HostPort=str(entry.host_port or ""))
        known = found.setdefault(f"{entry.port}/{entry.protocol}", [])
        assert known is not None
        known.append(binding)
    return found


def _place(entry: Published, *, by_family: bool) -> tuple[int, str, int, int]:
    last = entry.host_port, entry.host_ip.version
    return (entry.port, entry.protocol, *(reversed(last) if by_family else last))


def published_of(ports: Mapping[str, list[PortBinding] | None]) -> list[Published]:
    """What `bindings` said, read back from a record."""
    return [
        Published(
            protocol=parse_port(name)[1],
            port=parse_port(name)[0],
            host_ip=ipaddress.ip_address(binding.HostIp),
            host_port=int(binding.HostPort or 0),
        )
        for name, found in ports.items()
        for binding in found or ()
    ]


Bindings = Mapping[str, list[PortBinding] | None]


def edited(
    asked: Bindings, *, add: Bindings, remove: Bindings, published: Bindings
) -> dict[str, list[PortBinding] | None]:
    """`PortBindings` after some were taken away, then some added.

    remove: an empty list takes every binding of a port away; HostIp "" means any. An ephemeral binding is named by
    the number it got, which `published` (`NetworkSettings.Ports`) tells. Raises NotFound, Conflict, InvalidArgument.
    """
    found = {_key(name): list(given or [PortBinding()]) for name, given in asked.items()}
    for name, gone in remove.items():
        key = _key(name)
        if key not in found:
            raise NotFound(f"port {key} is not published")
        for binding in gone or list(found[key]):
            _take(found[key], binding, key, list(published.get(key) or ()))
        if not found[key]:
            del found[key]
    for name, new in add.items():
        present = found.setdefault(_key(name), [])
        for binding in new or [PortBinding()]:
            if _range(binding.HostPort)[0] and binding in present:
                raise Conflict(f"port {_key(name)} is published at {_where(binding)} already")
            present.append(binding)
    return dict(found)


def _key(name: str) -> str:
    port, protocol = parse_port(name)
    return f"{port}/{protocol}"


def _where(binding: PortBinding) -> str:
    return f"{binding.HostIp}:{binding.HostPort}" if binding.HostIp else binding.HostPort


def _take(present: list[PortBinding], gone: PortBinding, key: str, published: Sequence[PortBinding]) -> None:
    fitting = [binding for binding in present if gone.HostIp in ("", binding.HostIp)]
    for binding in fitting:
        if binding.HostPort == gone.HostPort:
            present.remove(binding)
            return
    number = _range(gone.HostPort)[0]
    if number and any(entry.HostPort == gone.HostPort for entry in published):
        for binding in fitting:
            first, last = _range(binding.HostPort)
            if first and not first <= number <= last:
                continue
            present.remove(binding)
            _pin(present, binding, gone.HostPort, published)
            return
    raise NotFound(f"port {key} is not published at {_where(gone)}")


def _pin(present: list[PortBinding], like: PortBinding, gone: str, published: Sequence[PortBinding]) -> None:
    """Others that asked for any number keep those they got: which one was meant must not be guessed later."""
    numbers = dict.fromkeys(entry.HostPort for entry in published if entry.HostPort not in ("", gone))
    taken = {binding.HostPort for binding in present}
    free = [number for number in numbers if number not in taken]
    for place, binding in enumerate(present):
        if binding == like and free:
            present[place] = PortBinding(HostIp=binding.HostIp, HostPort=free.pop(0))
