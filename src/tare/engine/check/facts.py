"""What a check looks at: the records in memory, those in the database, and the names on the disk, all as one value.

Others go on meanwhile. So the disk is listed before and after the records are read: a file that a record lacks must be
absent both times, a file that no record knows present both times. What an operation in flight has is known by its lease,
its draft, its name in `engine.creating`, or by being young (`grace_s`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from msgspec import Struct, field

from tare.aio.threads import in_thread
from tare.base.digest import Digest, sha256
from tare.base.ids import is_full_id
from tare.containers.container import State
from tare.containers.service import Slot
from tare.engine.check.kernel import Kernel, look
from tare.engine.engine import Engine
from tare.images.records import Image, Inventory, Layer
from tare.networks.auditing import Due
from tare.registry.downloads import KEPT_S

_INIT = "init"
_TEMPORARY = (".new-",)


class Listing(Struct, frozen=True):
    """The names on the disk at one moment. Sizes in bytes; `young` and `old`: see `gather`.

    snapshots: name to the name of its parent, "" for none, None where the note about it is missing.
    """

    blobs: Mapping[str, int]
    snapshots: Mapping[str, str | None]
    container_directories: frozenset[str]
    bundles: frozenset[str]
    exits: frozenset[str]
    volumes: frozenset[str]
    leftovers: frozenset[str]


class ContainerFacts(Struct, frozen=True, kw_only=True):
    """A container as far as a check cares. is_moving: a verb works at it; is_going: its removal began, and is repeated
    at the next start where it failed. addresses: network id and address of each of its endpoints; volumes: those it has
    mounted."""

    id: str
    name: str
    image_id: str
    is_running: bool
    is_moving: bool
    is_going: bool = False
    addresses: tuple[tuple[str, str], ...] = ()
    volumes: frozenset[str] = frozenset()


class Rows(Struct, frozen=True, kw_only=True):
    """What only the database knows."""

    containers: frozenset[str]
    addresses: tuple[tuple[str, str, str], ...]  # network id, address, container id
    networks: frozenset[str]
    bad_manifests: tuple[str, ...]
    complaints: tuple[str, ...]


class World(Struct, frozen=True, kw_only=True):
    """Everything the invariants are about. is_quiet: no operation is in flight, so nothing may be in between."""

    before: Listing
    after: Listing
    inventory: Inventory
    rows: Rows
    containers: Mapping[str, ContainerFacts]
    creating: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    believed: frozenset[str] = frozenset()  # layers' snapshots that the engine takes for being there
    cache: Mapping[str, str] = field(default_factory=dict)
    kernel_before: Kernel = field(default_factory=Kernel)
    kernel_after: Kernel = field(default_factory=Kernel)
    bridges: Mapping[str, int] = field(default_factory=dict)  # to the number of containers plugged in
    due: Due = field(default_factory=Due)
    links: frozenset[str] = frozenset()  # bridges and parents of networks
    image_mounts: Mapping[str, str] = field(default_factory=dict)  # on the host: target to key
    is_quiet: bool = False

    @property
    def layers(self) -> Mapping[Digest, Layer]:
        """Every layer known, by chainID."""
        return self.inventory.layers

    @property
    def images(self) -> Mapping[Digest, Image]:
        """Every image known."""
        return self.inventory.images


async def gather(engine: Engine, *, grace_s: float, is_quiet: bool = False) -> World:
    """Look at everything but contents. grace_s: how old a file of an operation must be to count as left over."""
    before, kernel_before = await in_thread(_list, engine, grace_s), await in_thread(look, engine)
    inventory = await engine.images.inventory()
    rows = await engine.db.read(_rows)
    containers: dict[str, ContainerFacts] = {
        slot.container.id: ContainerFacts(
            id=slot.container.id,
            name=slot.container.name,
            image_id=slot.container.image_id,
            is_running=slot.container.is_running,
            is_moving=is_moving(slot),
            addresses=tuple(
                (endpoint.NetworkID, str(ip_address(text)))
                for endpoint in slot.container.endpoints.values()
                for text in (endpoint.IPAddress, endpoint.GlobalIPv6Address)
                if text and slot.container.is_running
            ),
            volumes=frozenset(
                point.name for point in slot.container.mounts if point.type == "volume" and slot.container.is_running
            ),
            is_going=slot.container.state is State.REMOVING,
        )
        for slot in engine.containers
    }
    volumes = frozenset(record.name for record in engine.volumes.select({}) if record.driver == "local")
    believed = frozenset(
        name for chain in inventory.layers if engine.snapshots.exists(name := chain.removeprefix("sha256:"))
    )
    creating = frozenset(engine.creating)
    cache = {record.key: record.chain for record in engine.build_cache.records() if record.chain is not None}
    bridges = {
        network.bridge: len(engine.networks.members(network.id)) for network in engine.networks.list() if network.bridge
    }
    due = due_of(engine)
    image_mounts = {record.target: record.key for record in engine.image_mounts.values()}
    after, kernel_after = await in_thread(_list, engine, grace_s), await in_thread(look, engine)
    return World(
        before=before,
        after=after,
        inventory=inventory,
        rows=rows,
        containers=containers,
        creating=creating | frozenset(engine.creating),
        volumes=volumes,
        believed=believed,
        cache=cache,
        kernel_before=kernel_before,
        kernel_after=kernel_after,
        bridges=bridges,
        due=due,
        links=engine.networks.strays.known(),
        image_mounts=image_mounts,
        is_quiet=is_quiet,
    )


def due_of(engine: Engine) -> Due:
    """What rules, ports and namespaces must be now, by the records."""
    return engine.networks.audit.due(
        {slot.container.id: slot.container.ports for slot in engine.containers if slot.container.is_running}
    )


def is_moving(slot: Slot) -> bool:
    """A verb works at it, or its end is being dealt with."""
    is_ending = not slot.container.is_running and not slot.stopped.is_set()
    return slot.lock.locked() or slot.is_being_removed or slot.restarting is not None or is_ending


def _rows(db: sqlite3.Connection) -> Rows:
    return Rows(
        containers=frozenset(row[0] for row in db.execute("SELECT id FROM containers")),
        addresses=tuple(
            (row[0], str(ip_address(row[1])), row[2])
            for row in db.execute("SELECT network_id, address, container_id FROM network_leases")
        ),
        networks=frozenset(row[0] for row in db.execute("SELECT id FROM networks")),
        bad_manifests=tuple(
            row[0] for row in db.execute("SELECT digest, raw FROM manifests") if sha256(row[1]) != row[0]
        ),
        complaints=tuple(row[0] for row in db.execute("PRAGMA quick_check(5)") if row[0] != "ok"),
    )


def _list(engine: Engine, grace_s: float) -> Listing:
    data, run = engine.settings.data_root, engine.settings.exec_root
    leftovers: set[str] = set()
    for area, kept_s in (("ingest", grace_s), ("trash", grace_s), ("downloads", KEPT_S), ("uploads", KEPT_S)):
        leftovers |= {f"{area}/{name}" for name in _older(data / area, max(grace_s, kept_s) if grace_s else 0)}
    snapshots: dict[str, str | None] = {}
    for name in _names(data / "snapshots"):
        if is_full_id(name):
            snapshots[name] = _parent(data / "snapshots" / name)
        elif name != _INIT and not name.startswith(_TEMPORARY):
            leftovers.add(f"snapshots/{name}")
    leftovers |= {f"snapshots/{name}" for name in _older(data / "snapshots", grace_s) if name.startswith(_TEMPORARY)}
    return Listing(
        blobs=_sizes(data / "blobs" / "sha256"),
        snapshots=snapshots,
        container_directories=frozenset(name for name in _names(data / "containers") if is_full_id(name)),
        bundles=frozenset(_names(run / "containers")),
        exits=frozenset(_names(run / "exits")),
        volumes=frozenset(name for name in _names(data / "volumes") if (data / "volumes" / name / "_data").is_dir()),
        leftovers=frozenset(leftovers),
    )


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _sizes(directory: Path) -> dict[str, int]:
    found = {}
    for name in _names(directory):
        try:
            found[f"sha256:{name}"] = os.stat(directory / name, follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return found


def _older(directory: Path, age_s: float) -> list[str]:
    """Members whose inode last changed longer ago."""
    now = time.time()
    old = []
    for name in _names(directory):
        try:
            if now - os.stat(directory / name, follow_symlinks=False).st_ctime >= age_s:
                old.append(name)
        except FileNotFoundError:
            continue
    return old


def _parent(directory: Path) -> str | None:
    try:
        return (directory / "parent").read_text() if (directory / "fs").is_dir() else None
    except (OSError, UnicodeDecodeError):
        return None
