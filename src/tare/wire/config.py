"""What a container is asked to be: `Config`, `HostConfig`, `NetworkingConfig`, as create receives and inspect returns.

What comes back from inspect reads exactly as sent or defaulted, since Ansible, Chef and Compose decide by it whether
to recreate. So these frozen structs are kept in the record as they are. `UNSET` marks the fields Docker omits when
empty; `None` the ones it writes as null.
Source: moby/moby api/types/container/{config,hostconfig}.go.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import UNSET, UnsetType


class Wire(msgspec.Struct, kw_only=True, frozen=True):
    """Base of all wire structs: keyword-only, immutable, unknown fields ignored."""


class Empty(Wire, kw_only=True, frozen=True):
    """Go's `struct{}`, the value in sets."""


class HealthConfig(Wire, kw_only=True, frozen=True):
    """How to find out whether the container works. Durations in nanoseconds."""

    Test: list[str] | UnsetType = UNSET
    Interval: int | UnsetType = UNSET
    Timeout: int | UnsetType = UNSET
    StartPeriod: int | UnsetType = UNSET
    StartInterval: int | UnsetType = UNSET
    Retries: int | UnsetType = UNSET


class ContainerConfig(Wire, kw_only=True, frozen=True):
    """The portable half: what an image may also say. `Cmd`/`Entrypoint` None means "not given"."""

    Hostname: str = ""
    Domainname: str = ""
    User: str = ""
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    ExposedPorts: dict[str, Empty] | UnsetType = UNSET
    Tty: bool = False
    OpenStdin: bool = False
    StdinOnce: bool = False
    Env: list[str] | None = None
    Cmd: list[str] | str | None = None
    Healthcheck: HealthConfig | UnsetType = UNSET
    ArgsEscaped: bool | UnsetType = UNSET
    Image: str = ""
    Volumes: dict[str, Empty] | None = None
    WorkingDir: str = ""
    Entrypoint: list[str] | str | None = None
    NetworkDisabled: bool | UnsetType = UNSET
    MacAddress: str | UnsetType = UNSET
    OnBuild: list[str] | None = None
    Labels: dict[str, str] | None = None
    StopSignal: str | UnsetType = UNSET
    StopTimeout: int | UnsetType = UNSET
    Shell: list[str] | UnsetType = UNSET


class LogSettings(Wire, kw_only=True, frozen=True):
    """Which log driver, with its options."""

    Type: str = ""
    Config: dict[str, str] | None = None


class RestartRule(Wire, kw_only=True, frozen=True):
    """`Name` is "", no, on-failure, always or unless-stopped."""

    Name: str = ""
    MaximumRetryCount: int = 0


class PortBinding(Wire, kw_only=True, frozen=True):
    """One host side of a published port; both parts may be empty."""

    HostIp: str = ""
    HostPort: str = ""


class Ulimit(Wire, kw_only=True, frozen=True):
    """A resource limit by its short name (`nofile`); -1 is unlimited."""

    Name: str = ""
    Hard: int = 0
    Soft: int = 0


class DeviceMapping(Wire, kw_only=True, frozen=True):
    """A host device in the container; permissions are a subset of `rwm`."""

    PathOnHost: str = ""
    PathInContainer: str = ""
    CgroupPermissions: str = ""


class DeviceRequest(Wire, kw_only=True, frozen=True):
    """A request for devices by driver or capability (`--gpus`, CDI)."""

    Driver: str = ""
    Count: int = 0
    DeviceIDs: list[str] | None = None
    Capabilities: list[list[str]] | None = None
    Options: dict[str, str] | None = None


class WeightDevice(Wire, kw_only=True, frozen=True):
    """A block I/O weight for one device."""

    Path: str = ""
    Weight: int = 0


class ThrottleDevice(Wire, kw_only=True, frozen=True):
    """A block I/O rate (bytes or operations a second) for one device."""

    Path: str = ""
    Rate: int = 0


class BindMountOptions(Wire, kw_only=True, frozen=True):
    """Options of a bind mount."""

    Propagation: str | UnsetType = UNSET
    NonRecursive: bool | UnsetType = UNSET
    CreateMountpoint: bool | UnsetType = UNSET
    ReadOnlyNonRecursive: bool | UnsetType = UNSET
    ReadOnlyForceRecursive: bool | UnsetType = UNSET


