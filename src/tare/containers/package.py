"""What a container is when it travels: one document beside the image, and the decisions about it (pure).

The document names no blob of the image and no path of the host but those of bind mounts. What it says of times is in
nanoseconds since the epoch. See docs/adr/0018-containers-as-oci-layouts.md.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from tare.base.clock import Nanos
from tare.base.errors import InvalidArgument, NotFound
from tare.base.ids import SHORT, ContainerId, is_full_id
from tare.containers.container import Container, MountPoint, State
from tare.containers.health import Health, Probe
from tare.containers.mounts import PROPAGATIONS
from tare.oci.image import MAX_CONFIG, load_json
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig, Wire
from tare.wire.decode import convert
from tare.wire.networks import NetworkCreate

MEDIA_TYPE = "application/vnd.tare.container.v1+json"
VOLUME_TYPE = "application/vnd.tare.volume.v1.tar+gzip"
LOG_TYPE = "application/vnd.tare.log.v1.tar+gzip"
FORMAT = 1

_MOUNT_TYPES = frozenset({"bind", "volume", "tmpfs", "image"})
_SHORTEST = 2


class PackedState(Wire, kw_only=True, frozen=True):
    """Where it was in its life."""

    Status: str = State.CREATED.value
    ExitCode: int = 0
    Error: str = ""
    OOMKilled: bool = False
    StartedAt: int = 0
    FinishedAt: int = 0
    RestartCount: int = 0
    StoppedByUser: bool = False


class PackedProbe(Wire, kw_only=True, frozen=True):
    """One run of the health check."""

    StartedAt: int = 0
    EndedAt: int = 0
    ExitCode: int = 0
    Output: str = ""


class PackedHealth(Wire, kw_only=True, frozen=True):
    """What was known of its health, oldest probe first."""

    Status: str = ""
    FailingStreak: int = 0
    Log: list[PackedProbe] = msgspec.field(default_factory=list)


class PackedRoot(Wire, kw_only=True, frozen=True):
    """Whose the directory itself is, which a tar of what is in it does not say."""

    Mode: int = 0o755
    Uid: int = 0
    Gid: int = 0
    ModifiedAt: int = 0


class PackedVolume(Wire, kw_only=True, frozen=True):
    """A volume it holds. Content: the digest of a blob, "" where only the settings travel."""

    Name: str = ""
    Driver: str = "local"
    Labels: dict[str, str] = msgspec.field(default_factory=dict)
    Options: dict[str, str] = msgspec.field(default_factory=dict)
    Content: str = ""
    Root: PackedRoot = PackedRoot()


class PackedNetwork(Wire, kw_only=True, frozen=True):
    """A network it wants that users made. SubnetAsked: its subnet was chosen by a person."""

    Definition: NetworkCreate = NetworkCreate()
    SubnetAsked: bool = False


class PackedImage(Wire, kw_only=True, frozen=True):
    """The image it stands on. Reference: the name to give it, "" for none."""

    Id: str = ""
    Reference: str = ""


_ContainerConfig: TypeAlias = ContainerConfig
_HostConfig: TypeAlias = HostConfig


class Package(Wire, kw_only=True, frozen=True):
    """The document. Layer: the digest of the container's own layer; Log: of its log, "" without.

    Machine, Engine: where it was packed, so that its id is not given twice on one machine.
    """

    Format: int = FORMAT
    Machine: str = ""
    Engine: str = ""
    Id: str = ""
    Name: str = ""
    CreatedAt: int = 0
    Image: PackedImage = PackedImage()
    ImageAskedFor: str = ""
    Config: _ContainerConfig = ContainerConfig()
    HostConfig: _HostConfig = HostConfig()
    Runtime: str = ""
    Mounts: list[MountPoint] = msgspec.field(default_factory=list)
    Endpoints: dict[str, EndpointSettings] = msgspec.field(default_factory=dict)
    Networks: list[PackedNetwork] = msgspec.field(default_factory=list)
    Volumes: list[PackedVolume] = msgspec.field(default_factory=list)
    State: PackedState = PackedState()
    Health: PackedHealth | None = None
    Layer: str = ""
    Root: PackedRoot = PackedRoot()
    Log: str = ""

    @property
    def was_running(self) -> bool:
        """Whether its program ran, or was about to be started again."""
        return self.State.Status in (State.RUNNING.value, State.PAUSED.value, State.RESTARTING.value)

    @property
    def was_paused(self) -> bool:
        """Whether somebody had frozen it."""
        return self.State.Status == State.PAUSED.value

    @property
    def contents(self) -> list[str]:
        """The digests of all blobs it refers to, each once."""
        named = [self.Layer, self.Log, *(volume.Content for volume in self.Volumes)]
        return list(dict.fromkeys(filter(None, named)))


# --- packing


def encode(package: Package) -> bytes:
    """The document; equal packages give equal bytes."""
    return msgspec.json.encode(package, order="deterministic")


def package_of(
    container: Container,
    *,
    image: PackedImage,
    networks: Sequence[PackedNetwork],
    volumes: Sequence[PackedVolume],
    root: PackedRoot,
    layer: str,
    log: str,
    network_mode: str,
    machine: str,
    engine: str,
) -> Package:
    """The document about a container. network_mode: its mode with the network's name where it was written as an id."""
    return Package(
        Machine=machine,
        Engine=engine,
        Id=container.id,
        Name=container.name,
        CreatedAt=container.created_at,
        Image=image,
        ImageAskedFor=container.image_reference,
        Config=container.config,
        HostConfig=msgspec.structs.replace(container.host_config, NetworkMode=network_mode, ContainerIDFile=""),
        Runtime=container.runtime,
        Mounts=[_travelling(point) for point in mounts_of(container)],
        Endpoints={name: _only_asked(settings) for name, settings in container.asked_endpoints.items()},
        Networks=list(networks),
        Volumes=list(volumes),
        State=PackedState(
            Status=container.state.value,
            ExitCode=container.exit_code,
            Error=container.error,
            OOMKilled=container.is_oom_killed,
            StartedAt=container.started_at,
            FinishedAt=container.finished_at,
            RestartCount=container.restart_count,
            StoppedByUser=container.was_stopped_by_user,
        ),
        Health=_packed_health(container.health),
        Layer=layer,
        Root=root,
        Log=log,
    )


