"""What a container may be asked to be: defaults filled in, contradictions refused, limits of the host warned about.

Pure. `adapt` gives the HostConfig that is stored and shown by inspect; `validate` refuses or warns. The texts are those
of dockerd, since clients search them.
Source: moby/moby daemon/daemon_unix.go, daemon/container.go, runconfig/hostconfig_unix.go (behaviour and messages).
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Collection, Sequence

import msgspec
from msgspec import UNSET, Struct

from tare.base.errors import InvalidArgument
from tare.containers import capabilities, seccomp_profile
from tare.drivers.cgroups import CgroupMode
from tare.drivers.host import UNLIMITED, HostFacts
from tare.wire.config import ContainerConfig, DeviceMapping, HostConfig, RestartRule, Ulimit
from tare.wire.signals import parse_signal

MIN_MEMORY_BYTES = 6 * 1024 * 1024
DEFAULT_SHM_BYTES = 64 * 1024 * 1024
DEFAULT_NOFILE = (1024, 524288)
CPU_PERIOD_US = 100_000


def _words(text: str) -> list[str]:
    return text.split()


MASKED_PATHS: tuple[str, ...] = tuple(
    _words(
        "/proc/asound /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list "
        "/proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap"
    )
)
"""Hidden from every container that is not privileged, in dockerd's order; `masked_paths` adds what depends on the host."""

READONLY_PATHS: tuple[str, ...] = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

ULIMITS: frozenset[str] = frozenset(
    _words("core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack")
)

_IPC_SYSCTLS = frozenset(
    _words(
        "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
        "kernel.shm_rmid_forced"
    )
)

_TMPFS_FLAGS: frozenset[str] = frozenset(
    _words(
        "ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime "
        "nodiratime relatime norelatime strictatime nostrictatime private rprivate shared rshared slave rslave "
        "unbindable runbindable bind rbind defaults"
    )
)
_TMPFS_VALUES = frozenset(_words("size mode uid gid nr_inodes nr_blocks mpol huge"))
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")


def masked_paths(facts: HostFacts) -> list[str]:
    """The default masked paths on this host."""
    return [*MASKED_PATHS, *facts.thermal_throttle]


# --- modes


class SecurityOptions(Struct, frozen=True, kw_only=True):
    """`--security-opt`, parsed. seccomp: None is the default profile, "unconfined" none, else JSON text."""

    seccomp: str | None = None
    no_new_privileges: bool | None = None
    apparmor: str | None = None
    labels: tuple[str, ...] = ()
    writable_cgroups: bool | None = None


def security_options(options: Sequence[str] | None) -> SecurityOptions:
    """Parse `key=value` (older clients: `key:value`). Raises InvalidArgument as dockerd does."""
    seccomp: str | None = None
    apparmor: str | None = None
    no_new_privileges: bool | None = None
    writable_cgroups: bool | None = None
    labels: list[str] = []
    for option in options or ():
        if option == "no-new-privileges":
            no_new_privileges = True
            continue
        if option == "writable-cgroups":
            writable_cgroups = True
            continue
        separator = "=" if "=" in option else ":"
        key, found, value = option.partition(separator)
        if not found:
            raise InvalidArgument(f'invalid --security-opt 1: "{option}"')
        if key == "label":
            labels.append(value)
        elif key == "apparmor":
            apparmor = value
        elif key == "seccomp":
            seccomp = None if value in ("", "builtin") else value
        elif key == "no-new-privileges":
            if value.lower() not in ("1", "t", "true", "0", "f", "false"):
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
            no_new_privileges = value.lower() in ("1", "t", "true")
        elif key == "writable-cgroups" and value in ("true", "false"):
            writable_cgroups = value == "true"
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return SecurityOptions(
        seccomp=seccomp,
        no_new_privileges=no_new_privileges,
        apparmor=apparmor,
        labels=tuple(labels),
        writable_cgroups=writable_cgroups,
    )


def has_writable_cgroups(host: HostConfig) -> bool:
    """Whether /sys/fs/cgroup can be written to: as it asks, else if it is privileged."""
    asked = security_options(host.SecurityOpt).writable_cgroups
    return host.Privileged if asked is None else asked


def joined_container(mode: str) -> str | None:
    """The name in `container:NAME`, or None for any other mode."""
    kind, found, name = mode.partition(":")
    return name if found and kind == "container" else None


# --- defaults


