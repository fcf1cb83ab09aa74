"""What containers ask of the networks and what they are given: the values the service takes and returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from tare.drivers.network.nft import Listener
from tare.networks import ipam
from tare.networks.plan import Mode
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig, PortBinding


class NetworkOptions(Struct, frozen=True, kw_only=True):
    """What the daemon's options say. bridge "none": no default network.

    ipv6, fixed_cidr_v6: of the default network. forward_accept: put rules into chains of others that would drop what
    we forward. listeners: TCP sockets of the engine, which no container reaches. seed: what our unique-local IPv6
    prefix is made from. pools: where subnets come from that nobody names, with their prefix lengths. is_relayed:
    published ports are served by sockets of the engine, which the host's firewall judges like any other.
    allow_direct_routing: published ports are also reached at containers' own addresses. default_options: by driver, what
    a network's options say where its request does not.
    """

    bridge: str = "tare0"
    bip: str = ""
    iptables: bool = True
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    mtu: int = 1500
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    host_gateway: str = ""
    ipv6: bool = False
    fixed_cidr_v6: str = ""
    forward_accept: bool = True
    listeners: tuple[Listener, ...] = ()
    pools: tuple[tuple[ipam.Network, int], ...] = ipam.DEFAULT_POOLS
    is_relayed: bool = False
    allow_direct_routing: bool = False
    default_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    seed: str = ""


class FileTexts(Struct, frozen=True, kw_only=True):
    """/etc/hosts, /etc/hostname and /etc/resolv.conf of a container."""

    hosts: str = ""
    hostname: str = ""
    resolv_conf: str = ""


class Attachment(Struct, frozen=True, kw_only=True):
    """What a container was given. `path` None: the host's namespace. `endpoints` by network name.

    `ports` is the published part of `NetworkSettings.Ports`.
    """

    mode: Mode
    path: str | None = None
    endpoints: dict[str, EndpointSettings] = field(default_factory=dict)
    files: FileTexts = FileTexts()
    ports: dict[str, list[PortBinding] | None] = field(default_factory=dict)

    @property
    def addresses(self) -> list[str]:
        """The container's own addresses, in the order of its networks."""
        return addresses_of(self.endpoints.values())


class Wish(Struct, frozen=True, kw_only=True):
    """What a container that starts asks for. `joined` is the id of the container named by `container:NAME`.

    `config.Hostname` is the name it will have; `endpoints` is `NetworkingConfig.EndpointsConfig` or the record's;
    `links` are lines for /etc/hosts, one for each container linked on the default network.
    """

    container_id: str
    name: str
    config: ContainerConfig
    host: HostConfig
    endpoints: Mapping[str, EndpointSettings | None] = field(default_factory=dict)
    joined: str | None = None
    links: tuple[str, ...] = ()
    bare_namespace: int | None = None  # a descriptor of the network namespace to be furnished; None: make one


class RunningContainer(Struct, frozen=True, kw_only=True):
    """What `restore` needs to know of a container that outlived the engine: its first process and what it held."""

    wish: Wish
    pid: int
    endpoints: Mapping[str, EndpointSettings]
    ports: Mapping[str, list[PortBinding] | None] = field(default_factory=dict)


class Member(Struct, frozen=True, kw_only=True):
    """One endpoint as a network sees it."""

    container_id: str
    container_name: str
    settings: EndpointSettings


def addresses_of(endpoints: Iterable[EndpointSettings]) -> list[str]:
    """Their addresses, IPv4 before IPv6 on each network."""
    return [text for e in endpoints for text in (e.IPAddress, e.GlobalIPv6Address) if text]


def dns_names(name: str, settings: EndpointSettings, *, container_id: str, hostname: str) -> list[str]:
    """By which names others find a container on a user's network: name, aliases, short id, host name; each once."""
    return list(dict.fromkeys(n for n in (name, *(settings.Aliases or ()), container_id[:12], hostname) if n))
