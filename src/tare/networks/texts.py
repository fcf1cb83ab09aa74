"""The texts of a container's files, from the host's own and from what container and engine ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tare.base.errors import InternalError
from tare.networks import files, interfaces
from tare.networks.attachment import FileTexts, NetworkOptions
from tare.networks.files import Resolver
from tare.networks.plan import Mode
from tare.wire.config import ContainerConfig, HostConfig

_HOST_HOSTS = Path("/etc/hosts")
_HOST_RESOLVER = Path("/etc/resolv.conf")
_RESOLVED_RESOLVER = Path("/run/systemd/resolve/resolv.conf")


def compose(
    config: ContainerConfig,
    host: HostConfig,
    *,
    options: NetworkOptions,
    mode: Mode,
    addresses: Sequence[str] = (),
    host_gateway: str = "",
    name_server: str = "",
    links: Sequence[str] = (),
) -> FileTexts:
    """The three files of a container.

    In the host's network the container sees the host's hosts and resolver, plus what it asks for itself.
    name_server: our own, which then is the only one the container asks; "" without one.
    """
    servers = tuple(host.Dns or ()) or options.dns
    search = tuple(host.DnsSearch or ()) or options.dns_search
    keywords = tuple(host.DnsOptions or ()) or options.dns_options
    hostname = files.hostname_file(config.Hostname)
    if mode is Mode.HOST:
        own = files.parse_resolver(_read(_HOST_RESOLVER))
        resolver = Resolver(
            servers=servers or own.servers, search=search or own.search, options=keywords or own.options
        )
        hosts = _read(_HOST_HOSTS) + _extra_lines(host, host_gateway)
        return FileTexts(hosts=hosts, hostname=hostname, resolv_conf=resolver.text)
    resolver = files.container_resolver(
        _host_resolver(), servers=servers, search=search, options=keywords, ipv6=any(":" in a for a in addresses)
    )
    if name_server:
        resolver = files.asking(resolver, name_server)
    hosts = files.hosts(
        hostname=config.Hostname,
        domainname=config.Domainname,
        addresses=addresses,
        extra=host.ExtraHosts or (),
        gateway=host_gateway,
        links=links,
        has_ipv6=interfaces.has_ipv6(host),
    )
    return FileTexts(hosts=hosts, hostname=hostname, resolv_conf=resolver.text)


def host_servers() -> Sequence[str]:
    """The host's own servers, those on its loopback too: they are asked from the host."""
    return files.parse_resolver(_read(_HOST_RESOLVER)).servers or files.FALLBACK_SERVERS


def _extra_lines(host: HostConfig, gateway: str) -> str:
    """The lines that `--add-host` adds to the host's own file."""
    without, with_extra = (
        files.hosts(hostname=""),
        files.hosts(hostname="", extra=host.ExtraHosts or (), gateway=gateway),
    )
    return with_extra.removeprefix(without)


def _host_resolver() -> Resolver:
    resolver = files.parse_resolver(_read(_HOST_RESOLVER))
    if files.is_local_stub(resolver):
        return files.parse_resolver(_read(_RESOLVED_RESOLVER))
    return resolver


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InternalError(f"cannot read {path}: {error.strerror}") from None
