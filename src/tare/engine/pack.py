"""A container with everything it is, as one stream: its changes, its image, its settings, its volumes, its log.

Everything that can change is read into files of ours while the container holds still (confined workers compress it);
what goes to the client afterwards, however slowly, is those files and the blobs of the image, which nothing changes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing
from pathlib import Path

from msgspec import Struct, field

from tare.aio import tasks
from tare.aio.threads import in_thread
from tare.base.digest import Digest, parse_digest
from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.base.ids import random_id
from tare.base.reference import Reference, parse_reference
from tare.containers import package as packages
from tare.containers.container import Container, State
from tare.containers.logpacks import SUFFIX
from tare.containers.logs import open_plain, rotated
from tare.containers.package import LOG_TYPE, MEDIA_TYPE, VOLUME_TYPE, PackedImage, PackedNetwork, PackedRoot
from tare.containers.service import Slot
from tare.drivers import host
from tare.drivers.archive import tar
from tare.drivers.archive.client import Options
from tare.engine import stop
from tare.engine.commit import frozen
from tare.engine.engine import Engine, log_path
from tare.engine.news import tell
from tare.images import layout, save
from tare.images.layout import Extra
from tare.images.records import Image, Layer
from tare.networks import moving
from tare.oci.image import OCI_LAYER_GZIP

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BLOB = Options(blob="write", extract=False, allow_empty=True, sync=False)
_PIECE = 1024 * 1024


class Wanted(Struct, frozen=True, kw_only=True):
    """volumes: names or places of those whose content travels, None for all. without: layers that need not be sent."""

    volumes: tuple[str, ...] | None = None
    logs: bool = False
    stops: bool = False
    without: frozenset[str] = field(default_factory=frozenset)


def layers_of(engine: Engine, container: Container) -> tuple[Layer, ...]:
    """The layers of the image it stands on, base first. Raises Conflict when the image is gone."""
    return _image(engine, container).layers


def lacking(engine: Engine, digests: list[str]) -> list[str]:
    """Those that are neither a blob here nor the chainID of a known file system. Raises InvalidArgument."""
    known = engine.images.layers.known
    blobs = {layer.blob for layer in known.values()}
    return [digest for digest in map(parse_digest, digests) if digest not in known and digest not in blobs]


async def pack(engine: Engine, slot: Slot, wanted: Wanted) -> AsyncGenerator[bytes, None]:
    """The tar. The first piece is empty: by then everything is read and the container goes on.

    Raises Conflict (no image any more, being removed, `--rm` and stops), NotFound, InvalidArgument (volumes).
    """
    if slot.is_being_removed or slot.container.state in (State.DEAD, State.REMOVING):
        raise Conflict(f"cannot pack container {slot.container.name}: it is {slot.container.state.value}")
    ingest = engine.images.blobs.new_ingest()
    try:
        async with engine.images.lease() as lease:
            image = _image(engine, slot.container)
            for layer in image.layers:
                engine.images.layers.take(lease, layer)
            before = slot.container
            _choose(engine, before, wanted)  # what cannot be is said before anything is stopped
            if wanted.stops:
                await _stop(engine, slot)
            async with slot.lock:
                with frozen(engine, slot.container):
                    members = await _read(engine, before, image, wanted, ingest)
            yield b""
            chunks = save.stream(members, engine.images.blobs)
            async with aclosing(chunks):  # type: ignore[type-var]
                async for chunk in chunks:
                    yield chunk
        tell(engine, before, "pack")
    finally:
        engine.images.discard(ingest)


def _image(engine: Engine, container: Container) -> Image:
    try:
        return engine.images.get(container.image_id)
    except NotFound:
        raise Conflict(
            f"the image of container {container.name} has been removed",
            hint="pull or load it again; `tare export` writes the files alone",
        ) from None


async def _stop(engine: Engine, slot: Slot) -> None:
    container = slot.container
    if not container.is_running and container.state is not State.RESTARTING:
        return
    if container.host_config.AutoRemove:
        raise Conflict(
            f"container {container.name} is removed when it stops (--rm)", hint="pack it while it runs, without --stop"
        )
    await tasks.settle(stop.stop(engine, slot, timeout_s=None), name="stop before packing")


def _choose(engine: Engine, container: Container, wanted: Wanted) -> tuple[str, ...]:
    points = packages.mounts_of(container)
    plain = {point.name for point in points if point.type == "volume" and engine.volumes.is_plain(point.name)}
    return packages.choose_volumes(points, wanted.volumes, plain=plain)


# --- reading what can change


async def _read(engine: Engine, container: Container, image: Image, wanted: Wanted, ingest: Path) -> list[save.Member]:
    """Everything of one moment, as files in `ingest`; the members of the tar."""
    extras: list[Extra] = []
    upper = engine.snapshots.upper(container.id)
    layer = await _keep_tree(engine, ingest, upper, media_type=OCI_LAYER_GZIP, role="layer", overlay=True)
    extras.append(layer)
    chosen = _choose(engine, container, wanted)
    volumes: list[packages.PackedVolume] = []
    for name in dict.fromkeys(p.name for p in packages.mounts_of(container) if p.type == "volume"):
        record = engine.volumes.get(name)
        packed = packages.PackedVolume(
            Name=name, Driver=record.driver, Labels=dict(record.labels), Options=dict(record.options)
        )
        if name in chosen:
            content, packed = await _keep_volume(engine, ingest, packed)
            extras.append(content)
        volumes.append(packed)
    log = await _keep_log(engine, container, ingest) if wanted.logs else None
    if log is not None:
        extras.append(log)
    reference = _reference(engine, container, image)
    networks, mode = _networks(engine, container)
    package = packages.package_of(
        container,
        image=PackedImage(Id=image.id, Reference=reference.canonical() if reference else ""),
        networks=networks,
        volumes=volumes,
        root=_root_of(upper),
        layer=layer.digest,
        log=log.digest if log else "",
        network_mode=mode,
        machine=host.machine(),
        engine=engine.settings.engine_id,
    )
    return layout.members(
        image,
        [reference] if reference else [],
        document=packages.encode(package),
        document_type=MEDIA_TYPE,
        extras=extras,
        without=wanted.without,
    )


def _root_of(directory: Path) -> PackedRoot:
    found = os.stat(directory)
    return PackedRoot(
        Mode=found.st_mode & 0o7777, Uid=found.st_uid, Gid=found.st_gid, ModifiedAt=max(0, found.st_mtime_ns)
    )


async def _keep_volume(
    engine: Engine, ingest: Path, packed: packages.PackedVolume
) -> tuple[Extra, packages.PackedVolume]:
    """The content of a volume as a file. One that a container has mounted needs no second user here."""
    user = f"pack-{random_id()}"
    path = await engine.volumes.mount(packed.Name, user)
    try:
        content = await _keep_tree(engine, ingest, path, media_type=VOLUME_TYPE, role=packed.Name, overlay=False)
        root = _root_of(path)
    finally:
        await engine.volumes.unmount(packed.Name, user)
    return content, packages.PackedVolume(
        Name=packed.Name,
        Driver=packed.Driver,
        Labels=packed.Labels,
        Options=packed.Options,
        Content=content.digest,
        Root=root,
    )


async def _keep_tree(
    engine: Engine, ingest: Path, directory: Path, *, media_type: str, role: str, overlay: bool
) -> Extra:
    """A directory as a compressed tar. Bytes go from one confined worker to another."""
    fd = os.open(directory, _DIRECTORY)
    try:
        async with engine.archiver.pack(fd, overlay=overlay, one_file_system=not overlay) as reader:
            return await _keep(engine, ingest, reader, media_type=media_type, role=role)
    finally:
        os.close(fd)


async def _keep(
    engine: Engine, ingest: Path, source: AsyncIterator[bytes] | int, *, media_type: str, role: str
) -> Extra:
    path = ingest / random_id()
    with ExitStack() as opened:
        root = os.open(ingest, _DIRECTORY)
        opened.callback(os.close, root)
        blob = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        opened.callback(os.close, blob)
        result = await engine.archiver.unpack(source, root, blob_fd=blob, options=_BLOB)
    return Extra(
        media_type=media_type,
        digest=Digest(result.blob_digest),
        size=result.blob_size,
        path=path,
        annotations=(("org.opencontainers.image.title", role),),
    )


async def _keep_log(engine: Engine, container: Container, ingest: Path) -> Extra | None:
    """Its log files as a compressed tar, None where it wrote none."""
    path = log_path(engine, container)
    found = rotated(path)
    if not found:
        return None
    return await _keep(engine, ingest, log_tar(found), media_type=LOG_TYPE, role="log")


async def log_tar(paths: list[Path]) -> AsyncIterator[bytes]:
    """Files of ours as a tar, each as long as it was when its turn came; a rotation may take one away."""
    for path in paths:
        try:
            fd = await in_thread(open_plain, path)
        except FileNotFoundError:
            continue
        try:
            about = os.fstat(fd)
            entry = tar.Entry(
                path.name.removesuffix(SUFFIX).encode(), tar.FILE, 0o640, size=about.st_size, mtime_ns=about.st_mtime_ns
            )
            yield tar.header_of(entry)
            left = about.st_size
            while left and (piece := await in_thread(os.read, fd, min(left, _PIECE))):
                left -= len(piece)
                yield piece
            if left:  # it was emptied meanwhile
                raise Conflict("the log was cleared while it was read", hint="pack the container again")
            yield tar.padding(about.st_size)
        finally:
            os.close(fd)
    yield tar.TRAILER


# --- what only has to be looked up


def _reference(engine: Engine, container: Container, image: Image) -> Reference | None:
    """The name its image goes by: the one it was made with, while that is still the image's."""
    tags = sorted((r for r in engine.images.references(image.id) if r.tag), key=lambda r: r.canonical())
    try:
        asked = parse_reference(container.image_reference).with_default_tag()
    except InvalidArgument:
        asked = None
    return asked if asked in tags else tags[0] if tags else None


def _networks(engine: Engine, container: Container) -> tuple[list[PackedNetwork], str]:
    """The definitions of the users' networks it wants, and its network mode by name."""
    found: list[PackedNetwork] = []
    mode = container.host_config.NetworkMode
    records = {record.name: record for record in engine.networks.list()}
    for name in container.asked_endpoints:
        record = records.get(name)
        if record is None or record.is_predefined:
            continue
        found.append(PackedNetwork(Definition=moving.definition_of(record), SubnetAsked=record.is_subnet_asked))
        if mode and record.id.startswith(mode) and mode not in records:
            mode = name
    return found, mode


__all__ = ["Wanted", "lacking", "layers_of", "pack"]
