"""A container as Docker's clients see it: the bodies of inspect and list, made from the record (pure)."""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tare.base.clock import rfc3339nano
from tare.base.durations import human_duration
from tare.containers.container import Container, MountPoint, State
from tare.containers.health import Health
from tare.containers.merge import argv_of
from tare.wire.config import EndpointSettings, PortBinding
from tare.wire.containers import (
    ContainerBody,
    ContainerSummary,
    HealthBody,
    MountBody,
    NetworkSettingsBody,
    PortBody,
    ProbeBody,
    StateBody,
    SummaryHostConfig,
    SummaryNetworks,
)


class Files(Struct, frozen=True, kw_only=True):
    """Where a container's own files are on the host."""

    resolv_conf: str
    hostname: str
    hosts: str
    log: str


_HEALTH_WORDS = {"starting": "health: starting"}


def status_text(container: Container, now: int) -> str:
    """The human line of `ps` (W73): `Up 5 minutes`, `Exited (0) 2 hours ago` …"""
    if container.is_running:
        text = f"Up {human_duration((now - container.started_at) / 1e9)}"
        if container.is_paused:
            return f"{text} (Paused)"
        if container.health is None:
            return text
        return f"{text} ({_HEALTH_WORDS.get(container.health.status, container.health.status)})"
    if container.state is State.RESTARTING:
        return f"Restarting ({container.exit_code}) {human_duration((now - container.finished_at) / 1e9)} ago"
    if container.state is State.REMOVING:
        return "Removal In Progress"
    if container.state is State.DEAD:
        return "Dead"
    if container.state is State.CREATED:
        return "Created"
    return f"Exited ({container.exit_code}) {human_duration((now - container.finished_at) / 1e9)} ago"


def state_body(container: Container) -> StateBody:
    """`State` of inspect."""
    state = container.state
    return StateBody(
        Status=state.value,
        Running=container.is_running or state is State.RESTARTING,
        Paused=container.is_paused,
        Restarting=state is State.RESTARTING,
        OOMKilled=container.is_oom_killed,
        Dead=state is State.DEAD,
        Pid=container.process.pid if container.process and container.is_running else 0,
        ExitCode=container.exit_code,
        Error=container.error,
        StartedAt=rfc3339nano(container.started_at),
        FinishedAt=rfc3339nano(container.finished_at),
        Health=_health_body(container.health) if container.health is not None else UNSET,
    )


def _health_body(health: Health) -> HealthBody:
    return HealthBody(
        Status=health.status,
        FailingStreak=health.failing_streak,
        Log=[
            ProbeBody(
                Start=rfc3339nano(probe.started_at),
                End=rfc3339nano(probe.ended_at),
                ExitCode=probe.exit_code,
                Output=probe.output,
            )
            for probe in health.log
        ],
    )


def mount_body(point: MountPoint) -> MountBody:
    """One entry of `Mounts`."""
    return MountBody(
        Type=point.type,
        Name=point.name or UNSET,
        Source=point.source,
        Destination=point.destination,
        Driver=point.driver or UNSET,
        Mode=point.mode,
        RW=point.is_writable,
        Propagation=point.propagation,
    )


def mount_bodies(container: Container) -> list[MountBody]:
    """`Mounts`: what `--tmpfs` asked for is in HostConfig only, as dockerd has it."""
    unlisted = {posixpath.normpath(place) for place in container.host_config.Tmpfs or {}}
    return [mount_body(p) for p in container.mounts if p.type != "tmpfs" or p.destination not in unlisted]


def ports_map(container: Container) -> dict[str, list[PortBinding] | None]:
    """`NetworkSettings.Ports`: exposed ports without a binding are null; nothing while it is not running."""
    if not container.is_running:
        return {}
    exposed = container.config.ExposedPorts
    names = sorted(exposed) if isinstance(exposed, dict) else []
    unpublished: dict[str, list[PortBinding] | None] = {name if "/" in name else f"{name}/tcp": None for name in names}
    return unpublished | container.ports


