"""The disk usage report as Docker writes it before API 1.52.

Source: moby/moby api/types/system/disk_usage.go.
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from tare.wire.config import Wire
from tare.wire.containers import ContainerSummary
from tare.wire.images import ImageSummary
from tare.wire.registry import ArtifactBody
from tare.wire.volumes import VolumeBody


class BuildCacheItem(Wire, kw_only=True, frozen=True):
    """One step the build cache remembers."""

    ID: str
    Parents: list[str] | UnsetType = UNSET
    Type: str = "regular"
    Description: str = ""
    InUse: bool = False
    Shared: bool = False
    Size: int = 0
    CreatedAt: str = ""
    LastUsedAt: str | None = None
    UsageCount: int = 0


class DiskUsage(Wire, kw_only=True, frozen=True):
    """`GET /system/df`. Bytes. What was not asked for is null.

    LayersSize: what artifacts take is in it. Not in Docker, and only where there are some: Artifacts, and ArtifactsSize,
    each blob counted once.
    """

    LayersSize: int = 0
    Images: list[ImageSummary] | None = None
    Containers: list[ContainerSummary] | None = None
    Volumes: list[VolumeBody] | None = None
    BuildCache: list[BuildCacheItem] | None = None
    Artifacts: list[ArtifactBody] | UnsetType = UNSET
    ArtifactsSize: int | UnsetType = UNSET