def adapt(
    config: HostConfig,
    *,
    facts: HostFacts,
    default_runtime: str,
    default_network: str = "bridge",
    version: tuple[int, int] = (1, 51),
) -> HostConfig:
    """The HostConfig as stored: every default that Docker shows in inspect is written out."""
    changes: dict[str, object] = {}
    if config.Memory > 0 and config.MemorySwap == 0:
        changes["MemorySwap"] = config.Memory * 2
    if config.ShmSize == 0:
        changes["ShmSize"] = DEFAULT_SHM_BYTES
    if not config.IpcMode:
        changes["IpcMode"] = "private" if version >= (1, 40) else "shareable"
    if not config.CgroupnsMode:
        private = facts.cgroup_mode is CgroupMode.V2 and not config.Privileged
        changes["CgroupnsMode"] = "private" if private else "host"
    if config.NetworkMode in ("", "default"):
        changes["NetworkMode"] = default_network
    if not config.RestartPolicy.Name:
        changes["RestartPolicy"] = RestartRule(Name="no", MaximumRetryCount=config.RestartPolicy.MaximumRetryCount)
    if not config.Runtime:
        changes["Runtime"] = default_runtime
    if config.PidsLimit is not None and config.PidsLimit <= 0:
        changes["PidsLimit"] = None
    if config.MemorySwappiness == -1:
        changes["MemorySwappiness"] = None
    if config.KernelMemory is not UNSET:
        changes["KernelMemory"] = UNSET
    if config.OomKillDisable is None and facts.cgroup_mode is not CgroupMode.V2:
        changes["OomKillDisable"] = False
    if config.Privileged:
        changes |= {"MaskedPaths": None, "ReadonlyPaths": None}
    else:
        if config.MaskedPaths is None:
            changes["MaskedPaths"] = masked_paths(facts)
        if config.ReadonlyPaths is None:
            changes["ReadonlyPaths"] = list(READONLY_PATHS)
    return msgspec.structs.replace(config, **changes)


# --- refusals and warnings


def validate(
    config: ContainerConfig, host: HostConfig, *, facts: HostFacts, runtimes: Collection[str] = ()
) -> list[str]:
    """Refuse what cannot be and return dockerd's warnings about what will be ignored.

    host: as sent or as adapted. runtimes: known names; empty skips that check. Raises InvalidArgument.
    """
    _check_process(config)
    check_restart(host)
    check_annotations(host)
    _check_modes(config, host)
    options = security_options(host.SecurityOpt)
    if options.seccomp not in (None, "unconfined"):
        assert options.seccomp is not None
        seccomp_profile.parse(options.seccomp)
    capabilities.resolve(
        add=host.CapAdd or (), drop=host.CapDrop or (), privileged=host.Privileged, available=facts.capabilities
    )
    sysctls(host)
    for device in host.Devices or ():
        check_device(device)
    for rule in host.DeviceCgroupRules or ():
        parse_device_rule(rule)
    for target, text in (host.Tmpfs or {}).items():
        tmpfs_options(target, text)
    _, limit_warnings = rlimits(host.Ulimits or (), facts=facts)
    if runtimes and host.Runtime and host.Runtime not in runtimes:
        raise InvalidArgument(f"Unknown runtime specified {host.Runtime}")
    if host.Isolation not in ("", "default"):
        raise InvalidArgument(f"Invalid isolation: \"{host.Isolation}\" - linux only supports 'default'")
    if not -1000 <= host.OomScoreAdj <= 1000:
        raise InvalidArgument(f"Invalid value {host.OomScoreAdj}, range for oom score adj is [-1000, 1000]")
    if host.ShmSize < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if ".." in host.CgroupParent.split("/"):
        raise InvalidArgument(f"invalid cgroup parent: {host.CgroupParent}")
    warnings = [*check_resources(host, facts=facts), *limit_warnings]
    if host.NetworkMode == "host" and host.PortBindings:
        warnings.append("Published ports are discarded when using host network mode")
    return warnings


def _check_process(config: ContainerConfig) -> None:
    if config.WorkingDir:
        clean = posixpath.normpath(config.WorkingDir)
        if not config.WorkingDir.startswith("/"):
            raise InvalidArgument(
                f"the working directory '{config.WorkingDir}' is invalid, it needs to be an absolute path"
            )
        if clean == "/proc" or clean.startswith(("/proc/", "//proc")):
            raise InvalidArgument(f"the working directory '{config.WorkingDir}' is invalid, it must not be below /proc")
    if "\0" in config.WorkingDir or any("\0" in item for item in config.Env or ()):
        raise InvalidArgument("invalid argument: contains a NUL byte")
    for item in config.Env or ():
        if not item or item.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {item}")
    if config.StopSignal is not UNSET and config.StopSignal:
        parse_signal(config.StopSignal)
    health = config.Healthcheck
    if health is not UNSET:
        for name, nanos in (
            ("Interval", health.Interval),
            ("Timeout", health.Timeout),
            ("StartPeriod", health.StartPeriod),
            ("StartInterval", health.StartInterval),
        ):
            if nanos is not UNSET and (nanos < 0 or 0 < nanos < 1_000_000):
                raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
        if health.Retries is not UNSET and health.Retries < 0:
            raise InvalidArgument("Retries in Healthcheck cannot be negative")


