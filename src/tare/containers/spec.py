"""The OCI runtime specification of a container, rendered from what was asked, what was prepared and what the host is.

Pure: everything that needed a look at a disk or a kernel is in `SpecInput`. The result is a dict for `config.json`.
The sandbox of every container is decided here and nowhere else.
Source: opencontainers/runtime-spec config.md, config-linux.md.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET, Struct, field

from tare.base.errors import InvalidArgument
from tare.containers import capabilities, checks
from tare.containers.checks import CPU_PERIOD_US, SecurityOptions
from tare.drivers.cgroups import CgroupMode
from tare.drivers.host import HostFacts
from tare.wire.config import ContainerConfig, HostConfig, ThrottleDevice, WeightDevice
from tare.wire.config import Mount as WireMount

OCI_VERSION = "1.0.2"
INIT_TARGET = "/sbin/docker-init"
BPF_ANNOTATION = "run.oci.seccomp_bpf_data"
_CRUN_ORDERS = "run.oci."
_UMASK = 0o022
_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"})


class User(Struct, frozen=True, kw_only=True):
    """Who the process runs as. `additional_gids` holds every further group, the primary one first as Docker does."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()


class MountPlan(Struct, frozen=True, kw_only=True):
    """One mount. `type` is bind, tmpfs, …; options without the propagation, which defaults to rprivate for binds."""

    destination: str
    source: str
    type: str = "bind"
    options: tuple[str, ...] = ()
    propagation: str = ""


class DevicePlan(Struct, frozen=True, kw_only=True):
    """A device node of the host to be made in the container. kind: c, b or p; access: subset of rwm."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


class HostFiles(Struct, frozen=True, kw_only=True):
    """Files of the engine that are mounted over the container's; None leaves the container's alone."""

    hosts: str | None = None
    hostname: str | None = None
    resolv_conf: str | None = None


class Seccomp(Struct, frozen=True, kw_only=True):
    """The filter: the OCI section, and the same compiled (only crun can take it). Both None: no filter."""

    section: Mapping[str, Any] | None = None
    bpf: bytes | None = None


class Namespaces(Struct, frozen=True, kw_only=True):
    """Paths of namespaces to join (`/proc/PID/ns/…`, `/proc/PID/fd/N`).

    network: None is the host's, "" a new one made by the runtime. The others: None lets HostConfig decide between
    host and private; a path joins (`container:NAME`).
    """

    network: str | None = ""
    ipc: str | None = None
    pid: str | None = None


class UserNamespace(Struct, frozen=True, kw_only=True):
    """One to join, and how it maps: (first id on the host, count) for the container's ids from 0 on."""

    path: str
    uids: tuple[tuple[int, int], ...]
    gids: tuple[tuple[int, int], ...]


class SpecInput(Struct, frozen=True, kw_only=True):
    """Everything `render` looks at."""

    id: str
    config: ContainerConfig
    host: HostConfig
    argv: Sequence[str]
    env: Sequence[str]
    cwd: str
    user: User
    hostname: str
    rootfs: str
    facts: HostFacts
    cgroup_path: str
    mounts: Sequence[MountPlan] = ()
    files: HostFiles = HostFiles()
    namespaces: Namespaces = Namespaces()
    user_namespace: UserNamespace | None = None
    runtime: str = "crun"
    seccomp: Seccomp = Seccomp()
    no_new_privileges: bool = False
    init_path: str | None = None
    shm_path: str | None = None
    devices: Sequence[DevicePlan] = ()
    block_devices: Mapping[str, tuple[int, int]] = field(default_factory=dict)


# --- the process


def bounding(host: HostConfig, facts: HostFacts) -> tuple[str, ...]:
    """The bounding capabilities of a container."""
    return capabilities.resolve(
        add=host.CapAdd or (), drop=host.CapDrop or (), privileged=host.Privileged, available=facts.capabilities
    )


def has_no_new_privileges(host: HostConfig, *, default: bool = False) -> bool:
    """Whether setuid programs are powerless: the container's own word, else the engine's."""
    own = checks.security_options(host.SecurityOpt).no_new_privileges
    return default if own is None else own


