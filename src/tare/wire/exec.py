"""Docker's JSON about execs. Source: moby/moby api/types/container/exec.go."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from tare.wire.config import Wire


class ExecCreateBody(Wire, kw_only=True, frozen=True):
    """The body of `POST /containers/{id}/exec`. ConsoleSize: height, width."""

    User: str = ""
    Privileged: bool = False
    Tty: bool = False
    ConsoleSize: list[int] | None = None
    AttachStdin: bool = False
    AttachStderr: bool = False
    AttachStdout: bool = False
    DetachKeys: str = ""
    Env: list[str] | None = None
    WorkingDir: str = ""
    Cmd: list[str] | str | None = None


class ExecStartBody(Wire, kw_only=True, frozen=True):
    """The body of `POST /exec/{id}/start`. ConsoleSize: height, width."""

    Detach: bool = False
    Tty: bool = False
    ConsoleSize: list[int] | None = None


class ProcessConfigBody(Wire, kw_only=True, frozen=True):
    """`ProcessConfig` of inspect."""

    tty: bool
    entrypoint: str
    arguments: list[str]
    privileged: bool
    user: str | UnsetType = UNSET


class ExecBody(Wire, kw_only=True, frozen=True):
    """`GET /exec/{id}/json`. `DetachKeys` is base64, as Go writes bytes; `ExitCode` null until it ended (W29)."""

    ID: str
    Running: bool
    ExitCode: int | None
    ProcessConfig: ProcessConfigBody
    OpenStdin: bool
    OpenStderr: bool
    OpenStdout: bool
    CanRemove: bool
    ContainerID: str
    DetachKeys: str
    Pid: int