def inspect_body(
    container: Container,
    *,
    files: Files,
    graph_driver: dict[str, Any],
    exec_ids: list[str] | None = None,
    sizes: tuple[int, int] | None = None,
    links: list[str] | None = None,
) -> ContainerBody:
    """`GET /containers/{id}/json`. sizes: (writable layer, whole root file system) in bytes; links: as Docker shows them."""
    argv = argv_of(container.config)
    main = container.endpoints.get("bridge", EndpointSettings())
    size_rw: int | UnsetType = sizes[0] if sizes else UNSET
    size_root: int | UnsetType = sizes[1] if sizes else UNSET
    return ContainerBody(
        Id=container.id,
        Created=rfc3339nano(container.created_at),
        Path=argv[0] if argv else "",
        Args=argv[1:],
        State=state_body(container),
        Image=container.image_id,
        ResolvConfPath=files.resolv_conf,
        HostnamePath=files.hostname,
        HostsPath=files.hosts,
        LogPath=files.log,
        Name=f"/{container.name}",
        RestartCount=container.restart_count,
        Driver="overlay2",
        Platform="linux",
        ExecIDs=exec_ids or None,
        HostConfig=msgspec.structs.replace(container.host_config, Links=links) if links else container.host_config,
        GraphDriver=graph_driver,
        SizeRw=size_rw,
        SizeRootFs=size_root,
        Mounts=mount_bodies(container),
        Config=container.config,
        NetworkSettings=NetworkSettingsBody(
            SandboxID=container.id if container.is_running else "",
            SandboxKey=f"/proc/{container.process.pid}/ns/net" if container.is_running and container.process else "",
            Ports=ports_map(container),
            EndpointID=main.EndpointID,
            Gateway=main.Gateway,
            GlobalIPv6Address=main.GlobalIPv6Address,
            GlobalIPv6PrefixLen=main.GlobalIPv6PrefixLen,
            IPAddress=main.IPAddress,
            IPPrefixLen=main.IPPrefixLen,
            IPv6Gateway=main.IPv6Gateway,
            MacAddress=main.MacAddress,
            Networks=container.endpoints,
        ),
    )


def _command(container: Container) -> str:
    """The command as `ps` shows it: words with spaces in single quotes."""
    return " ".join(f"'{word}'" if " " in word else word for word in argv_of(container.config))


def _public(binding: PortBinding) -> int | UnsetType:
    """The host's number of a published port; none where it is reached at the container's own address only."""
    return int(binding.HostPort) if binding.HostPort else UNSET


def summary(container: Container, *, now: int, image: str, sizes: tuple[int, int] | None = None) -> ContainerSummary:
    """One entry of the list. `image` is the reference to show (or the image id when the tag has moved)."""
    ports: list[PortBody] = []
    for name, bindings in ports_map(container).items():
        number, _, protocol = name.partition("/")
        if not number.isdigit():
            continue
        inside, kind = int(number), protocol or "tcp"
        ports += [
            PortBody(IP=binding.HostIp, PrivatePort=inside, PublicPort=_public(binding), Type=kind)
            for binding in bindings or ()
        ] or [PortBody(PrivatePort=inside, Type=kind)]
    return ContainerSummary(
        Id=container.id,
        Names=[f"/{container.name}"],
        Image=image,
        ImageID=container.image_id,
        Command=_command(container),
        Created=container.created_at // 1_000_000_000,
        Ports=ports,
        SizeRw=sizes[0] if sizes else UNSET,
        SizeRootFs=sizes[1] if sizes else UNSET,
        Labels=container.labels,
        State=container.state.value,
        Status=status_text(container, now),
        HostConfig=SummaryHostConfig(
            NetworkMode=container.host_config.NetworkMode, Annotations=container.host_config.Annotations
        ),
        NetworkSettings=SummaryNetworks(Networks=container.endpoints),
        Mounts=mount_bodies(container),
    )


_MARK = f"status-{secrets.token_hex(16)}"  # not to be guessed: a label with this text would take the status's place
_ENCODED_MARK = msgspec.json.encode(_MARK)[1:-1]


class SummaryCache:
    """Encoded list entries, one per record: renewed when the record is replaced, patched with the current status.

    The status ("Up 5 seconds") is the only part that changes by itself, so the text around it is kept.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Container, str, bytes, bytes]] = {}
        self._encoder = msgspec.json.Encoder()

    def encode(self, container: Container, *, now: int, image: str) -> bytes:
        """The JSON text of one entry."""
        kept = self._kept.get(container.id)
        if kept is None or kept[0] is not container or kept[1] != image:
            entry = msgspec.structs.replace(summary(container, now=now, image=image), Status=_MARK)
            before, _, after = self._encoder.encode(entry).partition(_ENCODED_MARK)
            kept = (container, image, before, after)
            self._kept[container.id] = kept
        return b"".join((kept[2], status_text(container, now).encode(), kept[3]))

    def forget(self, container_id: str) -> None:
        """The container is gone."""
        self._kept.pop(container_id, None)


class InspectCache:
    """Encoded bodies of inspect, one per record: renewed when the record is replaced or its execs change."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Container, list[str], bytes]] = {}

    def encode(self, container: Container, exec_ids: list[str], make: Callable[[], ContainerBody]) -> bytes:
        """The JSON text; `make` is called when it is not known."""
        kept = self._kept.get(container.id)
        if kept is None or kept[0] is not container or kept[1] != exec_ids:
            kept = (container, exec_ids, msgspec.json.encode(make()) + b"\n")
            self._kept[container.id] = kept
        return kept[2]

    def forget(self, container_id: str) -> None:
        """The container is gone."""
        self._kept.pop(container_id, None)
