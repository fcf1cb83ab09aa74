"""The three files a container gets from the engine: /etc/hosts, /etc/hostname, /etc/resolv.conf. Pure texts.

Source: hosts(5), resolv.conf(5); layout of the texts as dockerd writes them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from msgspec import Struct

FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")
RESOLVED_STUB = "127.0.0.53"
_HOSTS = """\
127.0.0.1\tlocalhost
"""
_HOSTS6 = """\
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


class Resolver(Struct, frozen=True, kw_only=True):
    """The contents of a resolv.conf, comments and unknown keywords dropped."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As a file."""
        lines = [f"nameserver {server}" for server in self.servers]
        if self.search:
            lines.append("search " + " ".join(self.search))
        if self.options:
            lines.append("options " + " ".join(self.options))
        return "\n".join(lines) + "\n" if lines else ""


def parse_resolver(text: str) -> Resolver:
    """Read a resolv.conf as libc does: the last `search` or `domain` counts."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += words[1:]
    return Resolver(servers=tuple(servers), search=search, options=tuple(options))


def is_local_stub(resolver: Resolver) -> bool:
    """Whether the host asks only itself by systemd-resolved: its real servers are then in another file."""
    return bool(resolver.servers) and all(server == RESOLVED_STUB for server in resolver.servers)


def container_resolver(
    host: Resolver,
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    ipv6: bool = False,
) -> Resolver:
    """The resolver of a container in a network of its own.

    What is asked for (container first, then engine) replaces the host's. The host's loopback servers are dropped,
    since loopback is another place inside; so are IPv6 ones without IPv6. With none left the public fallback is used.
    search `.` means none.
    """
    chosen = tuple(servers) or tuple(s for s in host.servers if _is_reachable(s, ipv6=ipv6)) or FALLBACK_SERVERS
    domains = tuple(search) or host.search
    return Resolver(
        servers=chosen, search=tuple(d for d in domains if d != "."), options=tuple(options) or host.options
    )


def _is_reachable(server: str, *, ipv6: bool) -> bool:
    try:
        address = ipaddress.ip_address(server.partition("%")[0])
    except ValueError:
        return False
    return not address.is_loopback and (ipv6 or address.version == 4)


def hosts(
    *,
    hostname: str,
    domainname: str = "",
    addresses: Sequence[str] = (),
    extra: Sequence[str] = (),
    gateway: str = "",
    links: Sequence[str] = (),
    has_ipv6: bool = True,
) -> str:
    """The text of /etc/hosts.

    addresses: the container's own, in order. links: lines (`address<tab>names`) for linked containers. extra: `name:address` or `name=address`; the address `host-gateway`
    becomes `gateway` (left out when there is none). has_ipv6: else nothing is said of the loopback's IPv6.
    """
    lines = [_HOSTS, _HOSTS6] if has_ipv6 else [_HOSTS]
    for entry in extra:
        name, _, address = entry.partition("=" if "=" in entry else ":")
        address = address.removeprefix("[").removesuffix("]")
        if address == "host-gateway":
            address = gateway
        if address:
            lines.append(f"{address}\t{name}\n")
    lines += [f"{line}\n" for line in links]
    names = own_names(hostname, domainname)
    lines += [f"{address}\t{names}\n" for address in addresses if names]
    return "".join(lines)


def own_names(hostname: str, domainname: str = "") -> str:
    """The names a container gives its own addresses in /etc/hosts."""
    names = hostname
    if domainname:
        names = f"{hostname}.{domainname} {hostname}"
    elif "." in hostname:
        names = f"{hostname} {hostname.partition('.')[0]}"
    return names


def asking(resolver: Resolver, server: str) -> Resolver:
    """The same resolver with every question sent to `server`, single names included."""
    options = resolver.options
    if not any(option.startswith("ndots:") for option in options):
        options = (*options, "ndots:0")
    return Resolver(servers=(server,), search=resolver.search, options=options)


def hostname_file(hostname: str) -> str:
    """The text of /etc/hostname."""
    return f"{hostname}\n"
