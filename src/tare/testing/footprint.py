"""What a host holds that a container engine might leave behind, as comparable sets."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, fields
from pathlib import Path

from tare.base.errors import TareError
from tare.drivers import cgroups, linux
from tare.drivers.network.nft import Nft

_OURS = ("conmon", "crun", "runc", "tare")
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """Each a set of names; two of them are compared member by member."""

    processes: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    namespaces: frozenset[str]
    cgroups: frozenset[str]
    tables: frozenset[str]
    files: frozenset[str]


def take() -> Footprint:
    """Look now."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return Footprint(
        processes=frozenset(_processes()),
        mounts=frozenset(line.split()[4] for line in mounts),
        links=frozenset(os.listdir("/sys/class/net")),
        namespaces=frozenset(_listed("/run/netns")),
        cgroups=frozenset(_cgroups()),
        tables=frozenset(_tables()),
        files=frozenset(
            f"{directory}/{name}"
            for directory in ("/tmp", "/var/tmp", "/run", "/var/lib")
            for name in _listed(directory)
            if "tare" in name or name.startswith(("tt-", "conmon"))
        ),
    )


def settle(before: Footprint, *, own: str) -> list[str]:
    """What is there now and was not before, one line each. The kernel takes a moment to remove links.

    own: the directory of the tests' engines. While engines of somebody else run on the host, only what names that
    directory can be told to be ours.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while left := [line for line in _added(before, take()) if own in line or not other_engines(own)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return left


def other_engines(own: str) -> list[str]:
    """Engines on this host that the tests did not start."""
    return [line for line in _processes() if ("tare.daemon" in line or "tare daemon" in line) and own not in line]


def _added(before: Footprint, after: Footprint) -> list[str]:
    return [
        f"{field.name}: {name}"
        for field in fields(Footprint)
        for name in sorted(getattr(after, field.name) - getattr(before, field.name))
    ]


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _processes() -> set[str]:
    found: set[str] = set()
    for pid in _listed("/proc"):
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        line = b" ".join(words).decode("utf-8", "replace").strip()
        if any(word in line for word in _OURS) and "pytest" not in line:
            found.add(f"{pid} {line[:300]}")
    return found


def _cgroups() -> set[str]:
    found: set[str] = set()
    for mount in Path("/proc/self/mountinfo").read_text().splitlines():
        words, _, kind = mount.partition(" - ")
        if kind.startswith("cgroup"):
            top = Path(words.split()[4]) / "tare"
            # os.walk passes over what disappears meanwhile: another engine may end a container right now
            found |= {f"{directory}/{name}" for directory, names, _ in os.walk(top) for name in names}
    return found


def _tables() -> list[str]:
    try:
        nft = Nft()
    except TareError:
        return []
    try:
        return sorted(table for table in nft.tables() if "tare" in table)
    finally:
        nft.close()


def prepare_host() -> list[Path]:
    """What the engine would do to the host once and for all is done now, so that it does not count. For `unprepare_host`."""
    return list(cgroups.ensure_crun_usable(cgroups.read_layout()))


def unprepare_host(prepared: list[Path], *, own: str) -> None:
    """Take it back, unless engines of somebody else have come to need it. own: the directory of the tests' engines."""
    if other_engines(own):
        return
    for tree in prepared:
        for directory in sorted(tree.glob("tare/**/"), reverse=True):
            directory.rmdir()
        linux.umount(str(tree), linux.MNT_DETACH)
        tree.rmdir()
