"""Where a registry's servers are and on which terms they are talked to. No input or output.

Source: ENGINE-API 5.3; Go's `httpproxy` (the meaning of NO_PROXY).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct, field

from tare.base.errors import InvalidArgument
from tare.base.reference import DEFAULT_DOMAIN

HUB_HOST = "registry-1.docker.io"
HUB_ADDRESS = "https://index.docker.io/v1/"
HUB_INDEX = "index.docker.io"
_HUB_NAMES = frozenset({"docker.io", HUB_INDEX, HUB_HOST})


class RegistryOptions(Struct, frozen=True, kw_only=True):
    """What the administrator decides.

    mirrors: registry domain → base URLs asked first for pulls. insecure: `host[:port]` or networks that may be reached
    by http or with an unverified certificate. realms: hosts that any registry may name as its token server.
    certificates: directories with `<host[:port]>/{*.crt,*.cert,*.key}`. environment: where proxies are named.
    backoff_s: the pause after the first failed attempt, doubled after each.
    """

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    insecure: tuple[str, ...] = ()
    realms: tuple[str, ...] = ()
    certificates: tuple[Path, ...] = (Path("/etc/tare/certs.d"), Path("/etc/docker/certs.d"))
    environment: Mapping[str, str] = field(default_factory=dict)
    downloads: int = 3
    uploads: int = 5
    attempts: int = 5
    backoff_s: float = 0.5
    connect_timeout_s: float = 15
    idle_timeout_s: float = 60
    index: str = HUB_ADDRESS


class Endpoint(Struct, frozen=True, kw_only=True):
    """One server: `host` with its port, the path in front of `/v2/` (mirrors), and whether its certificate counts."""

    scheme: str
    host: str
    path: str = ""
    is_verified: bool = True
    is_mirror: bool = False

    @property
    def base(self) -> str:
        """What `/v2/…` is appended to."""
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def is_insecure(self) -> bool:
        """Whether it may be, or lead to, a server without TLS."""
        return self.scheme == "http" or not self.is_verified


def domain_of(address: str) -> str:
    """The registry domain of what `docker login` calls a server address. Raises InvalidArgument."""
    text = address.strip()
    if "://" in text:
        text = text.partition("://")[2]
    host = text.partition("/")[0].lower()
    if not host:
        return DEFAULT_DOMAIN
    if "@" in host or any(character.isspace() for character in host):
        raise InvalidArgument(f"invalid registry address: {address[:200]!r}")
    return DEFAULT_DOMAIN if host in _HUB_NAMES else host


def endpoints(domain: str, options: RegistryOptions, *, with_mirrors: bool) -> list[Endpoint]:
    """The servers of a registry in the order in which to try them; at least one."""
    found: list[Endpoint] = []
    if with_mirrors:
        for url in options.mirrors.get(domain, ()):
            parts = urlsplit(url)
            host, path = parts.netloc.rpartition("@")[2], parts.path.rstrip("/")
            is_verified = not (parts.scheme == "http" or is_insecure(host, options))
            found.append(Endpoint(scheme=parts.scheme, host=host, path=path, is_verified=is_verified, is_mirror=True))
    host = HUB_HOST if domain == DEFAULT_DOMAIN else domain
    if not is_insecure(host, options):
        return [*found, Endpoint(scheme="https", host=host)]
    return [
        *found,
        Endpoint(scheme="https", host=host, is_verified=False),
        Endpoint(scheme="http", host=host, is_verified=False),
    ]


def is_insecure(host: str, options: RegistryOptions) -> bool:
    """Whether `host[:port]` is a loopback address, or listed by name, name and port, or network."""
    name = host_name(host)
    address = address_of(name)
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in options.insecure:
        if entry in (host, name):
            return True
        if address is not None and "/" in entry and address in ipaddress.ip_network(entry, strict=False):
            return True
    return False


def host_name(host: str) -> str:
    """`host[:port]` or `[address]:port` without the port, lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address a literal names; None for a name."""
    try:
        return ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return None


def parse_mirror(text: str) -> tuple[str, str]:
    """`URL` (for Docker Hub) or `DOMAIN=URL` as (domain, URL). Raises InvalidArgument."""
    domain, equals, url = text.partition("=")
    if not equals or "://" in domain:
        domain, url = DEFAULT_DOMAIN, text
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidArgument(f"invalid mirror: {text[:200]!r}", hint="write URL, or DOMAIN=URL for another registry")
    if parts.username or parts.password:
        raise InvalidArgument("invalid mirror: credentials in its URL are not used")
    return domain_of(domain), url


def parse_insecure(text: str) -> str:
    """A host, host and port, or network, checked. Raises InvalidArgument."""
    entry = text.strip().lower()
    if "://" in entry:
        raise InvalidArgument(f"insecure registry {text[:200]} should not contain '://'")
    if "/" in entry:
        try:
            return str(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            raise InvalidArgument(
                f"insecure registry {text[:200]} is not valid: neither a host nor a network"
            ) from None
    if not entry:
        raise InvalidArgument("insecure registry: the name is empty")
    return entry


# --- who may be told what


def may_authenticate(endpoint: Endpoint, realm: str, options: RegistryOptions) -> bool:
    """Whether credentials for the registry may go to its token server `realm`.

    https if the registry has it; the same host, the same registrable domain (taken as the last two labels), or a host
    the administrator named.
    """
    parts = urlsplit(realm)
    name, own = (parts.hostname or "").lower(), host_name(endpoint.host)
    if parts.scheme not in ("http", "https") or not name or parts.username:
        return False
    if parts.scheme == "http" and not endpoint.is_insecure:
        return False
    if name == own or name in options.realms or parts.netloc.lower() in options.realms:
        return True
    if address_of(name) or address_of(own):
        return False
    return len(own.split(".")) > 1 and own.split(".")[-2:] == name.split(".")[-2:]


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials are bound to."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """The proxy for a URL, as Go's programs choose it: never for loopback; NO_PROXY names suffixes, addresses, networks."""
    scheme, name, port = origin(url)

    def setting(key: str) -> str:
        return environment.get(key.upper(), "") or environment.get(key, "")

    proxy = setting(f"{scheme}_proxy")
    address = address_of(name)
    if not proxy or name == "localhost" or (address is not None and address.is_loopback):
        return None
    for raw in setting("no_proxy").split(","):
        entry = raw.strip().lower()
        if entry == "*" or (entry and _is_excepted(entry, name, port)):
            return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_excepted(entry: str, name: str, port: int) -> bool:
    address = address_of(name)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    rest, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit() and rest.count(":") == 0:
        if int(wanted) != port:
            return False
        entry = rest
    bare = entry.removeprefix("*")
    return name.endswith(bare) if bare.startswith(".") else name == bare or name.endswith(f".{bare}")


__all__ = [
    "Endpoint",
    "RegistryOptions",
    "address_of",
    "domain_of",
    "endpoints",
    "host_name",
    "is_insecure",
    "may_authenticate",
    "origin",
    "parse_insecure",
    "parse_mirror",
    "proxy_for",
]