def check_restart(host: HostConfig) -> None:
    """Refuse a restart policy that is none. Raises InvalidArgument."""
    name, count = host.RestartPolicy.Name, host.RestartPolicy.MaximumRetryCount
    if name not in ("", "no", "on-failure", "always", "unless-stopped"):
        raise InvalidArgument(f"invalid restart policy '{name}'")
    if name in ("always", "unless-stopped", "no") and count != 0:
        raise InvalidArgument(f"maximum retry count cannot be used with restart policy '{name}'")
    if count < 0:
        raise InvalidArgument("maximum retry count cannot be negative")
    if host.AutoRemove and name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def check_annotations(host: HostConfig) -> None:
    """Refuse an annotation without a name. Raises InvalidArgument."""
    if host.Annotations and "" in host.Annotations:
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")


def _check_modes(config: ContainerConfig, host: HostConfig) -> None:
    for label, mode, known in (
        ("IPC", host.IpcMode, ("", "none", "private", "shareable", "host")),
        ("PID", host.PidMode, ("", "host", "private")),
    ):
        if mode not in known and not joined_container(mode):
            raise InvalidArgument(f"invalid {label} mode: {mode}")
    if host.UTSMode not in ("", "host", "private"):
        raise InvalidArgument(f"invalid UTS mode: {host.UTSMode}")
    if host.CgroupnsMode not in ("", "host", "private"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.CgroupnsMode}")
    if host.UsernsMode not in ("", "host"):
        raise InvalidArgument(f"invalid user namespace mode: {host.UsernsMode}")
    if host.UTSMode == "host" and config.Hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.NetworkMode.startswith("container:"):
        _check_container_network(config, host)
    if host.NetworkMode.startswith("ns:"):
        _check_foreign_network(host)
    if host.NetworkMode == "host" and host.Links:
        raise InvalidArgument(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )
    for entry in host.ExtraHosts or ():
        _check_extra_host(entry)
    for server in host.Dns or ():
        _ip(server, message=f'invalid IP address in "dns": {server}')


def _check_foreign_network(host: HostConfig) -> None:
    """`ns:PATH`: what is in that namespace belongs to whoever made it."""
    if not host.NetworkMode.removeprefix("ns:").startswith("/"):
        raise InvalidArgument(f"invalid network mode {host.NetworkMode}: ns: needs an absolute path")
    if host.PortBindings or host.PublishAllPorts:
        raise InvalidArgument("conflicting options: port publishing and the network mode")
    if host.Links:
        raise InvalidArgument("conflicting options: links and the network mode")


def _check_container_network(config: ContainerConfig, host: HostConfig) -> None:
    if not joined_container(host.NetworkMode):
        raise InvalidArgument("invalid container format container:<name|id>")
    conflicts = (
        (config.Hostname, "hostname and the network mode"),
        (host.Links, "container type network can't be used with links. This would result in undefined behavior"),
        (host.Dns, "dns and the network mode"),
        (host.ExtraHosts, "custom host-to-IP mapping and the network mode"),
        (config.MacAddress, "mac-address and the network mode"),
        (host.PortBindings, "port publishing and the container type network mode"),
        (host.PublishAllPorts, "port publishing and the container type network mode"),
        (config.ExposedPorts, "port exposing and the container type network mode"),
    )
    for given, text in conflicts:
        if given:
            raise InvalidArgument(f"conflicting options: {text}")


def _check_extra_host(entry: str) -> None:
    separator = "=" if "=" in entry else ":"
    name, found, address = entry.partition(separator)
    if not found or not name:
        raise InvalidArgument(f'bad format for add-host: "{entry}"')
    if address == "host-gateway":
        return
    _ip(address.removeprefix("[").removesuffix("]"), message=f'invalid IP address in add-host: "{address}"')


