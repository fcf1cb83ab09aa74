"""The flags of `run` and `create`, and the body of the create request they stand for.

The body is what the stock docker sends for the same words, field by field, zero values included: clients that look at
what a container was asked to be (Ansible, Chef) compare these.
"""

from __future__ import annotations

from tare.cli import flags, mountspec
from tare.cli.flags import BOOL, BYTES, DECIMAL, DURATION, INT, INT64, LIST, MAP, STRING, UINT, UINT16, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeAlias

    Object: TypeAlias = "dict[str, Any]"

_RESOURCES, _NET, _STORAGE, _HEALTH = "Limits", "Network", "Storage", "Health checks"
_SECURITY, _OTHER = "Isolation and privileges", "Other systems (accepted, without effect on Linux)"
_PROCESS = "Process"


def _attach(text: str) -> None:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")


def _address(text: str) -> None:
    if not mountspec.is_address(text.strip()):
        raise ValueError(f"IP address is not correctly formatted: {text}")


def check_host(text: str) -> None:
    """Refuse an --add-host that is not name:address. Raises ValueError."""
    name, separator, address = _split_host(text)
    if not name or not separator:
        raise ValueError(f'bad format for add-host: "{text}"')
    if address != "host-gateway" and not mountspec.is_address(address):
        raise ValueError(f'invalid IP address in add-host: "{address}"')


def _split_host(text: str) -> tuple[str, str, str]:
    equals, colon = text.find("="), text.find(":")
    at = equals if equals >= 0 and (colon < 0 or equals < colon) else colon
    if at < 0:
        return text, "", ""
    return text[:at], text[at], text[at + 1 :].removeprefix("[").removesuffix("]")


def check_env(text: str) -> None:
    """Refuse a variable without a name. Raises ValueError."""
    if not text or text.startswith("="):
        raise ValueError(f"invalid environment variable: {text}")


def _link(text: str) -> None:
    parts = text.split(":")
    if not text:
        raise ValueError("empty string specified for links")
    if len(parts) > 2:
        raise ValueError(f"bad format for links: {text}")


def _cgroup_rule(text: str) -> None:
    import re

    if not re.match(r"^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$", text):
        raise ValueError(f"invalid device cgroup format '{text}'")


_DNS_LABEL = r"[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9]"


def _dns_search(text: str) -> None:
    if text.strip() == ".":
        return
    import re

    if not re.match(
        rf"^(:?[a-zA-Z0-9]|{_DNS_LABEL})(:?\.(:?[a-zA-Z0-9]|{_DNS_LABEL}))*\.?\s*$",
        text.strip(),
    ):
        raise ValueError(f"{text} is not a valid domain")


def _rate_bytes(text: str) -> None:
    mountspec.device_rate(text, in_bytes=True)


def _rate(text: str) -> None:
    mountspec.device_rate(text, in_bytes=False)


def _sysctl(text: str) -> None:
    if "=" not in text:
        raise ValueError(f"sysctl '{text}' is not allowed")