class VolumeDriverConfig(Wire, kw_only=True, frozen=True):
    """Which volume driver, with its options."""

    Name: str | UnsetType = UNSET
    Options: dict[str, str] | UnsetType = UNSET


class VolumeMountOptions(Wire, kw_only=True, frozen=True):
    """Options of a volume mount."""

    NoCopy: bool | UnsetType = UNSET
    Labels: dict[str, str] | UnsetType = UNSET
    Subpath: str | UnsetType = UNSET
    DriverConfig: VolumeDriverConfig | UnsetType = UNSET


class ImageMountOptions(Wire, kw_only=True, frozen=True):
    """Options of an image mount."""

    Subpath: str | UnsetType = UNSET


class TmpfsMountOptions(Wire, kw_only=True, frozen=True):
    """Options of a tmpfs mount; mode as a number, not octal text."""

    SizeBytes: int | UnsetType = UNSET
    Mode: int | UnsetType = UNSET
    Options: list[list[str]] | UnsetType = UNSET


class Mount(Wire, kw_only=True, frozen=True):
    """`--mount`: Type is bind, volume, tmpfs, image or npipe."""

    Type: str | UnsetType = UNSET
    Source: str | UnsetType = UNSET
    Target: str | UnsetType = UNSET
    ReadOnly: bool | UnsetType = UNSET
    Consistency: str | UnsetType = UNSET
    BindOptions: BindMountOptions | UnsetType = UNSET
    VolumeOptions: VolumeMountOptions | UnsetType = UNSET
    ImageOptions: ImageMountOptions | UnsetType = UNSET
    TmpfsOptions: TmpfsMountOptions | UnsetType = UNSET


class HostConfig(Wire, kw_only=True, frozen=True):
    """The half that belongs to this host. Order and null-ness as dockerd writes them."""

    Binds: list[str] | None = None
    ContainerIDFile: str = ""
    LogConfig: LogSettings = LogSettings()
    NetworkMode: str = ""
    PortBindings: dict[str, list[PortBinding] | None] | None = None
    RestartPolicy: RestartRule = RestartRule()
    AutoRemove: bool = False
    VolumeDriver: str = ""
    VolumesFrom: list[str] | None = None
    ConsoleSize: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    Annotations: dict[str, str] | UnsetType = UNSET
    CapAdd: list[str] | None = None
    CapDrop: list[str] | None = None
    CgroupnsMode: str = ""
    Dns: list[str] | None = None
    DnsOptions: list[str] | None = None
    DnsSearch: list[str] | None = None
    ExtraHosts: list[str] | None = None
    GroupAdd: list[str] | None = None
    IpcMode: str = ""
    Cgroup: str = ""
    Links: list[str] | None = None
    OomScoreAdj: int = 0
    PidMode: str = ""
    Privileged: bool = False
    PublishAllPorts: bool = False
    ReadonlyRootfs: bool = False
    SecurityOpt: list[str] | None = None
    StorageOpt: dict[str, str] | UnsetType = UNSET
    Tmpfs: dict[str, str] | UnsetType = UNSET
    UTSMode: str = ""
    UsernsMode: str = ""
    ShmSize: int = 0
    Sysctls: dict[str, str] | UnsetType = UNSET
    Runtime: str = ""
    Isolation: str = ""
    CpuShares: int = 0
    Memory: int = 0
    NanoCpus: int = 0
    CgroupParent: str = ""
    BlkioWeight: int = 0
    BlkioWeightDevice: list[WeightDevice] | None = None
    BlkioDeviceReadBps: list[ThrottleDevice] | None = None
    BlkioDeviceWriteBps: list[ThrottleDevice] | None = None
    BlkioDeviceReadIOps: list[ThrottleDevice] | None = None
    BlkioDeviceWriteIOps: list[ThrottleDevice] | None = None
    CpuPeriod: int = 0
    CpuQuota: int = 0
    CpuRealtimePeriod: int = 0
    CpuRealtimeRuntime: int = 0
    CpusetCpus: str = ""
    CpusetMems: str = ""
    Devices: list[DeviceMapping] | None = None
    DeviceCgroupRules: list[str] | None = None
    DeviceRequests: list[DeviceRequest] | None = None
    KernelMemory: int | UnsetType = UNSET
    KernelMemoryTCP: int | UnsetType = UNSET
    MemoryReservation: int = 0
    MemorySwap: int = 0
    MemorySwappiness: int | None = None
    OomKillDisable: bool | None = None
    PidsLimit: int | None = None
    Ulimits: list[Ulimit] | None = None
    CpuCount: int = 0
    CpuPercent: int = 0
    IOMaximumIOps: int = 0
    IOMaximumBandwidth: int = 0
    Mounts: list[Mount] | UnsetType = UNSET
    MaskedPaths: list[str] | None = None
    ReadonlyPaths: list[str] | None = None
    Init: bool | UnsetType = UNSET


