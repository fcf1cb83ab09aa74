"""What the kernel holds for this engine: processes, monitors, mounts, control groups, links, rules. Read-only.

Control groups have no mark of their engine, so only those of containers that are known are looked at. A bridge's ports
are compared by number: an interface inside a container has no name of its own on the host's side.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tare.drivers import cgroups
from tare.drivers.runtime.monitor import start_time
from tare.engine.engine import Engine
from tare.engine.release import cgroup_path

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One look. Ids of containers, but for `ports`: bridges to the number of interfaces on them, None for no bridge."""

    processes: frozenset[str] = frozenset()
    monitors: frozenset[str] = frozenset()
    mounts: frozenset[str] = frozenset()
    cgroups: frozenset[str] = frozenset()
    ports: Mapping[str, int | None] = field(default_factory=dict)


def look(engine: Engine) -> Kernel:
    """Look now. Blocks for some milliseconds; for a thread. The records are read as they are: this changes none."""
    containers = [slot.container for slot in engine.containers]
    return Kernel(
        processes=frozenset(
            container.id
            for container in containers
            if container.process is not None and start_time(container.process.pid) == container.process.pid_started
        ),
        monitors=_monitors(engine.monitor.exec_root / "containers"),
        mounts=mounted(Path("/proc/self/mountinfo").read_text(), engine.monitor.exec_root / "containers"),
        cgroups=frozenset(
            container.id
            for container in containers
            if any(path.is_dir() for path in cgroups.directories(engine.cgroups, cgroup_path(container)))
        ),
        ports={network.bridge: _ports(network.bridge) for network in engine.networks.list() if network.bridge},
    )


def mounted(mountinfo: str, bundles: Path) -> frozenset[str]:
    """Ids of the containers whose root is mounted below `bundles`. Source: proc_pid_mountinfo(5)."""
    found = set()
    for line in mountinfo.splitlines():
        place = Path(_ESCAPED.sub(lambda octal: chr(int(octal.group(1), 8)), line.split()[4]))
        if place.name == "rootfs" and place.parent.parent == bundles:
            found.add(place.parent.name)
    return frozenset(found)


def _monitors(bundles: Path) -> frozenset[str]:
    """Containers that a monitor of ours holds: its command line names the bundle."""
    found = set()
    prefix = os.fsencode(bundles) + b"/"
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if b"--exit-dir" not in words or b"--exec-attach" in words or b"--bundle" not in words:
            continue
        bundle = words[words.index(b"--bundle") + 1]
        if bundle.startswith(prefix):
            found.add(bundle.removeprefix(prefix).decode("utf-8", "replace"))
    return frozenset(found)


def _ports(bridge: str) -> int | None:
    try:
        return len(os.listdir(f"/sys/class/net/{bridge}/brif"))
    except FileNotFoundError:
        return None
