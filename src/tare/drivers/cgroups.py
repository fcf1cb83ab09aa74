"""Control groups, v1, hybrid and v2: where they are, what they say, how their limits change.

Ours are named `/tare/<container id>` (or `<cgroup parent>/<container id>`) below the root of each hierarchy:

    v1, hybrid   /sys/fs/cgroup/<controller>/tare/<id>/…      one tree per controller
    v2           /sys/fs/cgroup/tare/<id>/…                   one tree, controllers enabled downwards

Groups that are not below our parent are never written. Reading a group that is gone raises NotFound; `remove` of one
is not an error.
Source: cgroups(7), Documentation/admin-guide/cgroup-v1/, cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from msgspec import Struct, field

from tare.aio import failpoints
from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound, Unavailable
from tare.drivers import linux

DEFAULT_PARENT = "/tare"
_ROOT = Path("/sys/fs/cgroup")
_PAGE_COUNTER_MAX = 1 << 60
"""v1 writes "unlimited" as the largest page count in bytes, just below 2^63."""


class CgroupMode(StrEnum):
    """v1: controllers each in a tree; hybrid: the same plus a v2 tree beside; v2: one tree holds them all."""

    V1 = "v1"
    HYBRID = "hybrid"
    V2 = "v2"


class Layout(Struct, frozen=True, kw_only=True):
    """Where the hierarchies are mounted. `trees` maps a v1 controller to its mount point; `unified` is the v2 one."""

    mode: CgroupMode
    trees: Mapping[str, str] = field(default_factory=dict)
    unified: str | None = None
    leftover: frozenset[str] = frozenset()
    """Controllers of a hybrid host that no v1 hierarchy holds (from /proc/cgroups or cgroup.controllers)."""


def detect(mountinfo: str, own_cgroups: str = "", *, unified_controllers: str | None = None) -> Layout:
    """Read /proc/self/mountinfo. Only hierarchies mounted below /sys/fs/cgroup count; the last mount of one wins.

    unified_controllers: the text of the v2 root's cgroup.controllers; None reads it from the mount found.
    own_cgroups: /proc/self/cgroup, used only to tell controllers bound to v1.
    """
    trees: dict[str, str] = {}
    unified: str | None = None
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        fields, rest = head.split(), tail.split()
        if len(fields) < 5 or len(rest) < 3 or not _is_below_root(fields[4]):
            continue
        if rest[0] == "cgroup2":
            unified = fields[4]
        elif rest[0] == "cgroup":
            for option in rest[2].split(","):
                if option.startswith("name=") or option in _V1_NAMES:
                    trees[option] = fields[4]
    if not any(name in _V1_NAMES for name in trees):
        if unified is None:
            raise Unavailable("no cgroup hierarchy is mounted below /sys/fs/cgroup")
        return Layout(mode=CgroupMode.V2, unified=unified)
    if unified is None:
        return Layout(mode=CgroupMode.V1, trees=trees)
    text = _read_optional(Path(unified, "cgroup.controllers")) if unified_controllers is None else unified_controllers
    bound_to_v1 = {name for line in own_cgroups.splitlines() for name in line.split(":")[1].split(",")}
    left = frozenset(text.split()) - set(trees) - bound_to_v1
    return Layout(mode=CgroupMode.HYBRID, trees=trees, unified=unified, leftover=left)


_V1_NAMES = frozenset(
    {
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "misc",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
        "rdma",
    }
)


def _is_below_root(mount_point: str) -> bool:
    return mount_point == str(_ROOT) or mount_point.startswith(f"{_ROOT}/")


def controllers(layout: Layout) -> frozenset[str]:
    """What can be limited, in v1 names where there are two (`blkio`, not `io`)."""
    if layout.mode is not CgroupMode.V2:
        return frozenset(name for name in layout.trees if name in _V1_NAMES)
    assert layout.unified is not None
    names = set(_read_optional(Path(layout.unified, "cgroup.controllers")).split())
    if "io" in names:
        names.add("blkio")
    return frozenset(names | {"devices", "freezer"})


def has_file(layout: Layout, controller: str, *, v1: str, v2: str) -> bool:
    """Whether the kernel offers a control: looked up in the root (v1) or in any child of the root (v2)."""
    if layout.mode is not CgroupMode.V2:
        tree = layout.trees.get(controller)
        if tree is None:
            return False
        return Path(tree, v1).exists() or any(Path(child, v1).exists() for child in _children(Path(tree)))
    assert layout.unified is not None
    return any(Path(child, v2).exists() for child in _children(Path(layout.unified)))


def read_layout() -> Layout:
    """`detect` for this process, now."""
    return detect(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())


def ensure_crun_usable(layout: Layout) -> tuple[Path, ...]:
    """Mount controllers that a hybrid host left to v2 as v1 hierarchies, as Debian's cgroupfs-mount would.

    crun before 1.9 refuses a host whose v2 tree beside v1 still holds controllers. Returns where they are mounted now; raises
    Unavailable if the kernel refuses (then runc is the way).
    """
    mounted = []
    for name in sorted(layout.leftover & _V1_NAMES):
        target = _ROOT / name
        try:
            target.mkdir(exist_ok=True)
            linux.mount("cgroup", str(target), "cgroup", 0, name)
        except OSError as error:
            raise Unavailable(
                f"cgroup controller {name} is on the v2 hierarchy beside v1, and cannot be mounted: {error.strerror}",
                hint="use the runtime runc",
            ) from None
        mounted.append(target)
    return tuple(mounted)


def path_for(container_id: str, parent: str = "") -> str:
    """The group of a container, as the runtimes want it: absolute within each hierarchy.

    Raises InvalidArgument for a parent that climbs.
    """
    cleaned = os.path.normpath("/" + (parent or DEFAULT_PARENT))
    if ".." in parent.split("/"):
        raise InvalidArgument(f"invalid cgroup parent {parent!r}: it must not contain ..")
    cleaned = "/" + cleaned.lstrip("/")
    return f"/{container_id}" if cleaned == "/" else f"{cleaned}/{container_id}"


def directories(layout: Layout, path: str) -> list[Path]:
    """Every directory a group has, one per hierarchy; v2's own last."""
    relative = path.lstrip("/")
    tops = dict.fromkeys(layout.trees.values())
    found = [Path(top, relative) for top in tops]
    if layout.unified is not None:
        found.append(Path(layout.unified, relative))
    return found


