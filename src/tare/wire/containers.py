"""Docker's JSON about containers: inspect, list, wait, changes."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from tare.wire import config
from tare.wire.config import EndpointSettings, Wire


class CreateResponse(Wire, kw_only=True, frozen=True):
    """Answer of create."""

    Id: str
    Warnings: list[str]


class WaitError(Wire, kw_only=True, frozen=True):
    """Why the container could not be removed or started."""

    Message: str


class WaitResponse(Wire, kw_only=True, frozen=True):
    """Answer of wait."""

    StatusCode: int
    Error: WaitError | UnsetType = UNSET


class Change(Wire, kw_only=True, frozen=True):
    """One path of a diff; Kind 0 modified, 1 added, 2 deleted."""

    Path: str
    Kind: int


class ProbeBody(Wire, kw_only=True, frozen=True):
    """One run of a health check."""

    Start: str
    End: str
    ExitCode: int
    Output: str


class HealthBody(Wire, kw_only=True, frozen=True):
    """`State.Health`; absent without a health check."""

    Status: str
    FailingStreak: int
    Log: list[ProbeBody]


class StateBody(Wire, kw_only=True, frozen=True):
    """`State` of inspect."""

    Status: str
    Running: bool
    Paused: bool
    Restarting: bool
    OOMKilled: bool
    Dead: bool
    Pid: int
    ExitCode: int
    Error: str
    StartedAt: str
    FinishedAt: str
    Health: HealthBody | UnsetType = UNSET


class MountBody(Wire, kw_only=True, frozen=True):
    """One entry of `Mounts`."""

    Type: str
    Name: str | UnsetType = UNSET
    Source: str
    Destination: str
    Driver: str | UnsetType = UNSET
    Mode: str
    RW: bool
    Propagation: str


class NetworkSettingsBody(Wire, kw_only=True, frozen=True):
    """`NetworkSettings` of inspect, with the top-level address fields of API < 1.52."""

    Bridge: str = ""
    SandboxID: str = ""
    SandboxKey: str = ""
    Ports: dict[str, Any]
    HairpinMode: bool = False
    LinkLocalIPv6Address: str = ""
    LinkLocalIPv6PrefixLen: int = 0
    SecondaryIPAddresses: None = None
    SecondaryIPv6Addresses: None = None
    EndpointID: str = ""
    Gateway: str = ""
    GlobalIPv6Address: str = ""
    GlobalIPv6PrefixLen: int = 0
    IPAddress: str = ""
    IPPrefixLen: int = 0
    IPv6Gateway: str = ""
    MacAddress: str = ""
    Networks: dict[str, EndpointSettings]


class ContainerBody(Wire, kw_only=True, frozen=True):
    """`GET /containers/{id}/json`."""

    Id: str
    Created: str
    Path: str
    Args: list[str]
    State: StateBody
    Image: str
    ResolvConfPath: str
    HostnamePath: str
    HostsPath: str
    LogPath: str
    Name: str
    RestartCount: int
    Driver: str
    Platform: str
    MountLabel: str = ""
    ProcessLabel: str = ""
    AppArmorProfile: str = ""
    ExecIDs: list[str] | None = None
    HostConfig: config.HostConfig
    GraphDriver: dict[str, Any]
    SizeRw: int | UnsetType = UNSET
    SizeRootFs: int | UnsetType = UNSET
    Mounts: list[MountBody]
    Config: config.ContainerConfig
    NetworkSettings: NetworkSettingsBody


class PortBody(Wire, kw_only=True, frozen=True):
    """One entry of `Ports` in the list."""

    IP: str | UnsetType = UNSET
    PrivatePort: int
    PublicPort: int | UnsetType = UNSET
    Type: str


class SummaryHostConfig(Wire, kw_only=True, frozen=True):
    """The part of HostConfig a list shows."""

    NetworkMode: str
    Annotations: dict[str, str] | UnsetType = UNSET


class SummaryNetworks(Wire, kw_only=True, frozen=True):
    """The networks of a list entry."""

    Networks: dict[str, EndpointSettings]


class ContainerSummary(Wire, kw_only=True, frozen=True):
    """One entry of `GET /containers/json`."""

    Id: str
    Names: list[str]
    Image: str
    ImageID: str
    Command: str
    Created: int
    Ports: list[PortBody]
    SizeRw: int | UnsetType = UNSET
    SizeRootFs: int | UnsetType = UNSET
    Labels: dict[str, str]
    State: str
    Status: str
    HostConfig: SummaryHostConfig
    NetworkSettings: SummaryNetworks
    Mounts: list[MountBody]
