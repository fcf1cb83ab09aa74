"""The container record: what we store about a container, immutable, replaced and not edited."""

from __future__ import annotations

import enum

from msgspec import Struct, field

from tare.base.clock import NEVER, Nanos
from tare.base.ids import ContainerId
from tare.containers.health import Health
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig, PortBinding


class State(enum.Enum):
    """Docker's words for where a container is in its life."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Process(Struct, frozen=True, kw_only=True):
    """The processes of a running container. Start times (clock ticks since boot) tell a reused pid apart."""

    pid: int
    pid_started: int
    monitor_pid: int
    monitor_started: int
    boot_id: str


class MountPoint(Struct, frozen=True, kw_only=True):
    """A mount as inspect shows it and start makes it. `type` is bind, volume, tmpfs or image.

    For volumes: `is_anonymous` when the engine made up the name; `copies` when the image's content fills it while it is
    empty; `subpath` the directory in it that is mounted; labels and options for making it. For binds: `must_exist`
    when a missing source is an error, not made. For images: `name` the reference asked for, `image_id` what it meant,
    `chain_id` the file system of that, which stays when the image is removed.
    """

    type: str
    source: str
    destination: str
    mode: str = ""
    is_writable: bool = True
    propagation: str = ""
    name: str = ""
    driver: str = ""
    is_anonymous: bool = False
    copies: bool = False
    subpath: str = ""
    must_exist: bool = False
    is_recursive: bool = True
    is_read_only_below: bool = True  # read-only holds for the mounts below it too (Linux 5.12)
    image_id: str = ""
    chain_id: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


class Container(Struct, frozen=True, kw_only=True):
    """One container. `config` is the merged one, `host_config` what came in with defaults filled in.

    `asked_endpoints` is what was asked of each network; `endpoints` what it has while it runs, and `ports` what is
    published then.
    """

    id: ContainerId
    name: str
    created_at: Nanos
    image_id: str
    image_reference: str
    config: ContainerConfig
    host_config: HostConfig
    runtime: str
    mounts: tuple[MountPoint, ...] = ()
    next_mounts: tuple[MountPoint, ...] | None = None  # edited while it ran: those of its next start
    asked_endpoints: dict[str, EndpointSettings] = field(default_factory=dict)
    endpoints: dict[str, EndpointSettings] = field(default_factory=dict)
    ports: dict[str, list[PortBinding] | None] = field(default_factory=dict)
    state: State = State.CREATED
    process: Process | None = None
    exit_code: int = 0
    error: str = ""
    is_oom_killed: bool = False
    health: Health | None = None  # None without a health check
    started_at: Nanos = NEVER
    finished_at: Nanos = NEVER
    restart_count: int = 0
    was_stopped_by_user: bool = False
    build_id: str = ""  # of the build that this container is a step of; it does not outlive the daemon

    @property
    def is_running(self) -> bool:
        """Whether its first process exists (paused counts, as in Docker)."""
        return self.state in (State.RUNNING, State.PAUSED)

    @property
    def is_paused(self) -> bool:
        """Whether it is frozen."""
        return self.state is State.PAUSED

    @property
    def all_mounts(self) -> tuple[MountPoint, ...]:
        """What it mounts now and what it will at its next start: everything it holds."""
        return (*self.mounts, *(point for point in self.next_mounts or () if point not in self.mounts))

    @property
    def labels(self) -> dict[str, str]:
        """Its labels, never None."""
        return self.config.Labels or {}
