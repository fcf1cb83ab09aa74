"""What this host can do, read once at start: the facts that plans and checks are made from.

`HostFacts` is a value; `read` fills it from the kernel. Everything that decides takes the value, so that decisions can
be tested for hosts we do not have.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import resource
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from tare.drivers import cgroups
from tare.drivers.cgroups import CgroupMode

_LIMITS: Mapping[str, str] = {
    "core": "RLIMIT_CORE",
    "cpu": "RLIMIT_CPU",
    "data": "RLIMIT_DATA",
    "fsize": "RLIMIT_FSIZE",
    "memlock": "RLIMIT_MEMLOCK",
    "msgqueue": "RLIMIT_MSGQUEUE",
    "nice": "RLIMIT_NICE",
    "nofile": "RLIMIT_NOFILE",
    "nproc": "RLIMIT_NPROC",
    "rss": "RLIMIT_RSS",
    "rtprio": "RLIMIT_RTPRIO",
    "rttime": "RLIMIT_RTTIME",
    "sigpending": "RLIMIT_SIGPENDING",
    "stack": "RLIMIT_STACK",
}
_RLIMIT_RTTIME = 15  # the resource module has no name for it

UNLIMITED = (1 << 64) - 1
"""RLIM_INFINITY as the kernel and the runtimes write it."""


class HostFacts(Struct, frozen=True, kw_only=True):
    """A host as far as containers care. `cpus`/`mems` are lists like `0-3,5`; limits are (soft, hard)."""

    machine: str = "x86_64"
    kernel: tuple[int, int] = (6, 1)
    capabilities: frozenset[str] = frozenset()
    cgroup_mode: CgroupMode = CgroupMode.V2
    controllers: frozenset[str] = frozenset({"cpu", "cpuset", "io", "memory", "pids"})
    cpu_count: int = 1
    cpus: str = "0"
    mems: str = "0"
    memory_bytes: int = 1 << 30
    pid_max: int = 32768
    has_swap_limit: bool = True
    has_blkio_weight: bool = True
    has_cpu_quota: bool = True
    has_cpu_realtime: bool = False
    has_ip_forward: bool = True
    thermal_throttle: tuple[str, ...] = ()
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def can_raise_rlimits(self) -> bool:
        """Whether a hard limit above our own can be given to a container."""
        return "CAP_SYS_RESOURCE" in self.capabilities


def read(capability_names: tuple[str, ...]) -> HostFacts:
    """Ask the kernel. capability_names: every capability by bit number (`containers.capabilities.ALL`)."""
    layout = cgroups.detect(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    controllers = cgroups.controllers(layout)
    mask = _capability_mask(Path("/proc/self/status").read_text())
    return HostFacts(
        machine=platform.machine(),
        kernel=_kernel_version(platform.release()),
        capabilities=frozenset(name for bit, name in enumerate(capability_names) if mask >> bit & 1),
        cgroup_mode=layout.mode,
        controllers=controllers,
        cpu_count=len(os.sched_getaffinity(0)),
        cpus=_text("/sys/devices/system/cpu/online") or "0",
        mems=_text("/sys/devices/system/node/online") or "0",
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        pid_max=int(_text("/proc/sys/kernel/pid_max") or 32768),
        has_swap_limit=cgroups.has_file(layout, "memory", v1="memory.memsw.limit_in_bytes", v2="memory.swap.max"),
        # Of v1 only the file that both runtimes write: crun fails where there is nothing but blkio.bfq.weight.
        has_blkio_weight=cgroups.has_file(layout, "blkio", v1="blkio.weight", v2="io.weight")
        or cgroups.has_file(layout, "blkio", v1="blkio.weight", v2="io.bfq.weight"),
        has_cpu_quota=cgroups.has_file(layout, "cpu", v1="cpu.cfs_quota_us", v2="cpu.max"),
        has_cpu_realtime=layout.mode is not CgroupMode.V2
        and cgroups.has_file(layout, "cpu", v1="cpu.rt_runtime_us", v2="cpu.rt_runtime_us"),
        has_ip_forward=_text("/proc/sys/net/ipv4/ip_forward") == "1",
        thermal_throttle=tuple(sorted(str(p) for p in Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle"))),
        rlimits=_rlimits(),
    )


def _capability_mask(status: str) -> int:
    """The permitted set: what can be handed on."""
    found = re.search(r"^CapPrm:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return int(found.group(1), 16) if found else 0


def _kernel_version(release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _rlimits() -> dict[str, tuple[int, int]]:
    out: dict[str, tuple[int, int]] = {}
    for short, name in _LIMITS.items():
        number = getattr(resource, name, _RLIMIT_RTTIME)
        soft, hard = resource.getrlimit(number)
        out[short] = (UNLIMITED if soft < 0 else soft, UNLIMITED if hard < 0 else hard)
    return out


def machine() -> str:
    """A name of this machine that says nothing about it: the same for every engine on it.

    Source: machine-id(5), which asks not to show the id itself. Without one, the boot is what tells machines apart.
    """
    for path in (Path("/etc/machine-id"), Path("/proc/sys/kernel/random/boot_id")):
        try:
            found = path.read_bytes().strip()
        except OSError:
            continue
        if found:
            return hashlib.sha256(b"tare container package\0" + found).hexdigest()
    return ""