def _directory(layout: Layout, controller: str, path: str) -> Path | None:
    if layout.mode is CgroupMode.V2:
        assert layout.unified is not None
        return Path(layout.unified, path.lstrip("/"))
    tree = layout.trees.get(controller)
    return Path(tree, path.lstrip("/")) if tree else None


# --- reading


class CpuStats(Struct, frozen=True, kw_only=True):
    """Nanoseconds of CPU time since the group was made; throttling counts periods."""

    total_nanos: int = 0
    user_nanos: int = 0
    system_nanos: int = 0
    per_cpu_nanos: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_nanos: int = 0


class MemoryStats(Struct, frozen=True, kw_only=True):
    """Bytes. `limit_bytes` None means unlimited; `details` is memory.stat as it is."""

    usage_bytes: int = 0
    max_usage_bytes: int | None = None
    limit_bytes: int | None = None
    failures: int = 0
    oom_kills: int = 0
    details: Mapping[str, int] = field(default_factory=dict)


class PidsStats(Struct, frozen=True, kw_only=True):
    """Processes and threads. `limit` None means unlimited."""

    current: int = 0
    limit: int | None = None


class BlockEntry(Struct, frozen=True, kw_only=True):
    """One counter of one device; `operation` is read, write, sync, async, discard or total."""

    major: int
    minor: int
    operation: str
    value: int


class Stats(Struct, frozen=True, kw_only=True):
    """One sample of a group."""

    cpu: CpuStats
    memory: MemoryStats
    pids: PidsStats
    block_bytes: tuple[BlockEntry, ...] = ()
    block_operations: tuple[BlockEntry, ...] = ()


def read_stats(layout: Layout, path: str) -> Stats:
    """Sample a group. A controller that is not there reads as zero. Raises NotFound when the group is gone."""
    anchor = _directory(layout, "memory", path) or _directory(layout, "pids", path)
    if anchor is not None and not anchor.is_dir():
        raise NotFound(f"no control group {path}")
    if layout.mode is CgroupMode.V2:
        assert anchor is not None
        return Stats(
            cpu=parse_cpu_v2(_read_optional(anchor / "cpu.stat")),
            memory=_memory_v2(anchor),
            pids=_pids(anchor),
            block_bytes=parse_io_stat(_read_optional(anchor / "io.stat"), ("rbytes", "wbytes")),
            block_operations=parse_io_stat(_read_optional(anchor / "io.stat"), ("rios", "wios")),
        )
    block = _directory(layout, "blkio", path)
    return Stats(
        cpu=_cpu_v1(_directory(layout, "cpuacct", path), _directory(layout, "cpu", path)),
        memory=_memory_v1(_directory(layout, "memory", path)),
        pids=_pids(_directory(layout, "pids", path)),
        block_bytes=_block_v1(block, "io_service_bytes_recursive"),
        block_operations=_block_v1(block, "io_serviced_recursive"),
    )