def _ip(text: str, *, message: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(message) from None


def check_resources(host: HostConfig, *, facts: HostFacts, running: HostConfig | None = None) -> list[str]:
    """Limits alone: for create, and for update with `running` as the present values."""
    memory, swap = host.Memory, host.MemorySwap
    if running is not None:
        memory, swap = memory or running.Memory, swap or running.MemorySwap
    return [
        *_check_memory(host, facts=facts, memory=memory, swap=swap),
        *_check_cpu(host, facts=facts),
        *_check_other_limits(host, facts=facts),
    ]


def _check_memory(host: HostConfig, *, facts: HostFacts, memory: int, swap: int) -> list[str]:
    warnings: list[str] = []
    has_memory = "memory" in facts.controllers
    if host.Memory != 0 and host.Memory < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.Memory > 0 and not has_memory:
        warnings.append(
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded."
        )
    if memory > 0 and swap != -1 and has_memory and not facts.has_swap_limit:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
    if memory > 0 and 0 < swap < memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.MemorySwap < -1:
        raise InvalidArgument(f"invalid memory swap limit: {host.MemorySwap}")
    if (swappiness := host.MemorySwappiness) is not None:
        if not -1 <= swappiness <= 100:
            raise InvalidArgument(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
        if facts.cgroup_mode is CgroupMode.V2 and swappiness != -1:
            warnings.append(
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
                "Memory swappiness discarded."
            )
    if host.MemoryReservation != 0 and host.MemoryReservation < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if memory > 0 and memory < host.MemoryReservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.KernelMemory is not UNSET and host.KernelMemory > 0:
        warnings.append("Specifying a kernel memory limit is deprecated and will be removed in a future release.")
    if host.OomKillDisable:
        if facts.cgroup_mode is CgroupMode.V2:
            warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        elif memory == 0:
            warnings.append(
                "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
                "running out of resources."
            )
    return warnings


def _check_cpu(host: HostConfig, *, facts: HostFacts) -> list[str]:
    if host.NanoCpus:
        if host.CpuPeriod:
            raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
        if host.CpuQuota:
            raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
        if not facts.has_cpu_quota:
            raise InvalidArgument(
                "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not "
                "mounted"
            )
        count = facts.cpu_count
        if not 0 < host.NanoCpus <= count * 1_000_000_000:
            raise InvalidArgument(f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if host.CpuShares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.CpuShares}): value must be a positive integer")
    if host.CpuPeriod and not 1000 <= host.CpuPeriod <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.CpuQuota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if (host.CpuRealtimePeriod or host.CpuRealtimeRuntime) and not facts.has_cpu_realtime:
        word = "period" if host.CpuRealtimePeriod else "runtime"
        raise InvalidArgument(f"Your kernel does not support cgroup cpu real-time {word}")
    if host.CpuRealtimePeriod and host.CpuRealtimeRuntime > host.CpuRealtimePeriod:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    for word, noun, asked, available in (
        ("cpus", "CPUs", host.CpusetCpus, facts.cpus),
        ("mems", "memory nodes", host.CpusetMems, facts.mems),
    ):
        if asked and not parse_cpu_list(asked, what=f"cpuset {word}") <= parse_cpu_list(available, what=word):
            raise InvalidArgument(f"Requested {noun} are not available - requested {asked}, available: {available}")
    if (host.CpuPeriod or host.CpuQuota > 0) and not facts.has_cpu_quota:
        return ["Your kernel does not support CPU CFS quota or the cgroup is not mounted. Quota discarded."]
    return []


def _check_other_limits(host: HostConfig, *, facts: HostFacts) -> list[str]:
    warnings: list[str] = []
    if host.PidsLimit is not None and host.PidsLimit > 0 and "pids" not in facts.controllers:
        warnings.append(
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."
        )
    if host.BlkioWeight:
        if facts.has_blkio_weight and not 10 <= host.BlkioWeight <= 1000:
            raise InvalidArgument("Range of blkio weight is from 10 to 1000")
        if not facts.has_blkio_weight:
            warnings.append(
                "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
            )
    if host.BlkioWeightDevice:
        if not facts.has_blkio_weight:
            warnings.append(
                "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
                "Weight-device discarded."
            )
        elif any(not 10 <= device.Weight <= 1000 for device in host.BlkioWeightDevice):
            raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if host.IOMaximumBandwidth or host.IOMaximumIOps:
        raise InvalidArgument("invalid QoS settings: linux does not support maximum bandwidth or maximum IOps")
    return warnings


def parse_cpu_list(text: str, *, what: str) -> set[int]:
    """`0-2,5` as a set. Raises InvalidArgument."""
    out: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not all(n.isascii() and n.isdecimal() and len(n) <= 5 for n in (first, last)) or int(last) < int(first):
            raise InvalidArgument(f"Invalid value {text} for {what}: invalid format: {text}")
        out.update(range(int(first), int(last) + 1))
    return out


def rlimits(ulimits: Sequence[Ulimit], *, facts: HostFacts) -> tuple[list[dict[str, object]], list[str]]:
    """The `process.rlimits` of a container and warnings about limits that had to be cut to the engine's own.

    Asked-for limits win over the engine's default (nofile 1024:524288).
    """
    asked = {limit.Name: limit for limit in ulimits}
    for name, limit in asked.items():
        if name not in ULIMITS:
            raise InvalidArgument(f"invalid ulimit type: {name}")
        if limit.Hard != -1 and (limit.Soft == -1 or limit.Soft > limit.Hard):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.Soft} > {limit.Hard}"
            )
        if limit.Soft < -1 or limit.Hard < -1:
            raise InvalidArgument(f"invalid ulimit value: {name}={limit.Soft}:{limit.Hard}")
    wanted = {"nofile": Ulimit(Name="nofile", Soft=DEFAULT_NOFILE[0], Hard=DEFAULT_NOFILE[1])} | asked
    out: list[dict[str, object]] = []
    warnings: list[str] = []
    for name in sorted(wanted):
        soft, hard = (UNLIMITED if value == -1 else value for value in (wanted[name].Soft, wanted[name].Hard))
        ceiling = facts.rlimits.get(name, (UNLIMITED, UNLIMITED))[1]
        if hard > ceiling and not facts.can_raise_rlimits:
            if name in asked:
                warnings.append(
                    f"The engine cannot raise the hard limit {name} beyond {ceiling} (it lacks CAP_SYS_RESOURCE). "
                    "Limit reduced."
                )
            soft, hard = min(soft, ceiling), ceiling
        out.append({"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard})
    return out, warnings


def sysctls(host: HostConfig) -> dict[str, str]:
    """The sysctls asked for, checked: only those that live in a namespace of the container's own."""
    out: dict[str, str] = {}
    for name, value in (host.Sysctls or {}).items():
        dotted = name.replace("/", ".")
        if dotted.startswith("net."):
            if host.NetworkMode == "host" or host.NetworkMode.startswith("ns:"):
                raise InvalidArgument(f'sysctl "{name}" not allowed in host network namespace')
        elif dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
            if host.IpcMode == "host":
                raise InvalidArgument(f'sysctl "{name}" is not allowed in the hosts ipc namespace')
        else:
            raise InvalidArgument(
                f'sysctl "{name}" is not in a separate kernel namespace',
                hint="net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm* can be set",
            )
        if ".." in dotted or "\0" in dotted + value:
            raise InvalidArgument(f"invalid sysctl {name!r}")
        out[dotted] = value
    return out


def check_device(device: DeviceMapping) -> None:
    """Refuse a device mapping that cannot be meant."""
    if not device.PathOnHost.startswith("/") or (device.PathInContainer and device.PathInContainer[0] != "/"):
        wrong = device.PathInContainer or device.PathOnHost
        raise InvalidArgument(f"invalid device path: {wrong} is not an absolute path")
    if set(device.CgroupPermissions) - set("rwm"):
        raise InvalidArgument(f"invalid device mode: {device.CgroupPermissions}")


_DEVICE_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})", re.ASCII)


