"""The engine: a frozen record of services. It has no methods; the verbs are the modules beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from tare.base.counters import Counters
from tare.build.autobuilds import Autobuilds
from tare.build.cache import BuildCache
from tare.containers.cdi import DIRECTORIES as CDI_DIRECTORIES
from tare.containers.container import Container
from tare.containers.execs import Execs
from tare.containers.logoptions import DEFAULT_DRIVER
from tare.containers.service import Containers
from tare.containers.view import Files, InspectCache, SummaryCache
from tare.drivers.archive.client import Archiver
from tare.drivers.cgroups import Layout
from tare.drivers.host import HostFacts
from tare.drivers.inotify import Alarms
from tare.drivers.logsinks import JOURNAL
from tare.drivers.migration import Migration
from tare.drivers.runtime.monitor import Monitor
from tare.drivers.runtime.oci import OciRuntime
from tare.drivers.runtime.sessions import Sessions
from tare.drivers.seccomp import FilterCache
from tare.drivers.snapshots import Snapshotter
from tare.drivers.userns import Mapping as IdMapping
from tare.engine.events import Events
from tare.images.cleanup import NEVER, Policy
from tare.images.manifests import Manifests
from tare.images.mounted import ImageMount
from tare.images.pull import Pulls
from tare.images.push import Pushes
from tare.images.records import ImageUse
from tare.images.service import Images
from tare.networks.service import Networks
from tare.registry.transport import Transport
from tare.store.db import Database
from tare.store.reserve import Reserve
from tare.volumes.service import Volumes
from tare.wire.config import Ulimit


class Settings(Struct, frozen=True, kw_only=True):
    """What the daemon's options mean for the verbs."""

    data_root: Path
    exec_root: Path
    default_runtime: str
    labels: tuple[str, ...] = ()
    uses_init: bool = False
    init_path: str = ""
    no_new_privileges: bool = False
    image_policy: Policy = NEVER
    default_ulimits: tuple[Ulimit, ...] = ()
    id_mapping: IdMapping | None = None  # None: the ids of containers are the host's
    log_driver: str = DEFAULT_DRIVER
    log_options: Mapping[str, str] = field(default_factory=dict)
    cdi_directories: tuple[str, ...] = CDI_DIRECTORIES
    journal_socket: Path = JOURNAL
    debug: bool = False
    live_restore: bool = True
    builder_cache_bytes: int = 0  # the build cache is kept within; 0 for no bound
    concurrent_autobuilds: int = 1
    engine_id: str = ""
    started_at: int = 0
    notes: tuple[str, ...] = ()  # what the daemon chose at start and why, for `info`


class Engine(Struct, frozen=True, kw_only=True):
    """Everything a verb may use."""

    settings: Settings
    host: HostFacts
    cgroups: Layout
    migration: Migration
    db: Database
    reserve: Reserve
    archiver: Archiver
    images: Images
    snapshots: Snapshotter
    containers: Containers
    networks: Networks
    volumes: Volumes
    events: Events
    monitor: Monitor
    execs: Execs
    sessions: Sessions
    runtimes: Mapping[str, OciRuntime]
    filters: FilterCache
    summaries: SummaryCache
    inspections: InspectCache
    alarms: Alarms
    transport: Transport
    manifests: Manifests
    pulls: Pulls
    build_cache: BuildCache
    autobuilds: Autobuilds
    pushes: Pushes
    counters: Counters = field(default_factory=Counters)
    creating: set[str] = field(default_factory=set)  # ids of containers whose files come before their record
    pruning: set[str] = field(default_factory=set)  # kinds being pruned now (W77)
    translating: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(1)
    )  # of logs: see `logs.read_logs`
    image_mounts: dict[str, ImageMount] = field(default_factory=dict)  # on the host, by target


def directory_of(engine: Engine, container_id: str) -> Path:
    """`<data-root>/containers/<id>`: log, hosts, hostname, resolv.conf."""
    return engine.settings.data_root / "containers" / container_id


def log_path(engine: Engine, container: Container) -> Path:
    """The container's log in CRI line format."""
    return directory_of(engine, container.id) / "container.log"


def rootfs_of(engine: Engine, container_id: str) -> Path:
    """Where the root file system of a running container is mounted."""
    return engine.monitor.bundle(container_id) / "rootfs"


def files_of(engine: Engine, container: Container) -> Files:
    """The host paths inspect shows."""
    directory = directory_of(engine, container.id)
    return Files(
        resolv_conf=str(directory / "resolv.conf"),
        hostname=str(directory / "hostname"),
        hosts=str(directory / "hosts"),
        log=str(log_path(engine, container)),
    )


def image_uses(engine: Engine) -> list[ImageUse]:
    """Which containers stand on which images, or mount them, for the rules of removal."""
    return [
        ImageUse(
            container_id=slot.container.id,
            image_id=image_id,
            reference=reference,
            running=slot.container.is_running,
        )
        for slot in engine.containers
        for image_id, reference in (
            (slot.container.image_id, slot.container.image_reference),
            *((point.image_id, point.name) for point in slot.container.all_mounts if point.type == "image"),
        )
    ]
