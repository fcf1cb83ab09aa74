"""What the kernel holds for this engine: processes, namespaces, monitors, mounts, control groups, links, rules. Read-only.

Control groups have no mark of their engine, so only those of containers that are known are looked at. A bridge's ports
are compared by number: an interface inside a container has no name of its own on the host's side.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct, field

from tare.drivers import cgroups
from tare.drivers.runtime.monitor import start_time
from tare.engine.engine import Engine
from tare.engine.release import cgroup_path

_ROOT = re.compile(r"run/containers/([^/]+)/rootfs\Z")
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Kernel(Struct, frozen=True, kw_only=True):
    """One look. Ids of containers where nothing else is said.

    places: mounts below the roots, as `run/…` and `data/…`. elsewhere: targets of mounted images where one is mounted.
    ports: bridges to the number of interfaces on them, None for no bridge. rules: elements of our sets and maps in
    words, None where the packet filter is not used. networks: the network namespace of each container's first process;
    home: ours; kept: others that the engine itself keeps alive. links: those that this engine has made, to the number of
    interfaces that use each.
    """

    processes: frozenset[str] = frozenset()
    monitors: frozenset[str] = frozenset()
    mounts: frozenset[str] = frozenset()
    cgroups: frozenset[str] = frozenset()
    ports: Mapping[str, int | None] = field(default_factory=dict)
    places: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    rules: frozenset[str] | None = None
    networks: Mapping[str, str] = field(default_factory=dict)
    home: str = ""
    kept: frozenset[str] = frozenset()
    links: Mapping[str, int] = field(default_factory=dict)


def look(engine: Engine) -> Kernel:
    """Look now. Blocks for some milliseconds; for a thread. The records are read as they are: this changes none."""
    containers = [slot.container for slot in engine.containers]
    targets = mount_points(Path("/proc/self/mountinfo").read_text())
    places = below(targets, data=engine.settings.data_root, run=engine.settings.exec_root)
    processes = {
        container.id: container.process.pid
        for container in containers
        if container.process is not None and start_time(container.process.pid) == container.process.pid_started
    }
    home = _network("/proc/self/ns/net")
    return Kernel(
        processes=frozenset(processes),
        monitors=_monitors(engine.monitor.exec_root / "containers"),
        mounts=frozenset(match.group(1) for place in places if (match := _ROOT.match(place))),
        cgroups=frozenset(
            container.id
            for container in containers
            if any(path.is_dir() for path in cgroups.directories(engine.cgroups, cgroup_path(container)))
        ),
        ports={network.bridge: _ports(network.bridge) for network in engine.networks.list() if network.bridge},
        places=places,
        elsewhere=targets & frozenset(engine.image_mounts),
        rules=engine.networks.audit.said(),
        networks={key: found for key, pid in processes.items() if (found := _network(f"/proc/{pid}/ns/net"))},
        home=home,
        links=engine.networks.strays.marked(),
        kept=frozenset(
            found
            for number in os.listdir("/proc/self/fd")
            if (found := _network(f"/proc/self/fd/{number}")) not in ("", home)
        ),
    )


def mount_points(mountinfo: str) -> frozenset[str]:
    """Where something is mounted. Source: proc_pid_mountinfo(5)."""
    return frozenset(
        _ESCAPED.sub(lambda octal: chr(int(octal.group(1), 8)), line.split()[4]) for line in mountinfo.splitlines()
    )


def below(targets: Iterable[str], *, data: Path, run: Path) -> frozenset[str]:
    """Those below the roots, named from there: `data/…` and `run/…`."""
    roots = [(f"{os.path.realpath(root)}/", name) for root, name in ((run, "run/"), (data, "data/"))]
    return frozenset(
        name + target.removeprefix(root) for target in targets for root, name in roots if target.startswith(root)
    )


def _network(link: str) -> str:
    """The name of a network namespace, as `net:[4026531840]`; "" where there is none."""
    try:
        found = os.readlink(link)
    except OSError:
        return ""
    return found if found.startswith("net:[") else ""


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