def parse_device_rule(rule: str) -> dict[str, object]:
    """`c 10:* rwm` as an entry of `linux.resources.devices`. Raises InvalidArgument."""
    found = _DEVICE_RULE.fullmatch(rule)
    if found is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{rule}'")
    kind, major, minor, access = found.groups()
    out: dict[str, object] = {"allow": True, "type": kind, "access": access}
    if major != "*":
        out["major"] = int(major)
    if minor != "*":
        out["minor"] = int(minor)
    return out


def tmpfs_options(target: str, text: str) -> list[str]:
    """Mount options of a `--tmpfs`: the safe defaults, overridden by what was asked. Raises InvalidArgument."""
    if not target.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{target}' mount path must be absolute")
    if not posixpath.normpath(target).strip("/"):
        raise InvalidArgument("invalid mount target: destination can't be '/'")
    asked = [option for option in text.split(",") if option]
    for option in asked:
        key, found, _ = option.partition("=")
        if not (key in _TMPFS_VALUES if found else option in _TMPFS_FLAGS):
            raise InvalidArgument(f'invalid tmpfs option ["{option}"]')
    opposite = {"noexec": "exec", "nosuid": "suid", "nodev": "dev"}
    return [option for option in _TMPFS_DEFAULTS if opposite[option] not in asked and option not in asked] + asked
