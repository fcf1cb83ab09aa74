"""Automated builds as the API writes them; Docker has no such thing."""

from __future__ import annotations

from tare.wire.config import Wire


class AutobuildCreate(Wire, kw_only=True, frozen=True):
    """The body of add. Timeout in seconds, 0 for the default."""

    Name: str = ""
    Git: str = ""
    Branch: str = ""
    Context: str = ""
    Dockerfile: str = ""
    Schedule: str = ""
    Tags: list[str] | None = None
    BuildArgs: dict[str, str] | None = None
    Push: bool = False
    Timeout: int = 0


class AutobuildCreated(Wire, kw_only=True, frozen=True):
    """Answer of add: the secret is told this once."""

    Name: str
    Id: str
    Secret: str


class RunBody(Wire, kw_only=True, frozen=True):
    """One run. Times as RFC 3339."""

    Number: int
    Status: str
    Cause: str
    Commit: str
    Image: str
    ExitCode: int
    Error: str
    Pushed: list[str]
    LogBytes: int
    StartedAt: str
    FinishedAt: str


class AutobuildBody(Wire, kw_only=True, frozen=True):
    """One autobuild. Timeout in seconds; NextRun is the zero time when nothing will start it by itself."""

    Name: str
    Id: str
    Git: str
    Branch: str
    Context: str
    Dockerfile: str
    Schedule: str
    Tags: list[str]
    BuildArgs: dict[str, str]
    Push: bool
    HasCredentials: bool
    Timeout: int
    Paused: bool
    Running: bool
    CreatedAt: str
    CheckedAt: str
    NextRun: str
    Built: str
    LastRun: RunBody | None
