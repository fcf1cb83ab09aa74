"""The image endpoints: Docker's requests to the `Images` service and back. Nothing is decided here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tare.aio.threads import in_thread
from tare.api.registries import pull_image, wanted_platform, wanted_platforms
from tare.base.clock import rfc3339nano
from tare.base.digest import sha256
from tare.base.errors import Conflict, InvalidArgument
from tare.base.reference import Reference, parse_reference
from tare.engine import cleanup, platforms
from tare.engine.engine import Engine, image_uses
from tare.images import load as loading
from tare.images import naming
from tare.images.cleanup import parse_policy
from tare.images.platforms import Member
from tare.images.records import Image
from tare.images.save import manifest_of, save
from tare.oci.image import OCI_MANIFEST, Descriptor, Platform
from tare.oci.platform import is_attestation
from tare.web.message import Answer, Request, Response, Stream, json_response
from tare.wire import images as wire
from tare.wire.config import ContainerConfig
from tare.wire.errors import text_of
from tare.wire.filters import flag, parse_filters
from tare.wire.jsonmessage import failure, message

_TAR = "application/x-tar"
_STORAGE = "overlay2"


# -- looking ----------------------------------------------------------------------------------------------------------


async def list_images(engine: Engine, request: Request) -> Answer:
    """GET /images/json."""
    query, images = request.query, engine.images
    filters = parse_filters(query.text("filters"), naming.LIST_FILTERS)
    chosen = images.list_images(filters, include_all=query.flag("all"))
    counts: dict[str, int] = {}
    if request.version >= (1, 51):
        for use in image_uses(engine):
            counts[use.image_id] = counts.get(use.image_id, 0) + 1
    wants_manifests = request.version >= (1, 47) and query.flag("manifests")
    out = []
    for image in chosen:
        tags, digests = _names(engine, image, filters.get("reference"))
        shown_tags, shown_digests = wire.named(tags, digests, request.version)
        out.append(
            wire.ImageSummary(
                Containers=counts.get(image.id, 0) if request.version >= (1, 51) else -1,
                Created=naming.created_ns(image) // 1_000_000_000,
                Id=image.id,
                Labels=image.config.Labels,
                ParentId=image.parent or "",
                RepoDigests=shown_digests,
                RepoTags=shown_tags,
                SharedSize=images.shared_bytes(image) if query.flag("shared-size") else -1,
                Size=image.size_bytes,
                VirtualSize=image.size_bytes if request.version < (1, 44) else UNSET,
                Manifests=await _manifests(engine, image) if wants_manifests else UNSET,
                LastUsed=images.last_use(image) // 1_000_000_000 if query.flag("last-used") else UNSET,
            )
        )
    return json_response(out)


async def inspect_image(engine: Engine, request: Request) -> Answer:
    """GET /images/{name}/json."""
    name, platform = request.params["name"], wanted_platform(request.query)
    with_manifests = request.query.flag("manifests")
    if with_manifests and platform is not None:
        raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
    image = await platforms.resolve(engine, name, platform)
    body = _inspect(engine, image, request.version, is_old=_wants_old_fields(request))
    if with_manifests:
        body = msgspec.structs.replace(body, Manifests=await _manifests(engine, image))
    return json_response(body)


async def image_history(engine: Engine, request: Request) -> Answer:
    """GET /images/{name}/history."""
    image = await platforms.resolve(engine, request.params["name"], wanted_platform(request.query))
    return json_response(
        [
            wire.HistoryItem(
                Comment=step.comment,
                Created=step.created_ns // 1_000_000_000,
                CreatedBy=step.created_by,
                Id=step.id or "<missing>",
                Size=step.size_bytes,
                Tags=[tag.familiar() for tag in step.tags if tag.tag] or None,
            )
            for step in engine.images.history(image)
        ]
    )


def _names(engine: Engine, image: Image, patterns: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """Tags and digests; patterns: only those that match one."""
    references = engine.images.references(image.id)
    if patterns:
        references = [reference for reference in references if naming.matches(reference, patterns)]
    tags = [reference.familiar() for reference in references if reference.digest is None]
    return tags, [reference.familiar() for reference in references if reference.digest is not None]


def _wants_old_fields(request: Request) -> bool:
    """Fields that ended with API 1.45. docker-compose 1 takes the newest version there is, and cannot do without them."""
    return request.version < (1, 45) or request.headers.get("user-agent", "").startswith("docker-compose/1.")


def _inspect(engine: Engine, image: Image, version: wire.Version, *, is_old: bool) -> wire.ImageInspect:
    tags, digests = _names(engine, image)
    document = image.document
    last = document.history[-1] if document.history else None
    data = None
    if image.layers and engine.images.layers.is_unpacked(image.layers[-1]):
        data = {"UpperDir": str(engine.snapshots.upper(short_hex(image)))}
    return wire.ImageInspect(
        Id=image.id,
        RepoTags=tags,
        RepoDigests=digests,
        Parent=image.parent or "",
        Comment=document.comment or (last.comment if last else ""),
        Created=image.created or UNSET,
        Container="" if is_old else UNSET,
        ContainerConfig=msgspec.to_builtins(ContainerConfig()) if is_old else UNSET,
        DockerVersion=document.docker_version,
        Author=document.author,
        Config=wire.image_config(image.config, version),
        Architecture=document.architecture,
        Variant=document.variant or UNSET,
        Os=document.os,
        OsVersion=document.os_version or UNSET,
        Size=image.size_bytes,
        VirtualSize=image.size_bytes if version < (1, 44) else UNSET,
        GraphDriver=wire.GraphDriverData(Data=data, Name=_STORAGE),
        RootFS=wire.RootFSBody(Layers=list(image.diff_ids) or UNSET),
        Metadata=wire.ImageMetadata(
            LastTagTime=rfc3339nano(image.tagged_at),
            LastUsedTime=rfc3339nano(engine.images.last_use(image)) if version >= (1, 44) else UNSET,
        ),
    )


def short_hex(image: Image) -> str:
    """The name of the image's top snapshot."""
    return (image.chain_id or "").removeprefix("sha256:")