class EndpointIPAM(Wire, kw_only=True, frozen=True):
    """Addresses a client asks for on one network."""

    IPv4Address: str | UnsetType = UNSET
    IPv6Address: str | UnsetType = UNSET
    LinkLocalIPs: list[str] | UnsetType = UNSET


class EndpointSettings(Wire, kw_only=True, frozen=True):
    """A container's place on one network: what was asked for and what was plugged in."""

    IPAMConfig: EndpointIPAM | None = None
    Links: list[str] | None = None
    Aliases: list[str] | None = None
    MacAddress: str = ""
    DriverOpts: dict[str, str] | None = None
    GwPriority: int = 0
    NetworkID: str = ""
    EndpointID: str = ""
    Gateway: str = ""
    IPAddress: str = ""
    IPPrefixLen: int = 0
    IPv6Gateway: str = ""
    GlobalIPv6Address: str = ""
    GlobalIPv6PrefixLen: int = 0
    DNSNames: list[str] | None = None


class NetworkingConfig(Wire, kw_only=True, frozen=True):
    """Endpoints asked for at create."""

    EndpointsConfig: dict[str, EndpointSettings | None] | None = None


_HostConfig: TypeAlias = HostConfig
_NetworkingConfig: TypeAlias = NetworkingConfig


class CreateBody(ContainerConfig, kw_only=True, frozen=True):
    """The body of `POST /containers/create`: a `ContainerConfig` with more members.

    docker-py puts `Runtime` beside the configuration instead of into `HostConfig`.
    """

    Runtime: str = ""
    HostConfig: _HostConfig = HostConfig()
    NetworkingConfig: _NetworkingConfig = NetworkingConfig()


class UpdateBody(HostConfig, kw_only=True, frozen=True):
    """The body of `POST /containers/{id}/update`: Docker's limits and restart policy, and what this engine adds.

    Labels: null takes one away. Env: `NAME=value` sets, `NAME` alone takes away. Cmd, Entrypoint: replaced whole, []
    for none. PortBindings: replaced whole, at once. Healthcheck: the members that are given. Binds, Mounts: added, in the place of what is at their
    destination; RemoveMounts: destinations.
    """

    Labels: dict[str, str | None] | UnsetType = UNSET
    Env: list[str] | UnsetType = UNSET
    Cmd: list[str] | UnsetType = UNSET
    Entrypoint: list[str] | UnsetType = UNSET
    Healthcheck: HealthConfig | UnsetType = UNSET
    Name: str = ""
    RemoveMounts: list[str] | UnsetType = UNSET


class PortsBody(Wire, kw_only=True, frozen=True):
    """The body of `POST /tare/v1/containers/{id}/ports`: bindings by port, as in `HostConfig.PortBindings`.

    Remove comes first; an empty list there means every binding of that port.
    """

    Add: dict[str, list[PortBinding] | None] | None = None
    Remove: dict[str, list[PortBinding] | None] | None = None


class PortsChanged(Wire, kw_only=True, frozen=True):
    """The answer to it: what is published now, as in `NetworkSettings.Ports`."""

    Ports: dict[str, list[PortBinding] | None]


def config_of(body: CreateBody) -> ContainerConfig:
    """The `ContainerConfig` half of a create body."""
    return ContainerConfig(**{name: getattr(body, name) for name in ContainerConfig.__struct_fields__})


def as_list(value: list[str] | str | None) -> list[str] | None:
    """`Cmd` and `Entrypoint` may come as one string: Docker reads it as a list of one."""
    return [value] if isinstance(value, str) else value