def parse_flat(text: str) -> dict[str, int]:
    """`key value` lines; lines that are not that are skipped."""
    out: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.lstrip("-").isdecimal():
            out[key] = int(value)
    return out


def parse_cpu_v2(text: str) -> CpuStats:
    """cpu.stat of v2: microseconds."""
    flat = parse_flat(text)
    return CpuStats(
        total_nanos=flat.get("usage_usec", 0) * 1000,
        user_nanos=flat.get("user_usec", 0) * 1000,
        system_nanos=flat.get("system_usec", 0) * 1000,
        periods=flat.get("nr_periods", 0),
        throttled_periods=flat.get("nr_throttled", 0),
        throttled_nanos=flat.get("throttled_usec", 0) * 1000,
    )


def parse_io_stat(text: str, keys: tuple[str, str]) -> tuple[BlockEntry, ...]:
    """io.stat of v2: `8:0 rbytes=… wbytes=…`; keys: the read and the write counter wanted."""
    out: list[BlockEntry] = []
    for line in text.splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if not (major.isdecimal() and minor.isdecimal()):
            continue
        for operation, key in zip(("read", "write"), keys, strict=True):
            if key in values:
                out.append(BlockEntry(major=int(major), minor=int(minor), operation=operation, value=int(values[key])))
    return tuple(out)


def parse_blkio_v1(text: str) -> tuple[BlockEntry, ...]:
    """blkio counters of v1: `8:0 Read 4096`; the closing `Total n` line is left out."""
    out: list[BlockEntry] = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3:
            major, _, minor = fields[0].partition(":")
            out.append(
                BlockEntry(major=int(major), minor=int(minor), operation=fields[1].lower(), value=int(fields[2]))
            )
    return tuple(out)


def _cpu_v1(accounting: Path | None, cpu: Path | None) -> CpuStats:
    throttling = parse_flat(_read_optional(cpu / "cpu.stat")) if cpu else {}
    if accounting is None:
        return CpuStats()
    per_cpu = tuple(int(n) for n in _read_optional(accounting / "cpuacct.usage_percpu").split())
    ticks = parse_flat(_read_optional(accounting / "cpuacct.stat"))
    nanos_per_tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return CpuStats(
        total_nanos=int(_read_optional(accounting / "cpuacct.usage") or 0),
        user_nanos=ticks.get("user", 0) * nanos_per_tick,
        system_nanos=ticks.get("system", 0) * nanos_per_tick,
        per_cpu_nanos=per_cpu,
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_nanos=throttling.get("throttled_time", 0),
    )


def _memory_v1(directory: Path | None) -> MemoryStats:
    if directory is None:
        return MemoryStats()
    limit = int(_read_optional(directory / "memory.limit_in_bytes") or 0)
    return MemoryStats(
        usage_bytes=int(_read_optional(directory / "memory.usage_in_bytes") or 0),
        max_usage_bytes=int(_read_optional(directory / "memory.max_usage_in_bytes") or 0),
        limit_bytes=None if limit >= _PAGE_COUNTER_MAX else limit,
        failures=int(_read_optional(directory / "memory.failcnt") or 0),
        oom_kills=parse_flat(_read_optional(directory / "memory.oom_control")).get("oom_kill", 0),
        details=parse_flat(_read_optional(directory / "memory.stat")),
    )


def _memory_v2(directory: Path) -> MemoryStats:
    events = parse_flat(_read_optional(directory / "memory.events"))
    return MemoryStats(
        usage_bytes=int(_read_optional(directory / "memory.current") or 0),
        max_usage_bytes=int(_read_optional(directory / "memory.peak") or 0) or None,
        limit_bytes=_maximum(_read_optional(directory / "memory.max")),
        failures=events.get("max", 0),
        oom_kills=events.get("oom_kill", 0),
        details=parse_flat(_read_optional(directory / "memory.stat")),
    )