def render_process(
    *,
    argv: Sequence[str],
    env: Sequence[str],
    cwd: str,
    user: User,
    tty: bool,
    host: HostConfig,
    facts: HostFacts,
    no_new_privileges: bool = False,
    privileged: bool | None = None,
    console_size: Sequence[int] = (0, 0),
) -> dict[str, Any]:
    """The `process` object, for the first process and for `exec` alike.

    privileged: None takes the container's; an exec may ask for more. console_size: height, width.
    Inheritable and ambient sets are empty always; whoever is not root starts with empty effective and permitted ones.
    """
    if privileged:
        names = list(capabilities.resolve(add=(), drop=(), privileged=True, available=facts.capabilities))
    else:
        names = list(bounding(host, facts))
    held = names if user.uid == 0 else []
    process: dict[str, Any] = {
        "terminal": tty,
        "user": {"uid": user.uid, "gid": user.gid, "umask": _UMASK, "additionalGids": list(user.additional_gids)},
        "args": list(argv),
        "env": list(env),
        "cwd": posixpath.normpath(cwd or "/"),
        "capabilities": {
            "bounding": names,
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": checks.rlimits(host.Ulimits or (), facts=facts)[0],
        "noNewPrivileges": no_new_privileges,
        "oomScoreAdj": host.OomScoreAdj,
    }
    if tty and len(console_size) == 2 and all(console_size):
        process["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    return process


# --- mounts


def _standard_mounts(given: SpecInput) -> list[dict[str, Any]]:
    host = given.host
    sys_access = [] if host.Privileged else ["ro"]
    cgroup_access = [] if checks.has_writable_cgroups(host) else ["ro"]
    cgroup_type = "cgroup2" if given.facts.cgroup_mode is CgroupMode.V2 else "cgroup"
    if cgroup_type == "cgroup2" and given.runtime == "runc":
        cgroup_type = "cgroup"  # runc knows one name for both
    mounts = [
        _mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", *sys_access]),
        _mount("/sys/fs/cgroup", cgroup_type, "cgroup", ["nosuid", "noexec", "nodev", "relatime", *cgroup_access]),
    ]
    # A new mount of mqueue shows the queues of the IPC namespace it is made in, the host's included.
    mounts.append(_mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]))
    if host.IpcMode == "host":
        return [*mounts, _mount("/dev/shm", "bind", "/dev/shm", ["rbind", "nosuid", "noexec", "nodev", "rprivate"])]
    if given.shm_path is not None:
        mounts.append(_mount("/dev/shm", "bind", given.shm_path, ["rbind", "nosuid", "noexec", "nodev", "rprivate"]))
    elif host.IpcMode != "none":
        size = host.ShmSize or checks.DEFAULT_SHM_BYTES
        mounts.append(_mount("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", f"size={size}"]))
    return mounts


def _file_mounts(files: HostFiles) -> list[dict[str, Any]]:
    return [
        _mount(target, "bind", source, ["rbind", "rprivate"])
        for target, source in (
            ("/etc/resolv.conf", files.resolv_conf),
            ("/etc/hostname", files.hostname),
            ("/etc/hosts", files.hosts),
        )
        if source is not None
    ]


def tmpfs_mounts(host: HostConfig) -> list[MountPlan]:
    """The tmpfs mounts that `--tmpfs` and `--mount type=tmpfs` ask for. Raises InvalidArgument."""
    plans = [
        MountPlan(destination=target, source="tmpfs", type="tmpfs", options=tuple(checks.tmpfs_options(target, text)))
        for target, text in (host.Tmpfs or {}).items()
    ]
    for mount in host.Mounts or ():
        if mount.Type == "tmpfs":
            plans.append(_tmpfs_of(mount))
    return plans


