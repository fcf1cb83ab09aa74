"""What takes up the disk: images, containers, volumes, each with its bytes (`du --apparent-size`)."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import UNSET, UnsetType

from tare.base import clock
from tare.base.errors import InvalidArgument, NotFound
from tare.base.ids import is_full_id
from tare.containers.view import summary
from tare.engine.builds.prune import is_shared
from tare.engine.engine import Engine, image_uses
from tare.engine.listing import image_shown, sizes_of
from tare.images import naming
from tare.images.records import Image
from tare.volumes.records import VolumeRecord
from tare.wire.containers import ContainerSummary
from tare.wire.df import BuildCacheItem, DiskUsage
from tare.wire.images import ImageSummary
from tare.wire.registry import ArtifactBody
from tare.wire.volumes import VolumeBody, VolumeUsage

TYPES = ("container", "image", "volume", "build-cache")


async def disk_usage(engine: Engine, types: Collection[str] = ()) -> DiskUsage:
    """The report, or the parts named by `types`. Raises InvalidArgument for a type there is not."""
    for kind in types:
        if kind not in TYPES:
            raise InvalidArgument(f"unknown object type: {kind}")
    wanted = set(types or TYPES)
    besides = artifacts_body(engine) if "image" in wanted else []
    besides_bytes = engine.manifests.artifacts.bytes() if besides else 0
    return DiskUsage(
        LayersSize=engine.images.layers_bytes() + besides_bytes if "image" in wanted else 0,
        Images=_images(engine) if "image" in wanted else None,
        Containers=await _containers(engine) if "container" in wanted else None,
        Volumes=await _volumes(engine) if "volume" in wanted else None,
        BuildCache=_build_cache(engine) if "build-cache" in wanted else None,
        Artifacts=besides or UNSET,
        ArtifactsSize=besides_bytes if besides else UNSET,
    )


def artifacts_body(engine: Engine) -> list[ArtifactBody]:
    """What is here beside images."""
    artifacts = engine.manifests.artifacts
    return [
        ArtifactBody(
            Digest=known.digest,
            Type=known.kind,
            Names=[name.familiar() for name in artifacts.names_of(known.digest)],
            Subject=known.subject,
            Size=known.size_bytes,
            Annotations=known.document.annotations or {},
        )
        for known in artifacts.all()
    ]


def _build_cache(engine: Engine) -> list[BuildCacheItem]:
    return [
        BuildCacheItem(
            ID=record.key,
            Parents=[record.parent] if is_full_id(record.parent) else UNSET,
            Type=record.kind,
            Description=record.description,
            InUse=engine.build_cache.is_in_use(record.key),
            Shared=is_shared(engine, record),
            Size=record.size_bytes,
            CreatedAt=clock.rfc3339nano(record.created_at),
            LastUsedAt=clock.rfc3339nano(record.used_at),
            UsageCount=record.uses,
        )
        for record in engine.build_cache.records()
    ]


def _images(engine: Engine) -> list[ImageSummary]:
    counts: dict[str, int] = {}
    for use in image_uses(engine):
        counts[use.image_id] = counts.get(use.image_id, 0) + 1
    return [_image(engine, image, counts.get(image.id, 0)) for image in engine.images.list_images({})]


def _image(engine: Engine, image: Image, containers: int) -> ImageSummary:
    references = engine.images.references(image.id)
    return ImageSummary(
        Containers=containers,
        Created=naming.created_ns(image) // 1_000_000_000,
        Id=image.id,
        Labels=image.config.Labels,
        ParentId=image.parent or "",
        RepoDigests=[reference.familiar() for reference in references if reference.digest is not None],
        RepoTags=[reference.familiar() for reference in references if reference.digest is None],
        SharedSize=engine.images.shared_bytes(image),
        Size=image.size_bytes,
    )


async def _containers(engine: Engine) -> list[ContainerSummary]:
    now = clock.now()
    found: list[ContainerSummary] = []
    for slot in list(engine.containers):
        container = slot.container
        try:
            sizes = await sizes_of(engine, container)
        except NotFound:
            continue  # removed meanwhile
        found.append(summary(container, now=now, image=image_shown(engine, container), sizes=sizes))
    return found


async def _volumes(engine: Engine) -> list[VolumeBody]:
    found: list[VolumeBody] = []
    for record in engine.volumes.select({}):
        try:
            size = await engine.volumes.usage(record.name)
        except NotFound:
            continue  # removed meanwhile
        found.append(volume_body(engine, record, size_bytes=size))
    return found


def volume_body(engine: Engine, record: VolumeRecord, *, size_bytes: int | None = None) -> VolumeBody:
    """A volume in Docker's words. With its size it also says how many containers refer to it."""
    usage: VolumeUsage | UnsetType = UNSET
    if size_bytes is not None:
        usage = VolumeUsage(RefCount=len(engine.volumes.holders(record.name)), Size=size_bytes)
    return VolumeBody(
        CreatedAt=clock.rfc3339nano(record.created_at // 1_000_000_000 * 1_000_000_000),
        Driver=record.driver,
        Labels=record.labels or None,
        Mountpoint=str(engine.volumes.path(record.name)),
        Name=record.name,
        Options=record.options or None,
        UsageData=usage,
    )