def _pids(directory: Path | None) -> PidsStats:
    if directory is None:
        return PidsStats()
    return PidsStats(
        current=int(_read_optional(directory / "pids.current") or 0),
        limit=_maximum(_read_optional(directory / "pids.max")),
    )


def _block_v1(directory: Path | None, counter: str) -> tuple[BlockEntry, ...]:
    if directory is None:
        return ()
    # With the BFQ scheduler the counters are its own; without, those of the throttling policy.
    text = _read_optional(directory / f"blkio.bfq.{counter}")
    entries = parse_blkio_v1(text)
    return entries or parse_blkio_v1(_read_optional(directory / f"blkio.throttle.{counter}"))


def _maximum(text: str) -> int | None:
    return None if text in ("", "max") else int(text)


# --- changing


class Limits(Struct, frozen=True, kw_only=True):
    """New values; None leaves a limit as it is, -1 (memory, swap, quota, pids) lifts it.

    `swap_bytes` is memory plus swap, as Docker counts. Quota and period are microseconds.
    """

    memory_bytes: int | None = None
    swap_bytes: int | None = None
    reservation_bytes: int | None = None
    cpu_shares: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpu_rt_period_us: int | None = None
    cpu_rt_runtime_us: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids: int | None = None
    blkio_weight: int | None = None


class Write(Struct, frozen=True, kw_only=True):
    """One value for one file of a controller."""

    controller: str
    file: str
    value: str


def plan_update(
    limits: Limits, *, mode: CgroupMode, current_memory_bytes: int | None = None, has_swap: bool = True
) -> list[Write]:
    """The writes that bring a running group to `limits`, in an order the kernel accepts.

    current_memory_bytes: the present limit (None: unlimited). On v1 the limit may never exceed memory+swap on the way:
    when it grows, swap is written first; when it shrinks, last.
    """
    writes = _plan_v2(limits, has_swap=has_swap) if mode is CgroupMode.V2 else []
    if mode is not CgroupMode.V2:
        writes = _plan_v1(limits, current_memory_bytes=current_memory_bytes, has_swap=has_swap)
    return writes


def _plan_v1(limits: Limits, *, current_memory_bytes: int | None, has_swap: bool) -> list[Write]:
    memory: list[Write] = []
    if limits.memory_bytes is not None:
        memory.append(Write(controller="memory", file="memory.limit_in_bytes", value=str(limits.memory_bytes)))
    if limits.swap_bytes is not None and has_swap:
        memory.append(Write(controller="memory", file="memory.memsw.limit_in_bytes", value=str(limits.swap_bytes)))
    grows = limits.memory_bytes is not None and (
        limits.memory_bytes < 0 or (current_memory_bytes is not None and limits.memory_bytes > current_memory_bytes)
    )
    if grows:
        memory.reverse()
    simple: list[tuple[str, str, int | str | None]] = [
        ("memory", "memory.soft_limit_in_bytes", limits.reservation_bytes),
        ("cpu", "cpu.shares", limits.cpu_shares),
        ("cpu", "cpu.cfs_period_us", limits.cpu_period_us),
        ("cpu", "cpu.cfs_quota_us", limits.cpu_quota_us),
        ("cpu", "cpu.rt_period_us", limits.cpu_rt_period_us),
        ("cpu", "cpu.rt_runtime_us", limits.cpu_rt_runtime_us),
        ("cpuset", "cpuset.cpus", limits.cpuset_cpus),
        ("cpuset", "cpuset.mems", limits.cpuset_mems),
        ("pids", "pids.max", _text_maximum(limits.pids)),
        ("blkio", "blkio.weight", limits.blkio_weight),
    ]
    return memory + [Write(controller=c, file=f, value=str(v)) for c, f, v in simple if v is not None]


def _plan_v2(limits: Limits, *, has_swap: bool) -> list[Write]:
    writes: list[tuple[str, str, str | None]] = [("memory", "memory.max", _text_maximum(limits.memory_bytes))]
    if has_swap and limits.swap_bytes is not None:
        swap = -1 if limits.swap_bytes < 0 else max(0, limits.swap_bytes - max(0, limits.memory_bytes or 0))
        writes.append(("memory", "memory.swap.max", _text_maximum(swap)))
    writes.append(("memory", "memory.low", _text_maximum(limits.reservation_bytes)))
    if limits.cpu_shares is not None:
        writes.append(("cpu", "cpu.weight", str(shares_to_weight(limits.cpu_shares))))
    if limits.cpu_quota_us is not None or limits.cpu_period_us is not None:
        quota = _text_maximum(limits.cpu_quota_us) or "max"
        period = f" {limits.cpu_period_us}" if limits.cpu_period_us else ""
        writes.append(("cpu", "cpu.max", quota + period))
    writes += [
        ("cpuset", "cpuset.cpus", limits.cpuset_cpus),
        ("cpuset", "cpuset.mems", limits.cpuset_mems),
        ("pids", "pids.max", _text_maximum(limits.pids)),
    ]
    if limits.blkio_weight is not None:
        writes.append(("io", "io.weight", f"default {blkio_weight_to_io(limits.blkio_weight)}"))
    return [Write(controller=c, file=f, value=v) for c, f, v in writes if v is not None]