def _tmpfs_of(mount: WireMount) -> MountPlan:
    target = mount.Target or ""
    if mount.Source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
    options = checks.tmpfs_options(target, "")
    wanted = mount.TmpfsOptions
    mode, size = 0o1777, 0
    if wanted is not UNSET:
        mode, size = wanted.Mode or mode, wanted.SizeBytes or 0
        extra = [pair[0] if len(pair) == 1 else f"{pair[0]}={pair[1]}" for pair in wanted.Options or () if pair]
        options = checks.tmpfs_options(target, ",".join(extra))
    options.append(f"mode={mode:o}")
    if size:
        options.append(f"size={size}")
    if mount.ReadOnly:
        options.append("ro")
    return MountPlan(destination=target, source="tmpfs", type="tmpfs", options=tuple(options))


def _user_mount(plan: MountPlan) -> dict[str, Any]:
    options = list(plan.options)
    if plan.type == "bind":
        if "bind" not in options and "rbind" not in options:
            options.insert(0, "rbind")
        if not _PROPAGATION & set(options):
            options.append(plan.propagation or "rprivate")
    return _mount(plan.destination, plan.type, plan.source, options)


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {
        "destination": "/" + posixpath.normpath(destination).lstrip("/"),
        "type": kind,
        "source": source,
        "options": options,
    }


def render_mounts(given: SpecInput) -> list[dict[str, Any]]:
    """All mounts in the order they are made: a user's mount replaces ours at its place, parents before children.

    tmpfs mounts come from HostConfig; a mount in `given.mounts` at the same place is used instead.
    """
    named = {posixpath.normpath(plan.destination) for plan in given.mounts}
    tmpfs = [plan for plan in tmpfs_mounts(given.host) if posixpath.normpath(plan.destination) not in named]
    wanted = [_user_mount(plan) for plan in (*given.mounts, *tmpfs)]
    taken = {mount["destination"] for mount in wanted}
    ours = [
        mount
        for mount in (*_standard_mounts(given), *_file_mounts(given.files))
        if mount["destination"] not in taken
        and not ("/dev" in taken and mount["destination"].startswith("/dev/") and mount["destination"] != "/dev/pts")
    ]
    if given.init_path is not None:
        wanted.append(_mount(INIT_TARGET, "bind", given.init_path, ["bind", "ro", "rprivate"]))
    wanted.sort(key=lambda mount: mount["destination"].count("/") if mount["destination"] != "/" else 0)
    return [*ours, *wanted]


def _rootfs_propagation(given: SpecInput) -> str | None:
    """A shared or slave bind works only below a root that lets events through."""
    asked = {option for mount in given.mounts for option in (mount.propagation, *mount.options)}
    if asked & {"shared", "rshared"}:
        return "shared"
    if asked & {"slave", "rslave"}:
        return "rslave"
    return None


# --- namespaces


def _namespaces(given: SpecInput) -> list[dict[str, str]]:
    # No time namespace: crun 1.8.1 and runc 1.1.5 both fail on the entry.
    host, paths = given.host, given.namespaces
    out: list[dict[str, str]] = [{"type": "mount"}]
    if given.user_namespace is not None:
        out.insert(0, {"type": "user", "path": given.user_namespace.path})
    if paths.network is not None:
        out.append({"type": "network", "path": paths.network} if paths.network else {"type": "network"})
    if host.UTSMode != "host":
        out.append({"type": "uts"})
    for kind, mode, path in (("pid", host.PidMode, paths.pid), ("ipc", host.IpcMode, paths.ipc)):
        if path is not None:
            out.append({"type": kind, "path": path})
        elif checks.joined_container(mode):
            raise InvalidArgument(f"cannot join the {kind} namespace of {mode}: its container is not running")
        elif mode != "host":
            out.append({"type": kind})
    if host.CgroupnsMode == "private" or (
        not host.CgroupnsMode and given.facts.cgroup_mode is CgroupMode.V2 and not host.Privileged
    ):
        out.append({"type": "cgroup"})
    return out


def _id_mappings(ranges: Sequence[tuple[int, int]]) -> list[dict[str, int]]:
    out: list[dict[str, int]] = []
    inside = 0
    for first, size in ranges:
        out.append({"containerID": inside, "hostID": first, "size": size})
        inside += size
    return out


