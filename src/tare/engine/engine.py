"""The engine: a frozen record of services, without methods. Operations take it as their first argument."""

from __future__ import annotations

from dataclasses import dataclass

from tare.drivers.archive.client import Archiver
from tare.drivers.snapshots import Snapshotter
from tare.images.records import ImageUse
from tare.images.service import Images


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Everything an operation may use. Built by `daemon/app.py` alone."""

    images: Images
    snapshots: Snapshotter
    archiver: Archiver


def image_uses(engine: Engine) -> list[ImageUse]:  # noqa: ARG001 - containers are asked once they exist
    """Which containers stand on which images. None yet: this engine has no containers."""
    return []