def shares_to_weight(shares: int) -> int:
    """cpu.shares 2…262144 to cpu.weight 1…10000, linearly, as the OCI runtimes do; 0 stays 0 (unset)."""
    return 0 if shares == 0 else 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142


def blkio_weight_to_io(weight: int) -> int:
    """blkio.weight 10…1000 to io.weight 1…10000; 0 stays 0 (unset)."""
    return 0 if weight == 0 else 1 + (weight - 10) * 9999 // 990


def _text_maximum(value: int | None) -> str | None:
    if value is None:
        return None
    return "max" if value < 0 else str(value)


def apply(layout: Layout, path: str, writes: Sequence[Write]) -> None:
    """Write a plan. Raises NotFound when the group is gone, Conflict when the kernel refuses a value as too small."""
    for write in writes:
        directory = _directory(layout, write.controller, path)
        if directory is None:
            raise Unavailable(f"cgroup controller {write.controller} is not mounted")
        _write(directory / write.file, write.value)


def freeze(layout: Layout, path: str, *, frozen: bool) -> None:
    """Stop or resume every process of the group. Returns when the kernel says it is so asked, not when all stopped."""
    directory = _directory(layout, "freezer", path)
    if directory is None:
        raise Unavailable("cgroup controller freezer is not mounted")
    if layout.mode is CgroupMode.V2:
        _write(directory / "cgroup.freeze", "1" if frozen else "0")
    else:
        _write(directory / "freezer.state", "FROZEN" if frozen else "THAWED")


def is_frozen(layout: Layout, path: str) -> bool:
    """Whether all processes of the group stand still. Raises NotFound when the group is gone."""
    directory = _directory(layout, "freezer", path)
    if directory is None or not directory.is_dir():
        raise NotFound(f"no control group {path}")
    if layout.mode is CgroupMode.V2:
        return parse_flat(_read_optional(directory / "cgroup.events")).get("frozen", 0) == 1
    return _read_optional(directory / "freezer.state") == "FROZEN"


def pids(layout: Layout, path: str) -> list[int]:
    """Processes of the group and of groups inside it, ascending. A group that is gone has none."""
    directory = _directory(layout, "pids", path) or _directory(layout, "devices", path)
    if directory is None:
        return []
    found: set[int] = set()
    for current in (directory, *(Path(p) for p, _, _ in os.walk(directory))):
        found.update(int(pid) for pid in _read_optional(current / "cgroup.procs").split())
    return sorted(found)


def remove(layout: Layout, path: str) -> None:
    """Remove the group from every hierarchy, inner groups first. Idempotent.

    Raises Conflict when a process is still inside.
    """
    failpoints.hit("cgroup.remove")
    for top in directories(layout, path):
        for current, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(current)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise Conflict(f"control group {path} still holds processes") from None
                raise InternalError(f"cannot remove control group {current}: {error.strerror}") from None


def owned(layout: Layout, parent: str = DEFAULT_PARENT) -> set[str]:
    """Names of the groups below our parent, over all hierarchies."""
    return {child.name for top in directories(layout, parent) for child in _children(top)}


def _children(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _read_optional(path: Path) -> str:
    """The text without the last newline; "" when the file is not there or the group just went."""
    try:
        return path.read_text().rstrip("\n")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.ENOTDIR):
            return ""
        raise InternalError(f"cannot read {path}: {error.strerror}") from None


def _write(path: Path, value: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"no control file {path}") from None
    except OSError as error:
        raise InternalError(f"cannot write {path}: {error.strerror}") from None
    try:
        os.write(fd, value.encode())
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Conflict(f"cannot set {path.name} to {value}: the group uses more already") from None
        raise InvalidArgument(f"cannot set {path.name} to {value}: {error.strerror}") from None
    finally:
        os.close(fd)
