"""Volumes as Docker writes them.

Source: moby/moby api/types/volume (Volume, CreateOptions, ListResponse, UsageData, PruneReport).
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from tare.wire.config import Wire


class VolumeUsage(Wire, kw_only=True, frozen=True):
    """How much it holds (bytes) and how many containers refer to it. Only the disk usage report has it."""

    RefCount: int
    Size: int


class VolumeBody(Wire, kw_only=True, frozen=True):
    """One volume."""

    CreatedAt: str
    Driver: str
    Labels: dict[str, str] | None
    Mountpoint: str
    Name: str
    Options: dict[str, str] | None
    Scope: str = "local"
    UsageData: VolumeUsage | UnsetType = UNSET


class VolumeCreate(Wire, kw_only=True, frozen=True):
    """The body of create."""

    Name: str = ""
    Driver: str = ""
    DriverOpts: dict[str, str] | None = None
    Labels: dict[str, str] | None = None


class VolumeList(Wire, kw_only=True, frozen=True):
    """Answer of the list."""

    Volumes: list[VolumeBody]
    Warnings: list[str] | None = None


class VolumePruneReport(Wire, kw_only=True, frozen=True):
    """Answer of prune. Bytes."""

    VolumesDeleted: list[str]
    SpaceReclaimed: int