async def _manifests(engine: Engine, image: Image) -> list[wire.ImageManifest]:
    """The entries of the index it came through, or the one manifest it has."""
    references = engine.images.references(image.id)
    known = await platforms.family(engine, image, references[0] if references else None)
    users: dict[str, list[str]] = {}
    for use in image_uses(engine):
        users.setdefault(use.image_id, []).append(use.container_id)
    if known is None:
        document = image.document
        raw = manifest_of(image)
        here = Platform(document.architecture, document.os, document.variant)
        own = Descriptor(OCI_MANIFEST, sha256(raw), len(raw), platform=here)
        return [_manifest(Member(own, image=image), users)]
    return [_manifest(member, users) for member in known.members]


def _manifest(member: Member, users: dict[str, list[str]]) -> wire.ImageManifest:
    descriptor, image, artifact = member.descriptor, member.image, member.artifact
    shown = wire.ManifestPlatform(architecture="unknown", os="unknown")
    if (found := descriptor.platform) is not None:
        shown = wire.ManifestPlatform(architecture=found.architecture, os=found.os, variant=found.variant or UNSET)
    content = sum(layer.blob_size for layer in image.layers) + len(image.raw) if image else 0
    content = artifact.size_bytes if artifact else content
    data: wire.ImageData | UnsetType = UNSET
    if not is_attestation(descriptor):
        unpacked = wire.UnpackedSize(Unpacked=image.size_bytes if image else 0)
        data = wire.ImageData(Platform=shown, Containers=users.get(image.id, []) if image else [], Size=unpacked)
    return wire.ImageManifest(
        ID=descriptor.digest,
        Descriptor=wire.ManifestDescriptor(
            mediaType=descriptor.mediaType, digest=descriptor.digest, size=descriptor.size, platform=shown
        ),
        Available=image is not None or artifact is not None,
        Size=wire.ManifestSize(Content=content, Total=content + (image.size_bytes if image else 0)),
        Kind="attestation" if data is UNSET else "image",
        ImageData=data,
    )


# -- making -----------------------------------------------------------------------------------------------------------


async def create_image(engine: Engine, request: Request) -> Answer:
    """POST /images/create: pull (`fromImage`) or import (`fromSrc`)."""
    query = request.query
    if query.text("fromImage"):
        return await pull_image(engine, request)
    source = query.text("fromSrc")
    if not source:
        raise InvalidArgument("either fromImage or fromSrc is needed")
    work = _Import(
        reference=_target(query.text("repo"), query.text("tag")),
        changes=query.all("changes"),
        message=query.text("message"),
        platform=query.text("platform"),
    )
    if source == "-":
        image = await _import(engine, work, aiter(request.body))
        return Response(body=message(image.id))
    return Stream(_messages(_import_url(engine, work, source)))


class _Import(Struct, frozen=True, kw_only=True):
    reference: Reference | None
    changes: Sequence[str]
    message: str
    platform: str


async def _import(engine: Engine, work: _Import, stream: AsyncIterator[bytes]) -> Image:
    return await engine.images.import_(
        stream,
        reference=work.reference,
        changes=work.changes,
        message=work.message,
        platform=work.platform,
    )


async def _import_url(engine: Engine, work: _Import, source: str) -> AsyncIterator[bytes]:
    url = source if "://" in source else f"http://{source}"
    options = engine.images.options
    yield message(f"Downloading from {url}")
    from tare.images import sources  # http.client: few ask for it

    response = await in_thread(sources.open_url, url, allow_private=options.allow_private_sources)
    chunks = sources.url_chunks(response, max_bytes=options.max_source_bytes, max_seconds=options.max_source_seconds)
    if not work.message:
        work = _Import(
            reference=work.reference, changes=work.changes, message=f"Imported from {url}", platform=work.platform
        )
    async with aclosing(chunks):  # type: ignore[type-var]
        image = await _import(engine, work, chunks)
    yield message(image.id)