def mounts_of(container: Container) -> tuple[MountPoint, ...]:
    """What it will mount at its next start, wherever that is."""
    return container.mounts if container.next_mounts is None else container.next_mounts


def _travelling(point: MountPoint) -> MountPoint:
    """Without the paths that this engine chose."""
    return point if point.type == "bind" else replace(point, source="", image_id="", chain_id="")


def _only_asked(settings: EndpointSettings) -> EndpointSettings:
    return EndpointSettings(
        IPAMConfig=settings.IPAMConfig,
        Links=settings.Links,
        Aliases=settings.Aliases,
        MacAddress=settings.MacAddress,
        DriverOpts=settings.DriverOpts,
        GwPriority=settings.GwPriority,
    )


def _packed_health(health: Health | None) -> PackedHealth | None:
    if health is None:
        return None
    log = [
        PackedProbe(StartedAt=p.started_at, EndedAt=p.ended_at, ExitCode=p.exit_code, Output=p.output)
        for p in health.log
    ]
    return PackedHealth(Status=health.status, FailingStreak=health.failing_streak, Log=log)


def choose_volumes(
    points: Sequence[MountPoint], wanted: Sequence[str] | None, *, plain: Collection[str]
) -> tuple[str, ...]:
    """The volumes whose content travels, in order of their places.

    wanted: names or destinations, None for all. plain: those whose content is here and nowhere else.
    Raises NotFound for what is no volume of the container's, InvalidArgument for one whose content is elsewhere.
    """
    held = {point.name: point for point in points if point.type == "volume"}
    if wanted is None:
        return tuple(name for name in held if name in plain)
    by_place = {point.destination: point.name for point in held.values()}
    chosen: list[str] = []
    for word in wanted:
        name = by_place.get(word, word)
        if name not in held:
            raise NotFound(
                f"the container has no volume {word}", hint=f"it has {', '.join(held)}" if held else "it has none"
            )
        if name not in plain:
            raise InvalidArgument(
                f"volume {name} shows what its driver options name: that is not packed",
                hint="leave it out of --volumes; its settings are packed in any case",
            )
        chosen.append(name)
    return tuple(dict.fromkeys(chosen))


# --- unpacking


def decode(raw: bytes) -> Package:
    """Read a document nobody vouches for. Raises InvalidArgument."""
    found = load_json(raw, limit=MAX_CONFIG, what="container document")
    if not isinstance(found, dict):
        raise InvalidArgument("invalid container document: not a JSON object")
    if found.get("Format") != FORMAT:
        raise InvalidArgument(
            f"container document of format {str(found.get('Format'))[:20]}: this engine reads format {FORMAT}",
            hint="unpack it with a newer engine",
        )
    package = convert(found, Package)
    _check(package)
    return package