def _sysctls(given: SpecInput) -> dict[str, str]:
    out: dict[str, str] = {}
    if given.namespaces.network == "":
        # A namespace that is handed in has these already; one that is joined belongs to another container.
        out |= {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    if given.config.Domainname and given.host.UTSMode != "host":
        out["kernel.domainname"] = given.config.Domainname
    return out | checks.sysctls(given.host)


# --- devices and resources

_ALLOWED_DEVICES: tuple[tuple[int, int | None], ...] = (
    (1, 3),  # null
    (1, 5),  # zero
    (1, 7),  # full
    (1, 8),  # random
    (1, 9),  # urandom
    (5, 0),  # tty
    (5, 1),  # console
    (5, 2),  # ptmx
    (136, None),  # pseudo terminals
)
_FUSE = (10, 229)


def device_rules(given: SpecInput) -> list[dict[str, Any]]:
    """Deny all, then allow: making any node, the harmless ones, those asked for. Privileged: everything."""
    if given.host.Privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    # Before the wildcards: runc cannot punch a hole into one of v1. Making the node stays possible, opening it not.
    rules.append({"allow": False, "type": "c", "major": _FUSE[0], "minor": _FUSE[1], "access": "rwm"})
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    for major, minor in _ALLOWED_DEVICES:
        rule: dict[str, Any] = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        rules.append(rule if minor is None else rule | {"minor": minor})
    rules += [
        {"allow": True, "type": device.kind, "major": device.major, "minor": device.minor, "access": device.access}
        for device in given.devices
    ]
    rules += [checks.parse_device_rule(rule) for rule in given.host.DeviceCgroupRules or ()]
    return rules


def _devices(devices: Sequence[DevicePlan]) -> list[dict[str, Any]]:
    return [
        {
            "path": device.path,
            "type": device.kind,
            "major": device.major,
            "minor": device.minor,
            "fileMode": device.mode,
            "uid": device.uid,
            "gid": device.gid,
        }
        for device in devices
    ]


def resources(
    host: HostConfig, *, facts: HostFacts, block_devices: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, Any]:
    """`linux.resources` without the device rules: also the body of a live update.

    block_devices: (major, minor) of every path named in blkio options. Limits the host cannot keep are left out
    (`checks.check_resources` has warned).
    """
    out: dict[str, Any] = {}
    if "memory" in facts.controllers and (memory := _memory(host, facts)):
        out["memory"] = memory
    if cpu := _cpu(host, facts):
        out["cpu"] = cpu
    if host.PidsLimit is not None and host.PidsLimit > 0 and "pids" in facts.controllers:
        out["pids"] = {"limit": host.PidsLimit}
    if block := _block_io(host, facts, block_devices or {}):
        out["blockIO"] = block
    return out


def _memory(host: HostConfig, facts: HostFacts) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if host.Memory > 0:
        memory["limit"] = host.Memory
    if host.MemoryReservation > 0:
        memory["reservation"] = host.MemoryReservation
    if facts.has_swap_limit and host.MemorySwap != 0:
        memory["swap"] = host.MemorySwap
    elif facts.has_swap_limit and host.Memory > 0:
        memory["swap"] = host.Memory * 2
    if facts.cgroup_mode is not CgroupMode.V2:
        if host.MemorySwappiness is not None and host.MemorySwappiness >= 0:
            memory["swappiness"] = host.MemorySwappiness
        if host.OomKillDisable:
            memory["disableOOMKiller"] = True
    return memory


def _cpu(host: HostConfig, facts: HostFacts) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if host.CpuShares > 0:
        cpu["shares"] = host.CpuShares
    if host.NanoCpus > 0:
        cpu["period"] = CPU_PERIOD_US
        cpu["quota"] = host.NanoCpus * CPU_PERIOD_US // 1_000_000_000
    elif facts.has_cpu_quota:
        if host.CpuPeriod:
            cpu["period"] = host.CpuPeriod
        if host.CpuQuota:
            cpu["quota"] = host.CpuQuota
    if host.CpusetCpus:
        cpu["cpus"] = host.CpusetCpus
    if host.CpusetMems:
        cpu["mems"] = host.CpusetMems
    if facts.has_cpu_realtime:
        if host.CpuRealtimePeriod:
            cpu["realtimePeriod"] = host.CpuRealtimePeriod
        if host.CpuRealtimeRuntime:
            cpu["realtimeRuntime"] = host.CpuRealtimeRuntime
    return cpu


def _block_io(host: HostConfig, facts: HostFacts, numbers: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    block: dict[str, Any] = {}
    if facts.has_blkio_weight:
        if host.BlkioWeight:
            block["weight"] = host.BlkioWeight
        if host.BlkioWeightDevice:
            block["weightDevice"] = [
                _numbered(device, numbers) | {"weight": device.Weight} for device in host.BlkioWeightDevice
            ]
    for key, devices in (
        ("throttleReadBpsDevice", host.BlkioDeviceReadBps),
        ("throttleWriteBpsDevice", host.BlkioDeviceWriteBps),
        ("throttleReadIOPSDevice", host.BlkioDeviceReadIOps),
        ("throttleWriteIOPSDevice", host.BlkioDeviceWriteIOps),
    ):
        if devices:
            block[key] = [_numbered(device, numbers) | {"rate": device.Rate} for device in devices]
    return block


def _numbered(device: WeightDevice | ThrottleDevice, numbers: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    if device.Path not in numbers:
        raise InvalidArgument(f"no such block device: {device.Path}")
    major, minor = numbers[device.Path]
    return {"major": major, "minor": minor}


# --- the whole


def render(given: SpecInput) -> dict[str, Any]:
    """`config.json` of the bundle. Raises InvalidArgument for what `checks.validate` would refuse too."""
    host, config = given.host, given.config
    argv = [INIT_TARGET, "--", *given.argv] if given.init_path is not None else list(given.argv)
    linux: dict[str, Any] = {
        "namespaces": _namespaces(given),
        "cgroupsPath": given.cgroup_path,
        "devices": _devices(given.devices),
        "resources": {
            "devices": device_rules(given),
            **resources(host, facts=given.facts, block_devices=given.block_devices),
        },
        "sysctl": _sysctls(given),
        "maskedPaths": _hidden(host, host.MaskedPaths, checks.masked_paths(given.facts)),
        "readonlyPaths": _hidden(host, host.ReadonlyPaths, checks.READONLY_PATHS),
    }
    if (propagation := _rootfs_propagation(given)) is not None:
        linux["rootfsPropagation"] = propagation
    if given.user_namespace is not None:
        linux["uidMappings"] = _id_mappings(given.user_namespace.uids)
        linux["gidMappings"] = _id_mappings(given.user_namespace.gids)
    # Annotations beginning so are orders to crun (another filter, hooks): they are the engine's to give.
    annotations = {k: v for k, v in (host.Annotations or {}).items() if not k.startswith(_CRUN_ORDERS)}
    if given.seccomp.bpf is not None and given.runtime == "crun":
        annotations[BPF_ANNOTATION] = base64.b64encode(given.seccomp.bpf).decode()
    elif given.seccomp.section is not None:
        linux["seccomp"] = dict(given.seccomp.section)
    spec: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": render_process(
            argv=argv,
            env=given.env,
            cwd=given.cwd,
            user=given.user,
            tty=config.Tty,
            host=host,
            facts=given.facts,
            no_new_privileges=has_no_new_privileges(host, default=given.no_new_privileges),
            console_size=host.ConsoleSize,
        ),
        "root": {"path": given.rootfs, "readonly": host.ReadonlyRootfs},
        "mounts": render_mounts(given),
        "annotations": annotations,
        "linux": linux,
    }
    if host.UTSMode != "host":
        spec["hostname"] = given.hostname
    return spec


def _hidden(host: HostConfig, asked: list[str] | None, default: Sequence[str]) -> list[str]:
    if host.Privileged:
        return []
    return list(default) if asked is None else list(asked)


def wants_seccomp(host: HostConfig) -> bool:
    """Whether a filter applies at all: not `seccomp=unconfined`, and to a privileged container only one of its own."""
    options: SecurityOptions = checks.security_options(host.SecurityOpt)
    if host.Privileged:
        return options.seccomp not in (None, "unconfined")
    return options.seccomp != "unconfined"