def _target(repository: str, tag: str) -> Reference | None:
    if not repository:
        return None
    reference = parse_reference(repository)
    if reference.digest:
        raise InvalidArgument("cannot import digest reference")
    return reference.with_tag(tag) if tag else reference.with_default_tag()


async def load_images(engine: Engine, request: Request) -> Answer:
    """POST /images/load: errors are in the stream, as docker-py and the command line expect of dockerd."""
    quiet = request.query.flag("quiet", default=True)
    stream = loading.load(
        engine.images,
        engine.archiver,
        aiter(request.body),
        quiet=quiet,
        manifests=engine.manifests,
        platform=wanted_platform(request.query),
    )

    async def chunks() -> AsyncIterator[bytes]:
        async with aclosing(stream):  # type: ignore[type-var]
            async for step in stream:
                yield message(step.status, stream=step.stream, about=step.about, current=step.current, total=step.total)

    return Stream(_messages(chunks()))


async def _messages(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream with a failure as its last message."""
    async with aclosing(chunks):  # type: ignore[type-var]
        try:
            async for chunk in chunks:
                yield chunk
        except Exception as error:
            yield failure(text_of(error))


async def tag_image(engine: Engine, request: Request) -> Answer:
    """POST /images/{name}/tag."""
    name = request.params["name"]
    repository, tag = request.query.text("repo"), request.query.text("tag")
    if not repository:
        raise InvalidArgument("invalid reference format")
    reference = parse_reference(repository)
    if reference.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    reference = reference.with_tag(tag) if tag else reference.with_default_tag()
    if platforms.is_artifact(engine, name):
        await platforms.tag_artifact(engine, name, reference)
    else:
        await engine.images.tag(engine.images.resolve(name), reference)
    return Response(status=201, content_type="")


async def save_image(engine: Engine, request: Request) -> Answer:
    """GET /images/{name}/get."""
    return await _save(engine, request, [request.params["name"]])


async def save_images(engine: Engine, request: Request) -> Answer:
    """GET /images/get?names=…"""
    names = [name for text in request.query.all("names") for name in text.split(",") if name]
    return await _save(engine, request, names)


async def _save(engine: Engine, request: Request, names: list[str]) -> Answer:
    return Stream(
        await save(
            engine.images,
            names,
            platforms=wanted_platforms(request.query),
            manifests=engine.manifests,
            with_referrers=request.query.flag("referrers"),
        ),
        content_type=_TAR,
    )


# -- removing ---------------------------------------------------------------------------------------------------------


def _records(done: list[tuple[str, str]]) -> list[wire.Deleted]:
    return [wire.Deleted(Untagged=name) if what == "Untagged" else wire.Deleted(Deleted=name) for what, name in done]


async def remove_image(engine: Engine, request: Request) -> Answer:
    """DELETE /images/{name}."""
    query = request.query
    done = await platforms.remove(
        engine,
        request.params["name"],
        force=query.flag("force"),
        prune=not query.flag("noprune"),
        wanted=wanted_platforms(query, "platforms"),
    )
    return json_response(_records(done))


_pruning: set[int] = set()


async def prune_images(engine: Engine, request: Request) -> Answer:
    """POST /images/prune. One at a time (W77)."""
    filters = parse_filters(request.query.text("filters"), naming.PRUNE_FILTERS)
    flag(filters, "dangling")
    key = id(engine.images)
    if key in _pruning:
        raise Conflict("a prune operation is already running")
    _pruning.add(key)
    try:
        done, freed = await platforms.prune(engine, filters)
    finally:
        _pruning.discard(key)
    return json_response(wire.PruneReport(ImagesDeleted=_records(done) or None, SpaceReclaimed=freed))


async def clean_images(engine: Engine, request: Request) -> Answer:
    """`POST /tare/v1/images/clean`: remove by a policy, the daemon's where none is given."""
    query = request.query
    text = query.text("policy")
    policy = parse_policy(text) if text else engine.settings.image_policy
    done = await cleanup.clean(engine, policy, dry_run=query.flag("dry-run"))
    return json_response(
        wire.CleanReport(
            Images=[
                wire.CleanedImage(
                    Id=item.image.id,
                    Names=done.names[item.image.id],
                    Reason=item.reason,
                    LastUsed=engine.images.last_use(item.image) // 1_000_000_000,
                    Size=item.image.size_bytes,
                    Removed=item.image.id in done.removed,
                )
                for item in done.chosen
            ],
            SpaceReclaimed=done.freed_bytes,
        )
    )


__all__ = [
    "clean_images",
    "create_image",
    "image_history",
    "inspect_image",
    "list_images",
    "load_images",
    "prune_images",
    "remove_image",
    "save_image",
    "save_images",
    "tag_image",
]