def _check(package: Package) -> None:
    """What the engine's own plans promise and a document of others need not keep."""
    if not is_full_id(package.Id):
        raise InvalidArgument("invalid container document: Id is no container id")
    if package.State.Status not in {state.value for state in State}:
        raise InvalidArgument("invalid container document: unknown state")
    places: set[str] = set()
    names = {volume.Name for volume in package.Volumes}
    if len(names) != len(package.Volumes):
        raise InvalidArgument("invalid container document: a volume is there twice")
    for point in package.Mounts:
        _check_mount(point)
        if point.destination in places:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
        places.add(point.destination)
        if point.type == "volume" and point.name not in names:
            raise InvalidArgument(f"invalid container document: volume {point.name[:80]!r} is not described")
    for root in (package.Root, *(volume.Root for volume in package.Volumes)):
        if not (0 <= root.Mode <= 0o7777 and 0 <= root.Uid < 2**32 - 1 and 0 <= root.Gid < 2**32 - 1):
            raise InvalidArgument("invalid container document: owner or mode of a directory")
        if not 0 <= root.ModifiedAt < 2**63:
            raise InvalidArgument("invalid container document: time of a directory")


def _check_mount(point: MountPoint) -> None:
    place = point.destination
    if point.type not in _MOUNT_TYPES:
        raise InvalidArgument(f"invalid container document: mount type {point.type[:20]!r}")
    if len(place) < _SHORTEST or not place.startswith("/") or posixpath.normpath(place) != place or "\0" in place:
        raise InvalidArgument(f"invalid container document: mount destination {place[:200]!r}")
    if point.propagation and point.propagation not in PROPAGATIONS:
        raise InvalidArgument(f"invalid container document: propagation {point.propagation[:20]!r}")
    if point.type == "bind" and (not point.source.startswith("/") or "\0" in point.source):
        raise InvalidArgument(f"invalid container document: bind source {point.source[:200]!r}")
    if point.subpath and (point.subpath.startswith("/") or ".." in point.subpath.split("/")):
        raise InvalidArgument(f"invalid container document: subpath {point.subpath[:200]!r}")


def with_volumes(package: Package, names: Mapping[str, str]) -> Package:
    """The same container with other names for some of its volumes."""
    if not names:
        return package
    volumes = [msgspec.structs.replace(v, Name=names.get(v.Name, v.Name)) for v in package.Volumes]
    mounts = [replace(p, name=names.get(p.name, p.name)) if p.type == "volume" else p for p in package.Mounts]
    return msgspec.structs.replace(package, Volumes=volumes, Mounts=mounts)


def keeps_id(package: Package, *, machine: str, engine: str) -> bool:
    """Whether a container may have the id it had, if that is free here.

    Control groups go by that id. Another engine of the same machine may still have the container, so a copy gets a new one.
    """
    return package.Machine != machine or package.Engine == engine


def unpacked(
    package: Package,
    *,
    container_id: ContainerId,
    name: str,
    image_id: str,
    host_config: HostConfig,
    mounts: Sequence[MountPoint],
    endpoints: Mapping[str, EndpointSettings],
) -> Container:
    """The record at the other end, before it is started there. What ran and is not started yet is merely created."""
    state = package.State
    changes: dict[str, Any] = {}
    if not package.was_running and state.StartedAt:
        changes = {
            "state": State.EXITED,
            "exit_code": state.ExitCode,
            "error": state.Error,
            "is_oom_killed": state.OOMKilled,
            "started_at": Nanos(state.StartedAt),
            "finished_at": Nanos(state.FinishedAt),
            "restart_count": state.RestartCount,
            "was_stopped_by_user": state.StoppedByUser,
            "health": _health(package.Health),
        }
    config = package.Config
    if config.Hostname == package.Id[:SHORT]:
        config = msgspec.structs.replace(config, Hostname=container_id[:SHORT])
    return Container(
        id=container_id,
        name=name,
        created_at=Nanos(package.CreatedAt),
        image_id=image_id,
        image_reference=package.ImageAskedFor,
        config=config,
        host_config=host_config,
        runtime=host_config.Runtime,
        mounts=tuple(mounts),
        asked_endpoints=dict(endpoints),
        endpoints=dict(endpoints),
        **changes,
    )


def _health(found: PackedHealth | None) -> Health | None:
    if found is None:
        return None
    log = tuple(
        Probe(started_at=p.StartedAt, ended_at=p.EndedAt, exit_code=p.ExitCode, output=p.Output) for p in found.Log
    )
    return Health(status=found.Status, failing_streak=found.FailingStreak, log=log)


__all__ = [
    "LOG_TYPE",
    "MEDIA_TYPE",
    "VOLUME_TYPE",
    "Package",
    "PackedImage",
    "PackedNetwork",
    "PackedRoot",
    "PackedVolume",
    "choose_volumes",
    "decode",
    "encode",
    "keeps_id",
    "mounts_of",
    "package_of",
    "unpacked",
    "with_volumes",
]
