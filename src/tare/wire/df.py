"""The disk usage report as Docker writes it before API 1.52.

Source: moby/moby api/types/system/disk_usage.go.
"""

from __future__ import annotations

from tare.wire.config import Empty, Wire
from tare.wire.containers import ContainerSummary
from tare.wire.images import ImageSummary
from tare.wire.volumes import VolumeBody


class DiskUsage(Wire, kw_only=True, frozen=True):
    """`GET /system/df`. Bytes. What was not asked for is null."""

    LayersSize: int = 0
    Images: list[ImageSummary] | None = None
    Containers: list[ContainerSummary] | None = None
    Volumes: list[VolumeBody] | None = None
    BuildCache: list[Empty] | None = None
