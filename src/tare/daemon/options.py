"""The options of `tare daemon`, under dockerd's names: from the command line and from a configuration file."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, field

from tare.base.errors import InvalidArgument
from tare.base.sizes import parse_bytes
from tare.containers import cdi, logoptions
from tare.daemon.activation import SCHEME
from tare.daemon.exposure import Exposure
from tare.daemon.exposure import resolve as resolve_exposure
from tare.daemon.logs import FORMATS
from tare.drivers.logsinks import JOURNAL
from tare.images.cleanup import NEVER, Policy, parse_policy
from tare.networks import ipam
from tare.registry.hosts import parse_insecure, parse_mirror
from tare.wire.config import LogSettings, Ulimit

DEFAULT_HOST = "unix:///run/tare/tare.sock"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


class Options(Struct, frozen=True, kw_only=True):
    """What the daemon was told. Paths are absolute."""

    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    data_root: Path = Path("/var/lib/tare")
    exec_root: Path = Path("/run/tare")
    pidfile: Path | None = None
    bridge: str = "tare0"
    bip: str = ""
    default_runtime: str = ""
    runtimes: dict[str, tuple[str, ...]] = field(default_factory=dict)  # name → program and its arguments
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    log_level: str = "info"
    userns_remap: str = ""
    cdi_directories: tuple[str, ...] = cdi.DIRECTORIES
    log_driver: str = logoptions.DEFAULT_DRIVER
    log_options: dict[str, str] = field(default_factory=dict)
    journal_socket: Path = JOURNAL
    group: str = "docker"
    iptables: bool = True
    ip_masq: bool = True
    icc: bool = True
    mtu: int = 1500
    ipv6: bool = False
    fixed_cidr_v6: str = ""
    forward_accept: bool = True
    publish_by: str = "nat"
    default_network_options: dict[str, dict[str, str]] = field(default_factory=dict)  # by driver
    ip_forward_no_drop: bool = True
    allow_direct_routing: bool = False
    address_pools: tuple[tuple[ipam.Network, int], ...] = ipam.DEFAULT_POOLS
    ip_forward: bool = True
    host_gateway_ip: str = ""
    default_ulimits: tuple[Ulimit, ...] = ()
    init: bool = False
    live_restore: bool = True
    debug: bool = False
    log_format: str = "text"
    no_new_privileges: bool = False
    allow_private_sources: bool = False
    shutdown_timeout: int = 15
    registry_mirrors: tuple[tuple[str, str], ...] = ()  # (registry domain, URL)
    insecure_registries: tuple[str, ...] = ()
    trusted_realms: tuple[str, ...] = ()
    certificates: Path | None = None
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    registry_timeout: int = 60  # seconds
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    exposure: Exposure = field(default_factory=Exposure)
    image_gc: Policy = NEVER
    builder_cache_size: int = 0  # in bytes; 0: no bound
    max_concurrent_autobuilds: int = 1


_BOOLEANS = (
    "iptables",
    "ip-masq",
    "icc",
    "ipv6",
    "ip-forward",
    "ip-forward-no-drop",
    "forward-accept",
    "allow-direct-routing",
    "init",
    "live-restore",
    "no-new-privileges",
    "allow-private-sources",
)
_PROXIES = ("http-proxy", "https-proxy", "no-proxy")
_LISTS = {
    "hosts": "host",
    "labels": "label",
    "dns-opts": "dns-opt",
    "insecure-registries": "insecure-registry",
    "registry-mirrors": "registry-mirror",
    "default-ulimits": "default-ulimit",
    "cdi-spec-dirs": "cdi-spec-dir",
    "default-address-pools": "default-address-pool",
    "default-network-opts": "default-network-opt",
}


def parser() -> argparse.ArgumentParser:
    """The command line of `tare daemon`."""
    top = argparse.ArgumentParser(
        prog="tare daemon",
        description="Run the container engine in the foreground. It speaks the Docker Engine API on its sockets.",
        allow_abbrev=False,
    )
    add = top.add_argument
    add(
        "-H", "--host", action="append", metavar="URL", help=f"socket to listen on, repeatable (default {DEFAULT_HOST})"
    )
    add("--data-root", metavar="DIR", help="where images, containers and records are kept (default /var/lib/tare)")
    add("--exec-root", metavar="DIR", help="where the state of running containers is kept (default /run/tare)")
    add("-p", "--pidfile", metavar="FILE", help="write the daemon's process id here (default EXEC_ROOT/tare.pid)")
    add(
        "--config-file",
        metavar="FILE",
        help="JSON with these options by their long names (default /etc/tare/daemon.json)",
    )
    add("-b", "--bridge", metavar="NAME", help="the default bridge, made where it is missing; none: no default network")
    add("--bip", metavar="CIDR", help="address and subnet of the default bridge, as 172.20.0.1/16")
    add("--default-runtime", metavar="NAME", help="OCI runtime for containers that name none (default crun, else runc)")
    add("--add-runtime", action="append", metavar="NAME=PATH", help="register another OCI runtime, repeatable")
    add("--dns", action="append", metavar="ADDRESS", help="name server for containers, repeatable")
    add("--dns-search", action="append", metavar="DOMAIN", help="search domain for containers, repeatable")
    add("--dns-opt", action="append", metavar="OPTION", help="resolver option for containers, repeatable")
    add("--label", action="append", metavar="KEY=VALUE", help="label of this engine, shown by info")
    add("-l", "--log-level", metavar="LEVEL", help=f"one of {', '.join(LOG_LEVELS)}")
    add("--log-format", metavar="FORMAT", help="of this daemon's own log: text (default) or json")
    add("-D", "--debug", action="store_const", const=True, help="the same as --log-level debug")
    add(
        "-G",
        "--group",
        metavar="GROUP",
        help="group that may use the unix socket: its members are root (default docker)",
    )
    for name, text in (
        ("iptables", "make packet filter rules (default true)"),
        ("ip-masq", "translate addresses of containers to the outside (default true)"),
        ("icc", "let containers of the default bridge reach each other (default true)"),
        ("ipv6", "give the default bridge an IPv6 subnet too (default false)"),
        ("ip-forward", "let the kernel route between interfaces (default true)"),
        (
            "ip-forward-no-drop",
            "true, as ever: no policy of a chain of the host is set to drop (dockerd's is, by default)",
        ),
        ("allow-direct-routing", "published ports may be reached at containers' own addresses, too (default false)"),
        ("forward-accept", "let our packets pass other people's forward chains that drop by default (default true)"),
        ("init", "put a small init before every container's program (default false)"),
        ("live-restore", "containers go on when the daemon stops (default true)"),
        ("no-new-privileges", "set no_new_privs in every container (default false)"),
        ("allow-private-sources", "let import and build fetch from private and loopback addresses (default false)"),
    ):
        add(f"--{name}", nargs="?", const="true", metavar="BOOL", help=text)
    add(
        "--default-address-pool",
        action="append",
        metavar="base=CIDR,size=BITS",
        help="where subnets of networks come from that name none, repeatable",
    )
    add(
        "--default-network-opt",
        action="append",
        metavar="DRIVER=KEY=VALUE",
        help="option of networks of a driver whose request does not have it, repeatable",
    )
    add(
        "--publish-by",
        metavar="nat|relay",
        help="how published ports reach containers: translated by the packet filter (default nat), or carried by the"
        " engine (relay), so that the host's firewall judges them as it does any service of the host",
    )
    add("--fixed-cidr-v6", metavar="CIDR", help="IPv6 subnet of the default bridge (default: unique-local)")
    add("--host-gateway-ip", metavar="ADDRESS", help="what host-gateway means in --add-host (default: the bridge's)")
    add(
        "--userns-remap",
        metavar="USER[:GROUP]",
        help="map the ids of containers to the subordinate ids of a user (default: those of dockremap, which is made),"
        " or to ids=FIRST:COUNT",
    )
    add(
        "--cdi-spec-dir",
        action="append",
        metavar="DIR",
        help=f"where devices are described (CDI), repeatable; later ones win (default {' '.join(cdi.DIRECTORIES)})",
    )
    add("--log-driver", metavar="NAME", help="how containers are logged that say nothing of it (default json-file)")
    add("--log-opt", action="append", metavar="KEY=VALUE", help="option of that driver, repeatable")
    add("--journal-socket", metavar="FILE", help=f"where the driver journald sends to (default {JOURNAL})")
    add("--mtu", type=int, metavar="BYTES", help="MTU of the default bridge (default 1500)")
    add("--default-ulimit", action="append", metavar="NAME=SOFT:HARD", help="limit for containers that set none")
    add(
        "--registry-mirror",
        action="append",
        metavar="[DOMAIN=]URL",
        help="ask this server first for images of Docker Hub, or of the registry DOMAIN; repeatable",
    )
    add(
        "--insecure-registry",
        action="append",
        metavar="HOST|CIDR",
        help="registry that may be reached without TLS or with an unverified certificate; loopback always may",
    )
    add("--trusted-realm", action="append", metavar="HOST", help="host that any registry may name as its token server")
    add(
        "--certs-dir",
        metavar="DIR",
        help="certificates for registries: DIR/HOST[:PORT]/{*.crt,*.cert,*.key} (default /etc/tare/certs.d, else /etc/docker/certs.d)",
    )
    add("--max-concurrent-downloads", type=int, metavar="N", help="layers fetched at a time (default 3)")
    add("--max-concurrent-uploads", type=int, metavar="N", help="layers sent at a time (default 5)")
    add("--max-download-attempts", type=int, metavar="N", help="tries before a transfer fails (default 5)")
    add("--registry-timeout", type=int, metavar="SECONDS", help="how long a registry may be silent (default 60)")
    add("--http-proxy", metavar="URL", help="proxy for registries without TLS (default $HTTP_PROXY)")
    add("--https-proxy", metavar="URL", help="proxy for registries with TLS (default $HTTPS_PROXY)")
    add("--no-proxy", metavar="HOST,…", help="names, suffixes, addresses, networks without proxy (default $NO_PROXY)")
    add(
        "--image-gc",
        metavar="max-age=30d,max-count=100,max-space=20GB",
        help="remove images by themselves that nobody used for so long, or the longest unused ones beyond a number or a"
        " size; never one a container has, nor one with the label tare.keep (default off)",
    )
    add(
        "--builder-cache-size",
        metavar="SIZE",
        help="keep the build cache within, as 20GB: the longest unused goes first",
    )
    add("--max-concurrent-autobuilds", type=int, metavar="N", help="automated builds that run at a time (default 1)")
    add("--shutdown-timeout", type=int, metavar="SECONDS", help="patience with containers at shutdown (default 15)")
    add(
        "--tlsverify", nargs="?", const="true", metavar="BOOL", help="TCP with TLS, for clients with a certificate only"
    )
    add("--tls", nargs="?", const="true", metavar="BOOL", help="TCP with TLS, whoever the client is")
    for name, text in (
        ("tlscacert", "who signs the certificates of clients (default ~/.docker/ca.pem)"),
        ("tlscert", "our certificate (default ~/.docker/cert.pem)"),
        ("tlskey", "its key (default ~/.docker/key.pem)"),
    ):
        add(f"--{name}", metavar="FILE", help=text)
    add(
        "--insecure-tcp",
        nargs="?",
        const="true",
        metavar="BOOL",
        help="with --tls, or --tls=false: listen on TCP although clients are not verified",
    )
    add("--allowed-host", action="append", metavar="NAME", help="a name by which TCP clients may call us, repeatable")
    return top


def load(argv: Sequence[str]) -> Options:
    """Options from the command line over those of the configuration file. Raises InvalidArgument.

    An option in both places is refused, as dockerd does, so that nobody wonders which one holds.
    """
    given = {
        key.replace("_", "-"): value for key, value in vars(parser().parse_args(argv)).items() if value is not None
    }
    named = given.pop("config-file", None)
    file = Path(named or "/etc/tare/daemon.json")
    configured = read_config_file(file, required=named is not None)
    clash = sorted(set(given) & set(configured))
    if clash:
        raise InvalidArgument(
            "the following directives are specified both as a flag and in the configuration file: " + ", ".join(clash)
        )
    return resolve({**configured, **given})


def read_config_file(path: Path, *, required: bool) -> dict[str, Any]:
    """The file's directives by their flag names. Raises InvalidArgument for bad JSON or an unknown directive."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        if required:
            raise InvalidArgument(f"unable to read the configuration file {path}: no such file") from None
        return {}
    try:
        raw = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise InvalidArgument(f"unable to read the configuration file {path}: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidArgument(f"unable to read the configuration file {path}: expected an object")
    known = {option.removeprefix("--") for action in parser()._actions for option in action.option_strings}
    out: dict[str, Any] = {}
    for key, value in raw.items():
        name = _LISTS.get(key, key)
        if name == "runtimes":
            out["add-runtime"] = [
                "=".join((runtime, " ".join([entry.get("path", ""), *entry.get("runtimeArgs", ())])))
                for runtime, entry in value.items()
            ]
        elif key == "proxies" and isinstance(value, dict):
            unknown = sorted(set(value) - set(_PROXIES))
            if unknown:
                raise InvalidArgument(
                    f"the following directives don't match any configuration option: proxies.{unknown[0]}"
                )
            out.update(value)
        elif key == "log-opts" and isinstance(value, dict):
            out["log-opt"] = [f"{option}={setting}" for option, setting in value.items()]
        elif name == "default-network-opt" and isinstance(value, dict):
            out[name] = _network_option_texts(value)
        elif name in known:
            out[name] = value
        else:
            raise InvalidArgument(f"the following directives don't match any configuration option: {key}")
    return out


def _boolean(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("1", "t", "true"):
        return True
    if str(value).lower() in ("0", "f", "false"):
        return False
    raise InvalidArgument(f'invalid value "{value}" for --{name}: expected true or false')


def resolve(values: dict[str, Any]) -> Options:
    """Check every value and fill in the defaults. Raises InvalidArgument."""
    level = values.get("log-level", "debug" if values.get("debug") else "info")
    if level not in LOG_LEVELS:
        raise InvalidArgument(f"invalid logging level: {level}", hint=f"one of {', '.join(LOG_LEVELS)}")
    log_format = values.get("log-format", "text")
    if log_format not in FORMATS:
        raise InvalidArgument(f"invalid log format: {log_format}", hint=f"one of {', '.join(FORMATS)}")
    hosts = tuple(values.get("host") or (DEFAULT_HOST,))
    for host in hosts:
        check_host(host)
    exposed = resolve_exposure(values, hosts, environ=os.environ)
    bip = values.get("bip", "")
    bridge = values.get("bridge", "tare0")
    if bip:
        try:
            ipaddress.ip_interface(bip)
        except ValueError:
            raise InvalidArgument(
                f"invalid value for --bip: {bip}", hint="give address and prefix: 10.5.0.1/24"
            ) from None
    fixed6 = values.get("fixed-cidr-v6", "")
    if fixed6:
        _check_cidr6(fixed6)
    publish_by = values.get("publish-by", "nat")
    if publish_by not in ("nat", "relay"):
        raise InvalidArgument(f"invalid value for --publish-by: {publish_by}", hint="one of nat, relay")
    exec_root = Path(values.get("exec-root", "/run/tare")).absolute()
    pidfile = values.get("pidfile")
    flags = {name.replace("-", "_"): _boolean(name, values[name]) for name in _BOOLEANS if name in values}
    if not flags.get("ip_forward_no_drop", True):
        raise InvalidArgument(
            "--ip-forward-no-drop=false cannot be: this engine does not set the policy of the host's forward chain",
            hint="set it yourself; what containers exchange passes it all the same (--forward-accept)",
        )
    log = LogSettings(
        Type=values.get("log-driver", logoptions.DEFAULT_DRIVER),
        Config=dict(text.partition("=")[::2] for text in values.get("log-opt") or ()),
    )
    logoptions.check(log)
    return Options(
        hosts=hosts,
        exposure=exposed,
        data_root=Path(values.get("data-root", "/var/lib/tare")).absolute(),
        exec_root=exec_root,
        pidfile=Path(pidfile).absolute() if pidfile else exec_root / "tare.pid",
        bridge=bridge,
        bip=bip,
        publish_by=publish_by,
        default_network_options=_network_options(values.get("default-network-opt") or ()),
        address_pools=tuple(_pools(values.get("default-address-pool"))) or ipam.DEFAULT_POOLS,
        default_runtime=values.get("default-runtime", ""),
        runtimes=dict(_runtime(text) for text in values.get("add-runtime") or ()),
        dns=tuple(_address(text) for text in values.get("dns") or ()),
        dns_search=tuple(values.get("dns-search") or ()),
        dns_options=tuple(values.get("dns-opt") or ()),
        labels=tuple(values.get("label") or ()),
        log_level=level,
        log_format=log_format,
        cdi_directories=tuple(values.get("cdi-spec-dir") or cdi.DIRECTORIES),
        userns_remap=values.get("userns-remap", ""),
        log_driver=log.Type,
        log_options=log.Config or {},
        journal_socket=Path(values.get("journal-socket", JOURNAL)).absolute(),
        group=values.get("group", "docker"),
        default_ulimits=tuple(parse_ulimit(text) for text in _ulimits(values.get("default-ulimit"))),
        debug=level == "debug",
        mtu=int(values.get("mtu", 1500)),
        fixed_cidr_v6=fixed6,
        host_gateway_ip=_address(values["host-gateway-ip"]) if values.get("host-gateway-ip") else "",
        shutdown_timeout=int(values.get("shutdown-timeout", 15)),
        registry_mirrors=tuple(parse_mirror(text) for text in values.get("registry-mirror") or ()),
        insecure_registries=tuple(parse_insecure(text) for text in values.get("insecure-registry") or ()),
        trusted_realms=tuple(text.lower() for text in values.get("trusted-realm") or ()),
        certificates=Path(values["certs-dir"]).absolute() if values.get("certs-dir") else None,
        max_concurrent_downloads=_count("max-concurrent-downloads", values, 3),
        max_concurrent_uploads=_count("max-concurrent-uploads", values, 5),
        max_download_attempts=_count("max-download-attempts", values, 5),
        registry_timeout=_count("registry-timeout", values, 60),
        http_proxy=_proxy("http-proxy", values),
        https_proxy=_proxy("https-proxy", values),
        no_proxy=str(values.get("no-proxy", "")),
        image_gc=parse_policy(values.get("image-gc", "")),
        builder_cache_size=_size("builder-cache-size", values),
        max_concurrent_autobuilds=_count("max-concurrent-autobuilds", values, 1),
        **flags,
    )


def _proxy(name: str, values: dict[str, Any]) -> str:
    """The URL of a proxy, "" for what the environment says. Raises InvalidArgument."""
    text = str(values.get(name, ""))
    try:
        parts = urlsplit(text if "://" in text or not text else f"http://{text}")
        is_right = not text or (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0)
    except ValueError:
        is_right = False
    if not is_right:  # not repeated: there may be a password in it
        raise InvalidArgument(f"invalid value for --{name}", hint="give http://[USER:PASSWORD@]HOST:PORT")
    return text


def _size(name: str, values: dict[str, Any]) -> int:
    """Bytes, 0 where nothing was said."""
    if values.get(name) is None:
        return 0
    try:
        found = parse_bytes(str(values[name]))
    except ValueError:
        found = 0
    if found < 1:
        raise InvalidArgument(f"invalid {name}: {values[name]}: it is a size, as 20GB")
    return found


def _count(name: str, values: dict[str, Any], default: int) -> int:
    try:
        number = int(values.get(name, default))
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise InvalidArgument(f"invalid {name.replace('-', ' ')}: {values.get(name)}")
    return number


def _pools(value: object) -> list[tuple[ipam.Network, int]]:
    """`base=…,size=…` from the command line, or dockerd's `[{"base", "size"}]` from the file."""
    texts = [
        f"base={entry.get('base', '')},size={entry.get('size', '')}" if isinstance(entry, dict) else str(entry)
        for entry in (value if isinstance(value, list) else [])
    ]
    return [ipam.parse_pool(text) for text in texts]


def _network_option_texts(value: dict[str, Any]) -> list[str]:
    """dockerd's `{"bridge": {"KEY": "VALUE"}}` as the command line has it."""
    texts = []
    for driver, options in value.items():
        if not isinstance(options, dict) or not all(isinstance(text, str) for text in options.values()):
            raise InvalidArgument(f"invalid default-network-opts for {driver}: expected an object of strings")
        texts += [f"{driver}={key}={text}" for key, text in options.items()]
    return texts


def _network_options(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """`DRIVER=KEY=VALUE`, by driver. Raises InvalidArgument in dockerd's words."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        parts = str(text).split("=", 2)
        if len(parts) < 3:
            raise InvalidArgument(f'invalid value "{text}" for map option, should be root-key=key=value')
        found.setdefault(parts[0], {})[parts[1]] = parts[2]
    return found


def _check_cidr6(text: str) -> None:
    try:
        if "/" in text and ipaddress.IPv6Network(text).prefixlen <= 126:
            return
    except ValueError:
        pass
    raise InvalidArgument(
        f"invalid value for --fixed-cidr-v6: {text}", hint="give an IPv6 subnet: fd00:1::/64"
    )  # fmt: skip


def check_host(host: str) -> None:
    """Unix and TCP sockets, and those that were passed. Raises InvalidArgument with what to write instead."""
    if host.startswith(("unix:///", "tcp://", SCHEME)):
        return
    raise InvalidArgument(f"invalid bind address ({host})", hint="use unix:///absolute/path")


def _runtime(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, program = text.partition("=")
    if not equals or not name or not program.strip():
        raise InvalidArgument(f'invalid value "{text}" for --add-runtime', hint="write NAME=/path/to/runtime")
    return name, tuple(program.split())


def _ulimits(value: object) -> list[str]:
    """`nofile=1024:2048` from the command line, or dockerd's `{"nofile": {"Name", "Hard", "Soft"}}` from the file."""
    if isinstance(value, dict):
        return [f"{name}={entry.get('Soft', 0)}:{entry.get('Hard', 0)}" for name, entry in value.items()]
    return list(value) if isinstance(value, list) else []


def parse_ulimit(text: str) -> Ulimit:
    """`NAME=SOFT[:HARD]`. Raises InvalidArgument."""
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        return Ulimit(Name=name, Soft=int(soft), Hard=int(hard or soft))
    except ValueError:
        raise InvalidArgument(f"invalid ulimit argument: {text}", hint="write NAME=SOFT:HARD") from None


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise InvalidArgument(f"{text} is not an ip address") from None