FLAGS = (
    Flag(
        "add-host",
        "",
        LIST,
        "A line for /etc/hosts, host:address; the address may be host-gateway",
        group=_NET,
        check=check_host,
    ),
    Flag("annotation", "", MAP, "An annotation handed through to the OCI runtime, key=value"),
    Flag("attach", "a", LIST, "Attach to stdin, stdout or stderr only", check=_attach),
    Flag("blkio-weight", "", UINT16, "Share of block I/O, 10 to 1000; 0 leaves it to the kernel", group=_RESOURCES),
    Flag(
        "blkio-weight-device",
        "",
        flags.DEVICE_WEIGHT,
        "Share of block I/O on one device, path:weight",
        group=_RESOURCES,
        check=mountspec.device_weight,
    ),
    Flag("cap-add", "", LIST, "Give a capability of the kernel, or ALL", group=_SECURITY),
    Flag("cap-drop", "", LIST, "Take a capability of the kernel away, or ALL", group=_SECURITY),
    Flag("cgroup-parent", "", STRING, "Parent of the container's cgroup", group=_RESOURCES),
    Flag("cgroupns", "", STRING, "Cgroup namespace: host or private", group=_SECURITY),
    Flag("cidfile", "", STRING, "Write the container's id to this new file"),
    Flag("cpu-count", "", INT, "Number of processors (Windows)", group=_OTHER),
    Flag("cpu-percent", "", INT, "Percentage of processors (Windows)", group=_OTHER),
    Flag("cpu-period", "", INT64, "Length of the scheduler's accounting period in microseconds", group=_RESOURCES),
    Flag("cpu-quota", "", INT64, "Processor time per period in microseconds", group=_RESOURCES),
    Flag("cpu-rt-period", "", INT64, "Length of the real-time period in microseconds", group=_RESOURCES),
    Flag("cpu-rt-runtime", "", INT64, "Real-time budget per period in microseconds", group=_RESOURCES),
    Flag("cpu-shares", "c", INT64, "Weight of the container when processors are scarce", group=_RESOURCES),
    Flag("cpus", "", DECIMAL, "How many processors' worth of time, 0.5 or 2", group=_RESOURCES),
    Flag("cpuset-cpus", "", STRING, "Processors to run on, as 0-3 or 0,1", group=_RESOURCES),
    Flag("cpuset-mems", "", STRING, "Memory nodes to use, as 0-3 or 0,1", group=_RESOURCES),
    Flag("device", "", LIST, "Give a device of this machine, path[:path inside][:rwm]", group=_STORAGE),
    Flag("device-cgroup-rule", "", LIST, "Add a rule for devices, as 'c 1:3 mr'", group=_SECURITY, check=_cgroup_rule),
    Flag(
        "device-read-bps",
        "",
        flags.DEVICE_RATE,
        "Limit reading from a device, path:bytes a second",
        group=_RESOURCES,
        check=_rate_bytes,
    ),
    Flag(
        "device-read-iops",
        "",
        flags.DEVICE_RATE,
        "Limit reading from a device, path:operations a second",
        group=_RESOURCES,
        check=_rate,
    ),
    Flag(
        "device-write-bps",
        "",
        flags.DEVICE_RATE,
        "Limit writing to a device, path:bytes a second",
        group=_RESOURCES,
        check=_rate_bytes,
    ),
    Flag(
        "device-write-iops",
        "",
        flags.DEVICE_RATE,
        "Limit writing to a device, path:operations a second",
        group=_RESOURCES,
        check=_rate,
    ),
    Flag(
        "disable-content-trust",
        "",
        BOOL,
        "Accepted for compatibility; digests are always verified",
        default=True,
        hidden=True,
    ),
    Flag("dns", "", LIST, "Address of a name server", group=_NET, check=_address),
    Flag("dns-opt", "", LIST, "An option for resolv.conf", group=_NET, of="dns-option", hidden=True),
    Flag("dns-option", "", LIST, "An option for resolv.conf", group=_NET),
    Flag("dns-search", "", LIST, "A search domain for resolv.conf", group=_NET, check=_dns_search),
    Flag("domainname", "", STRING, "NIS domain name of the container", group=_NET),
    Flag("entrypoint", "", STRING, "Run this instead of the image's entry point; empty for none", group=_PROCESS),
    Flag(
        "env",
        "e",
        LIST,
        "Set an environment variable, name=value; without = the value of this shell",
        group=_PROCESS,
        check=check_env,
    ),
    Flag("env-file", "", LIST, "Read environment variables from a file, one a line", group=_PROCESS),
    Flag("expose", "", LIST, "Mark a port, or a range of ports, as served", group=_NET),
    Flag(
        "gpus",
        "",
        flags.GPUS,
        "GPUs to hand to the container: all, a count, or device=…",
        group=_STORAGE,
        check=mountspec.gpus,
    ),
    Flag("group-add", "", LIST, "A further group of the process", group=_PROCESS),
    Flag("health-cmd", "", STRING, "Shell command that tells whether the container works", group=_HEALTH),
    Flag("health-interval", "", DURATION, "Time between two checks, as 30s or 1m", group=_HEALTH),
    Flag("health-retries", "", INT, "Failures in a row that make it unhealthy", group=_HEALTH),
    Flag("health-start-interval", "", DURATION, "Time between two checks while it starts", group=_HEALTH, since="1.44"),
    Flag(
        "health-start-period",
        "",
        DURATION,
        "Time to start in, during which failures do not count",
        group=_HEALTH,
        since="1.29",
    ),
    Flag("health-timeout", "", DURATION, "Time one check may take", group=_HEALTH),
    Flag("help", "", BOOL, "Show this text"),
    Flag("hostname", "h", STRING, "Host name inside the container", group=_NET),
    Flag("init", "", BOOL, "Run a small init that reaps processes and passes signals on", group=_PROCESS),
    Flag("interactive", "i", BOOL, "Keep stdin open even when nothing is attached"),
    Flag("io-maxbandwidth", "", BYTES, "Limit of I/O bandwidth (Windows)", group=_OTHER),
    Flag("io-maxiops", "", UINT, "Limit of I/O operations (Windows)", group=_OTHER),
    Flag("ip", "", STRING, "IPv4 address on the network", group=_NET),
    Flag("ip6", "", STRING, "IPv6 address on the network", group=_NET),
    Flag("ipc", "", STRING, "IPC namespace: private, shareable, host, none, container:NAME", group=_SECURITY),
    Flag("isolation", "", STRING, "Isolation technology (Windows)", group=_OTHER),
    Flag("kernel-memory", "", BYTES, "Limit of kernel memory; the kernel has dropped it", group=_OTHER),
    Flag("label", "l", LIST, "A label, name=value"),
    Flag("label-file", "", LIST, "Read labels from a file, one a line"),
    Flag("link", "", LIST, "Make another container known under its name, NAME[:ALIAS]", group=_NET, check=_link),
    Flag("link-local-ip", "", LIST, "A link-local address", group=_NET, check=_address),
    Flag("log-driver", "", STRING, "Where the output is logged", group="Logging"),
    Flag("log-opt", "", LIST, "An option of the log driver, key=value", group="Logging"),
    Flag("mac-address", "", STRING, "Hardware address on the network", group=_NET),
    Flag("memory", "m", BYTES, "Limit of memory, as 512m or 2g", group=_RESOURCES),
    Flag(
        "memory-reservation", "", BYTES, "Memory the container should get back to when it is scarce", group=_RESOURCES
    ),
    Flag("memory-swap", "", BYTES, "Limit of memory and swap together; -1 for unlimited swap", group=_RESOURCES),
    Flag("memory-swappiness", "", INT64, "How readily memory is swapped out, 0 to 100", group=_RESOURCES, default=-1),
    Flag(
        "mount", "", flags.MOUNT, "Mount something, as type=bind,src=/a,dst=/b", group=_STORAGE, check=mountspec.mount
    ),
    Flag("name", "", STRING, "Name of the container"),
    Flag(
        "net",
        "",
        flags.NETWORK,
        "The network to plug into",
        group=_NET,
        of="network",
        hidden=True,
        check=mountspec.network,
    ),
    Flag("net-alias", "", LIST, "A further name on the network", group=_NET, of="network-alias", hidden=True),
    Flag(
        "network",
        "",
        flags.NETWORK,
        "The network to plug into: bridge, none, host, container:NAME, or a network's name",
        group=_NET,
        check=mountspec.network,
    ),
    Flag("network-alias", "", LIST, "A further name on the network", group=_NET),
    Flag("no-healthcheck", "", BOOL, "Do not run the health check of the image", group=_HEALTH),
    Flag("oom-kill-disable", "", BOOL, "Do not kill its processes when memory runs out", group=_RESOURCES),
    Flag("oom-score-adj", "", INT, "How readily the kernel kills it, -1000 to 1000", group=_RESOURCES),
    Flag("pid", "", STRING, "Process namespace: host or container:NAME", group=_SECURITY),
    Flag("pids-limit", "", INT64, "Limit of processes; -1 for none", group=_RESOURCES),
    Flag("platform", "", STRING, "Platform of the image, os/architecture[/variant]"),
    Flag("privileged", "", BOOL, "Take the walls down: all capabilities, all devices", group=_SECURITY),
    Flag("publish", "p", flags.PUBLISH, "Publish a port, [address:][port:]port[/protocol]", group=_NET),
    Flag("publish-all", "P", BOOL, "Publish all exposed ports on free ports", group=_NET),
    Flag("pull", "", STRING, "When to fetch the image: always, missing, never", default="missing"),
    Flag("quiet", "q", BOOL, "Say nothing while fetching the image"),
    Flag("read-only", "", BOOL, "Mount the root file system read-only", group=_STORAGE),
    Flag(
        "restart", "", STRING, "What to do when it exits: no, always, unless-stopped, on-failure[:count]", default="no"
    ),
    Flag("rm", "", BOOL, "Remove the container and its unnamed volumes when it exits"),
    Flag("runtime", "", STRING, "OCI runtime to use"),
    Flag(
        "security-opt",
        "",
        LIST,
        "A security option: no-new-privileges, seccomp=FILE, apparmor=…, label=…",
        group=_SECURITY,
    ),
    Flag("shm-size", "", BYTES, "Size of /dev/shm, 64m by default", group=_RESOURCES),
    Flag("stop-signal", "", STRING, "Signal that asks it to stop", group=_PROCESS),
    Flag("stop-timeout", "", INT, "Seconds to wait after that signal", group=_PROCESS),
    Flag("storage-opt", "", LIST, "An option of the storage driver, key=value", group=_STORAGE),
    Flag("sysctl", "", MAP, "Set a kernel parameter of its namespaces, name=value", group=_SECURITY, check=_sysctl),
    Flag("tmpfs", "", LIST, "Mount a file system in memory, path[:options]", group=_STORAGE),
    Flag("tty", "t", BOOL, "Give the process a terminal"),
    Flag("ulimit", "", flags.ULIMIT, "A resource limit, name=soft[:hard]", group=_RESOURCES, check=mountspec.ulimit),
    Flag("use-api-socket", "", BOOL, "Mount the engine's socket inside (not supported)", hidden=True),
    Flag("user", "u", STRING, "User and group of the process, name or number[:group]", group=_PROCESS),
    Flag("userns", "", STRING, "User namespace: host", group=_SECURITY),
    Flag("uts", "", STRING, "Host name namespace: host", group=_SECURITY),
    Flag("volume", "v", LIST, "Mount a volume or a directory, [source:]path[:options]", group=_STORAGE),
    Flag("volume-driver", "", STRING, "Driver of volumes made on the way", group=_STORAGE),
    Flag("volumes-from", "", LIST, "Mount the volumes of another container too", group=_STORAGE),
    Flag("workdir", "w", STRING, "Working directory of the process", group=_PROCESS),
)


class Spec:
    """What create is asked for: the body, and the query parameters `name` and `platform`."""

    def __init__(self, body: Object, name: str, platform: str) -> None:
        self.body = body
        self.name = name
        self.platform = platform


WINDOWS_ONLY = ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops")


def build(options: flags.Options, operands: list[str], environ: Mapping[str, str], *, detached: bool = False) -> Spec:
    """Turn parsed flags and `IMAGE [COMMAND…]` into a request. Raises ValueError with docker's sentence, OSError."""
    config = _config(options, operands, environ, detached=detached)
    host = _host_config(options)
    networks, mode = _networks(options)
    host["NetworkMode"] = mode
    exposed, bindings = _ports(options)
    if exposed:
        config["ExposedPorts"] = exposed
    host["PortBindings"] = bindings
    if options.on("rm") and host["RestartPolicy"]["Name"] not in ("no", ""):
        raise ValueError("conflicting options: cannot specify both --restart and --rm")
    body = {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": networks}}
    return Spec(body, options.text("name"), options.text("platform"))


def _config(options: flags.Options, operands: list[str], environ: Mapping[str, str], *, detached: bool) -> Object:
    attached = {name.lower() for name in options.many("attach")}
    interactive = options.on("interactive")
    if not attached:
        attached = {"stdout", "stderr"} | ({"stdin"} if interactive else set())
    if detached:
        attached = set()
    swappiness = options.number("memory-swappiness")
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise ValueError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    _, anonymous = volumes(options)
    config: Object = {
        "Hostname": options.text("hostname"),
        "Domainname": options.text("domainname"),
        "User": options.text("user"),
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "Tty": options.on("tty"),
        "OpenStdin": interactive,
        "StdinOnce": interactive and "stdin" in attached,
        "Env": environment(options.many("env-file"), options.many("env"), environ) or None,
        "Cmd": operands[1:] or None,
        "Image": operands[0],
        "Volumes": anonymous,
        "WorkingDir": options.text("workdir"),
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": labels(options.many("label-file"), options.many("label")),
    }
    if options.changed("entrypoint"):
        config["Entrypoint"] = [options.text("entrypoint")]
    if options.text("mac-address"):
        _mac(options.text("mac-address"))
    if options.text("stop-signal"):
        config["StopSignal"] = options.text("stop-signal")
    if options.changed("stop-timeout"):
        config["StopTimeout"] = options.number("stop-timeout")
    if check := health(options):
        config["Healthcheck"] = check
    return config


def _mac(text: str) -> str:
    parts = text.strip().replace("-", ":").split(":")
    if len(parts) not in (6, 8, 20) or not all(
        len(p) == 2 and set(p.lower()) <= set("0123456789abcdef") for p in parts
    ):
        raise ValueError(f"{text} is not a valid mac address")
    return text


_HEALTH_NUMBERS = (
    ("Interval", "interval"),
    ("Timeout", "timeout"),
    ("StartPeriod", "start-period"),
    ("StartInterval", "start-interval"),
    ("Retries", "retries"),
)


def health(options: flags.Options) -> Object:
    """Healthcheck of the configuration, {} without one. Raises ValueError."""
    given: Object = {}
    if options.text("health-cmd"):
        given["Test"] = ["CMD-SHELL", options.text("health-cmd")]
    for key, flag in _HEALTH_NUMBERS:
        value = options.number(f"health-{flag}")
        if value < 0:
            raise ValueError(f"--health-{flag} cannot be negative")
        if value:
            given[key] = value
    if options.on("no-healthcheck"):
        if given:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    return given


def volumes(options: flags.Options) -> tuple[list[str], Object]:
    """-v split into binds (with a source) and anonymous volumes."""
    binds: list[str] = []
    anonymous: Object = {}
    for volume in options.many("volume"):
        source, colon, rest = volume.partition(":")
        if colon:
            binds.append(f"{mountspec.absolute(source)}:{rest}")
        else:
            anonymous[volume] = {}
    return binds, dict(sorted(anonymous.items()))


def _mode(options: flags.Options, flag: str, accepted: tuple[str, ...], what: str) -> str:
    text = options.text(flag)
    if text in ("", *accepted) or (flag == "pid" and text.startswith("container:") and text != "container:"):
        return text
    raise ValueError(f"--{flag}: invalid {what} mode")


def _host_config(options: flags.Options) -> Object:
    security, masked, readonly = _security(options.many("security-opt"))
    mounts = [mountspec.mount(text) for text in options.many("mount")]
    added = _capabilities(options.many("cap-add"))
    host: Object = {
        "Binds": volumes(options)[0] or None,
        "ContainerIDFile": options.text("cidfile"),
        "LogConfig": {"Type": options.text("log-driver"), "Config": _log_options(options)},
        "NetworkMode": "default",
        "PortBindings": {},
        "RestartPolicy": mountspec.restart_policy(options.text("restart")),
        "AutoRemove": options.on("rm"),
        "VolumeDriver": options.text("volume-driver"),
        "VolumesFrom": options.many("volumes-from") or None,
        "ConsoleSize": [0, 0],
    }
    if annotations := _pairs(options.many("annotation")):
        host["Annotations"] = annotations
    host |= {
        "CapAdd": added or None,
        "CapDrop": [name for name in _capabilities(options.many("cap-drop")) if name not in added] or None,
        "CgroupnsMode": _mode(options, "cgroupns", ("host", "private"), "CGROUP"),
        "Dns": _unique(options.many("dns")),
        "DnsOptions": _unique(options.many("dns-option")),
        "DnsSearch": _unique(_search(options.many("dns-search"))),
        "ExtraHosts": [host_line(text) for text in options.many("add-host")] or None,
        "GroupAdd": options.many("group-add") or None,
        "IpcMode": options.text("ipc"),
        "Cgroup": "",
        "Links": options.many("link") or None,
        "OomScoreAdj": options.number("oom-score-adj"),
        "PidMode": _mode(options, "pid", ("host",), "PID"),
        "Privileged": options.on("privileged"),
        "PublishAllPorts": options.on("publish-all"),
        "ReadonlyRootfs": options.on("read-only"),
        "SecurityOpt": security or (None if masked is None else []),
        "UTSMode": _mode(options, "uts", ("host",), "UTS"),
        "UsernsMode": _mode(options, "userns", ("host",), "USER"),
        "ShmSize": options.number("shm-size"),
        "Isolation": options.text("isolation"),
        **resources(options),
        "MaskedPaths": masked,
        "ReadonlyPaths": readonly,
    }
    for key, value in (
        ("StorageOpt", _storage(options)),
        ("Tmpfs", {p: o for p, _, o in (text.partition(":") for text in options.many("tmpfs"))}),
        ("Sysctls", _pairs(options.many("sysctl"))),
        ("Runtime", options.text("runtime")),
        ("Mounts", mounts),
    ):
        if value:
            host[key] = value
    if options.changed("init"):
        host["Init"] = options.on("init")
    return host


def _capabilities(names: list[str]) -> list[str]:
    """Names as the kernel's headers have them, sorted; ALL stands for all the others."""
    upper = {name.strip().upper() for name in names}
    if "ALL" in upper:
        return ["ALL"]
    return sorted(name if name.startswith("CAP_") or name == "RESET" else f"CAP_{name}" for name in upper)


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _search(values: list[str]) -> list[str]:
    return [value.strip().rstrip() for value in values]


def host_line(text: str) -> str:
    """An --add-host as the wire has it, name:address."""
    name, _, address = _split_host(text)
    return f"{name}:{address}"


def _pairs(values: list[str]) -> dict[str, str]:
    return {key: value for key, _, value in (text.partition("=") for text in values)}


def _log_options(options: flags.Options) -> dict[str, str]:
    found = _pairs(options.many("log-opt"))
    if options.text("log-driver") == "none" and found:
        raise ValueError("invalid logging opts for driver none")
    return found


def _storage(options: flags.Options) -> dict[str, str]:
    for text in options.many("storage-opt"):
        if "=" not in text:
            raise ValueError("invalid storage option")
    return _pairs(options.many("storage-opt"))


def _security(values: list[str]) -> tuple[list[str], list[str] | None, list[str] | None]:
    """--security-opt; a seccomp profile is read here, since the file is on the client's side."""
    from tare.client import gojson

    found: list[str] = []
    masked: list[str] | None = None
    readonly: list[str] | None = None
    for text in values:
        key, separator, value = text.partition("=")
        if not separator and text != "no-new-privileges":
            key, separator, value = text.partition(":")
            if not separator:
                raise ValueError(f'Invalid --security-opt: "{text}"')
        if text == "systempaths=unconfined":
            masked, readonly = [], []
            continue
        if key == "seccomp" and value not in ("unconfined", "builtin"):
            try:
                with open(value, "rb") as file:
                    profile = file.read()
            except OSError as error:
                why = f"open {value}: {(error.strerror or '').lower()}"
                raise ValueError(f"opening seccomp profile ({value}) failed: {why}") from None
            try:
                text = f"seccomp={gojson.dumps(gojson.loads(profile), html=False)}"
            except ValueError as error:
                raise ValueError(f"compacting json for seccomp profile ({value}) failed: {error}") from None
        found.append(text)
    return found, masked, readonly


def resources(options: flags.Options) -> Object:
    """The part of HostConfig that limits what a container uses."""
    from tare.cli.human import parse_cpus

    cpus = options.text("cpus")
    found: Object = {
        "CpuShares": options.number("cpu-shares"),
        "Memory": options.number("memory"),
        "NanoCpus": parse_cpus(cpus) if cpus else 0,
        "CgroupParent": options.text("cgroup-parent"),
        "BlkioWeight": options.number("blkio-weight"),
        "BlkioWeightDevice": [mountspec.device_weight(t) for t in options.many("blkio-weight-device")],
        "BlkioDeviceReadBps": [mountspec.device_rate(t, in_bytes=True) for t in options.many("device-read-bps")],
        "BlkioDeviceWriteBps": [mountspec.device_rate(t, in_bytes=True) for t in options.many("device-write-bps")],
        "BlkioDeviceReadIOps": [mountspec.device_rate(t, in_bytes=False) for t in options.many("device-read-iops")],
        "BlkioDeviceWriteIOps": [mountspec.device_rate(t, in_bytes=False) for t in options.many("device-write-iops")],
        "CpuPeriod": options.number("cpu-period"),
        "CpuQuota": options.number("cpu-quota"),
        "CpuRealtimePeriod": options.number("cpu-rt-period"),
        "CpuRealtimeRuntime": options.number("cpu-rt-runtime"),
        "CpusetCpus": options.text("cpuset-cpus"),
        "CpusetMems": options.text("cpuset-mems"),
        "Devices": [_device(text) for text in options.many("device") if not mountspec.is_cdi(text)],
        "DeviceCgroupRules": options.many("device-cgroup-rule") or None,
        "DeviceRequests": _device_requests(options) or None,
    }
    return found | {
        "MemoryReservation": options.number("memory-reservation"),
        "MemorySwap": options.number("memory-swap"),
        "MemorySwappiness": options.number("memory-swappiness"),
        "OomKillDisable": options.on("oom-kill-disable"),
        "PidsLimit": options.number("pids-limit"),
        "Ulimits": sorted((mountspec.ulimit(t) for t in options.many("ulimit")), key=lambda u: str(u["Name"])),
        "CpuCount": options.number("cpu-count"),
        "CpuPercent": options.number("cpu-percent"),
        "IOMaximumIOps": options.number("io-maxiops"),
        "IOMaximumBandwidth": options.number("io-maxbandwidth"),
    }


def _device(text: str) -> Object:
    if len(text.split(":")) > 3 or text.startswith(":"):
        raise ValueError(f"bad format for path: {text}")
    return mountspec.device(text)


def _device_requests(options: flags.Options) -> list[Object]:
    found = [mountspec.gpus(text) for text in options.many("gpus")]
    if named := [text for text in options.many("device") if mountspec.is_cdi(text)]:
        found.append({"Driver": "cdi", "Count": 0, "DeviceIDs": named, "Capabilities": None, "Options": None})
    return found


def _ports(options: flags.Options) -> tuple[Object, Object]:
    exposed: Object = {}
    bindings: Object = {}
    for text in options.many("publish"):
        for port, binding in mountspec.publish(text):
            exposed[port] = {}
            bindings.setdefault(port, []).append(binding)
    for text in options.many("expose"):
        for port in mountspec.expose(text):
            exposed.setdefault(port, {})
    return exposed, bindings


def _is_user_defined(name: str) -> bool:
    return name not in ("default", "bridge", "host", "none", "nat") and not name.startswith("container:")


def _networks(options: flags.Options) -> tuple[Object, str]:
    """EndpointsConfig and the mode, which is the first network."""
    wanted = [mountspec.network(text) for text in options.many("network")]
    if not wanted:
        wanted = [mountspec.network("default")]
    _single_network_flags(options, wanted[0])
    endpoints: Object = {}
    for network in wanted:
        name = network["Target"]
        if name in endpoints:
            raise ValueError(f'network "{name}" is specified multiple times')
        if len(wanted) > 1 and not _is_user_defined(name) and name not in ("default", "bridge"):
            raise ValueError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
        if name not in ("host", "none") and not name.startswith("container:"):
            endpoints[name] = endpoint(network)
    return dict(sorted(endpoints.items())), str(wanted[0]["Target"])


def _single_network_flags(options: flags.Options, network: Object) -> None:
    """Flags that speak of "the" network belong to the first one."""
    aliases = options.many("network-alias")
    for given, key, flag, word in (
        (aliases, "Aliases", "network-alias", "alias"),
        (options.many("link-local-ip"), "LinkLocal", "link-local-ip", "link-local IP"),
        (options.text("ip"), "IPv4", "ip", "IPv4 address"),
        (options.text("ip6"), "IPv6", "ip6", "IPv6 address"),
        (options.text("mac-address"), "Mac", "mac-address", "MAC address"),
    ):
        if given and network[key]:
            raise ValueError(f"conflicting options: cannot specify both --{flag} and per-network {word}")
        if given:
            network[key] = given
    user_defined = _is_user_defined(str(network["Target"]))
    if aliases and not user_defined:
        raise ValueError("network-scoped aliases are only supported for user-defined networks")
    if user_defined:
        network["Links"] = options.many("link")


def endpoint(network: Object) -> Object:
    """One entry of EndpointsConfig, from what `mountspec.network` returns."""
    ipam: Object | None = None
    if network["IPv4"] or network["IPv6"] or network["LinkLocal"]:
        ipam = {}
        for key, name in (("IPv4", "IPv4Address"), ("IPv6", "IPv6Address"), ("LinkLocal", "LinkLocalIPs")):
            if network[key]:
                ipam[name] = network[key]
    return {
        "IPAMConfig": ipam,
        "Links": network.get("Links") or None,
        "Aliases": network["Aliases"] or None,
        "MacAddress": _mac(network["Mac"]) if network["Mac"] else "",
        "DriverOpts": network["DriverOpts"] or None,
        "GwPriority": network["Priority"],
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


# -- environment and labels


def environment(files: list[str], given: list[str], environ: Mapping[str, str]) -> list[str]:
    """Variables of --env-file and -e; a bare name takes this shell's value. Raises ValueError, OSError."""
    found: list[str] = []
    for path in files:
        for key, value in read_pairs(path):
            if value is not None:
                found.append(f"{key}={value}")
            elif key in environ:
                found.append(f"{key}={environ[key]}")
    named: dict[str, str] = {}
    for text in given:
        key, equals, _ = text.partition("=")
        named[key] = text if equals or key not in environ else f"{key}={environ[key]}"
    return found + list(named.values())


def labels(files: list[str], given: list[str]) -> dict[str, str]:
    """Labels of --label-file and -l, later ones winning."""
    found = {key: value or "" for path in files for key, value in read_pairs(path)}
    found.update(_pairs(given))
    return dict(sorted(found.items()))


def read_pairs(path: str) -> list[tuple[str, str | None]]:
    """A file of `name=value` or `name` lines; `#` starts a comment line. Raises ValueError for a bad line."""
    with open(path, "rb") as file:
        data = file.read().removeprefix(b"\xef\xbb\xbf")
    found: list[tuple[str, str | None]] = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            line = raw.decode().rstrip("\r").lstrip(" \t")
        except UnicodeDecodeError:
            raise ValueError(f"env file {path} contains invalid utf8 bytes at line {number}: {list(raw)}") from None
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not key:
            raise ValueError(f"invalid environment file: {path}: no variable name on line '{line}'")
        if any(blank in key for blank in " \t"):
            raise ValueError(f"invalid env file ({path}): variable '{key}' contains whitespaces")
        found.append((key, value if equals else None))
    return found
