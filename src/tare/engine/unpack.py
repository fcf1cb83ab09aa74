"""A packed container becomes one of this engine's: everything is verified first, then it appears, then it runs.

    <data-root>/ingest/<random>/archive/    the unpacked outer tar
                               /volume<n>/  contents of volumes
                               /log/        log files

Bytes nobody vouches for are taken apart by confined workers. A crash before the record is durable leaves what the next
start sweeps.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from tare.aio import tasks
from tare.aio.threads import in_thread
from tare.aio.undo import Undo, undo_on_error
from tare.base.digest import Digest, hex_of
from tare.base.errors import Conflict, DataCorrupt, Forbidden, InvalidArgument, NotFound, TareError
from tare.base.ids import SHORT, ContainerId, random_id
from tare.base.reference import parse_reference
from tare.containers import checks, names
from tare.containers import package as packages
from tare.containers.container import Container, MountPoint
from tare.containers.package import Package, PackedRoot, PackedVolume
from tare.containers.service import Slot
from tare.drivers import host, trees
from tare.drivers.archive.client import Options
from tare.drivers.network.ports import PortHolder
from tare.engine import create, links, remove, rename, start, stop, volumes
from tare.engine.engine import Engine, directory_of, image_uses
from tare.engine.news import tell
from tare.images import layout, load
from tare.images.load import Progress, Spool
from tare.images.records import Image, Layer
from tare.networks import gateways, moving, ports
from tare.networks.records import NetworkRecord
from tare.oci.image import Descriptor
from tare.volumes.records import ANONYMOUS
from tare.wire.config import EndpointSettings, HostConfig

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ARCHIVE = Options(whiteouts=False, devices=False, owners=False, sync=False)
_VOLUME = Options(whiteouts=False, allow_empty=True)
_LOG = Options(whiteouts=False, devices=False, owners=False, allow_empty=True)
_LOG_NAME = re.compile(r"container\.log(\.[1-9][0-9]{0,3})?\Z")


class Wanted(Struct, frozen=True, kw_only=True):
    """name: "" for its own. replaces: the container of that name goes. replaces_volumes: so does what they hold."""

    name: str = ""
    starts: bool = True
    replaces: bool = False
    replaces_volumes: bool = False


class Unpacked(Struct, frozen=True, kw_only=True):
    """The end of it: what is there now."""

    id: ContainerId
    name: str
    is_running: bool


class _Work(Struct, kw_only=True):
    """What is known so far. `notes` are lines for the person who asked."""

    package: Package
    found: layout.Found
    wanted: Wanted
    id: ContainerId
    name: str
    host_config: HostConfig
    limit: int
    ingest: Path
    old: Slot | None
    notes: list[str]
    has_snapshot: bool = False
    is_there: bool = False

    @property
    def starts(self) -> bool:
        return self.package.was_running and self.wanted.starts

    def content(self, volume: PackedVolume) -> Path:
        return self.ingest / f"volume{self.package.Volumes.index(volume)}"


async def unpack(engine: Engine, stream: AsyncIterator[bytes], wanted: Wanted) -> AsyncIterator[Progress | Unpacked]:
    """Read a pack and make the container it describes, telling how far it is; last what it became.

    Raises InvalidArgument (wrong pack; what cannot be on this host), DataCorrupt, Conflict (name, port or volume in
    use). One that cannot be started is there nevertheless, and the error says so.
    """
    engine.migration.expect()
    if wanted.name:
        names.check_name(wanted.name)
    ingest = engine.images.blobs.new_ingest()
    try:
        (ingest / "archive").mkdir(mode=0o700)
        fd = os.open(ingest / "archive", _DIRECTORY)
        try:
            await engine.archiver.unpack(stream, fd, options=_ARCHIVE)
            spool = Spool(fd)
            found = await in_thread(layout.read, spool, packages.MEDIA_TYPE)
            work = _begin(engine, found, wanted, ingest)
            async with engine.images.lease() as lease:
                stack: list[Layer] = []
                async for progress in load.bring_layers(engine.images, spool, found.image, lease, stack, quiet=False):
                    yield progress
                yield Progress(status="Verifying the container")
                try:
                    await _stage(engine, work, spool, stack)
                    container = await tasks.settle(_appear(engine, work, stack), name="unpack")
                except BaseException:
                    if work.has_snapshot and not work.is_there:
                        engine.snapshots.remove(work.id)
                    raise
        finally:
            os.close(fd)
        for note in work.notes:
            yield Progress(status=note)
        if work.starts:
            await tasks.settle(_start(engine, container, work.package), name="start what was unpacked")
        yield Unpacked(id=container.id, name=container.name, is_running=work.starts)
    finally:
        engine.images.discard(ingest)


# --- before anything is visible


def _begin(engine: Engine, found: layout.Found, wanted: Wanted, ingest: Path) -> _Work:
    """Everything that can be said from the documents alone."""
    package = packages.decode(found.document)
    if package.Image.Id != found.image_id:
        raise InvalidArgument("invalid archive: the image is not the one the container stands on")
    if not package.Layer:
        raise InvalidArgument("invalid archive: the container has no layer")
    for digest in package.contents:
        if digest not in found.blobs:
            raise InvalidArgument(f"invalid archive: the container's manifest does not name {digest[:80]}")
    name = names.check_name(wanted.name or package.Name)
    old = _old(engine, name, wanted)
    package = packages.with_volumes(package, _renamed(engine, package, old))
    own = ContainerId(package.Id)
    keeps = packages.keeps_id(package, machine=host.machine(), engine=engine.settings.engine_id)
    is_free = keeps and all(slot.container.id != own for slot in engine.containers) and not engine.snapshots.exists(own)
    host_config = checks.adapt(
        package.HostConfig, facts=engine.host, default_runtime=engine.settings.default_runtime, version=(1, 51)
    )
    notes = [f"WARNING: {text}" for text in create.check(engine, package.Config, host_config)]
    links.check(engine, host_config)
    work = _Work(
        package=package,
        found=found,
        wanted=wanted,
        id=own if is_free else ContainerId(random_id()),
        name=name,
        host_config=host_config,
        limit=create.size_limit(engine, host_config),
        ingest=ingest,
        old=old,
        notes=notes,
    )
    _refuse_volumes(engine, work)
    if work.starts:
        _refuse_ports(package, host_config, old)
    for point in package.Mounts:
        if point.type == "bind" and not os.path.exists(point.source):
            notes.append(f"{point.source} is not on this host: {point.destination} mounts it")
    return work


def _old(engine: Engine, name: str, wanted: Wanted) -> Slot | None:
    try:
        engine.containers.refuse_taken(name)
    except Conflict as error:
        if wanted.replaces:
            return engine.containers.find(f"/{name}")
        raise Conflict(
            error.message, hint="unpack with --name for another name, or --replace to put it in that one's place"
        ) from None
    return None


def _renamed(engine: Engine, package: Package, old: Slot | None) -> dict[str, str]:
    """New names for volumes without a name of their own that another container has: a copy does not share them."""
    mine = set() if old is None else {old.container.id}
    return {
        volume.Name: random_id()
        for volume in package.Volumes
        if ANONYMOUS in volume.Labels and set(engine.volumes.holders(volume.Name)) - mine
    }


def _refuse_volumes(engine: Engine, work: _Work) -> None:
    """A volume whose content shall change must not be in use. Raises Conflict."""
    if not work.wanted.replaces_volumes:
        return
    for volume in work.package.Volumes:
        if not volume.Content or not _is_known(engine, volume.Name):
            continue
        if not engine.volumes.is_plain(volume.Name):
            raise Conflict(f"volume {volume.Name} of this host shows what its driver options name: it is not replaced")
        users = engine.volumes.users(volume.Name)
        if users:
            raise Conflict(
                f"volume {volume.Name} is in use - [{', '.join(user[:SHORT] for user in users)}]",
                hint="stop these containers first, or unpack without --replace-volumes",
            )


def _is_known(engine: Engine, name: str) -> bool:
    try:
        engine.volumes.get(name)
    except NotFound:
        return False
    return True


def _refuse_ports(package: Package, host_config: HostConfig, old: Slot | None) -> None:
    """Ports with fixed numbers have to be free now. Raises Conflict. Those of the replaced container will be.

    Networks that are routed publish nothing at the host.
    """
    if host_config.NetworkMode in ("host", "none") or checks.joined_container(host_config.NetworkMode):
        return
    options = [network.Definition.Options or {} for network in package.Networks]
    has_others = not options or len(package.Endpoints) > len(options)
    routed = frozenset() if has_others else gateways.routed_by_all(options)
    freed = set()
    if old is not None:
        for name, bindings in old.container.ports.items():
            protocol = ports.parse_port(name)[1]
            freed |= {(protocol, binding.HostPort) for binding in bindings or ()}
    holder = PortHolder()
    try:
        for wish in ports.wishes(package.Config, host_config):
            if not wish.first or wish.first != wish.last or (wish.protocol, str(wish.first)) in freed:
                continue
            for ip in ports.host_ips(wish, ""):
                if ip.version in routed:
                    continue
                try:
                    holder.hold(wish.protocol, ip, wish.first, wish.first)
                except InvalidArgument:
                    if wish.host_ip is None:  # a host without IPv6
                        continue
                    raise
                except Conflict as error:
                    raise Conflict(
                        f"port {wish.first}/{wish.protocol} of this host is taken, which {wish.name} of the container "
                        f"is published at: {error.message}",
                        hint="unpack with --no-start, then change it with `tare port`",
                    ) from None
    finally:
        holder.close()


async def _stage(engine: Engine, work: _Work, spool: Spool, stack: list[Layer]) -> None:
    """Unpack layer, volumes and log, each checked against what was promised, where nobody looks yet.

    Raises InvalidArgument, DataCorrupt.
    """
    package = work.package
    if stack:
        await engine.images.layers.make_ready(stack[-1].chain_id)
    engine.snapshots.prepare(work.id, hex_of(stack[-1].chain_id) if stack else None, limit=work.limit)
    work.has_snapshot = True
    upper = engine.snapshots.upper(work.id)
    opaque = await _unpack(engine, work, spool, package.Layer, upper, Options(allow_empty=True))
    await in_thread(engine.snapshots.mark_opaque, upper.parent, opaque)
    await in_thread(_give, upper, package.Root)
    for volume in package.Volumes:
        if volume.Content:
            tree = work.content(volume)
            tree.mkdir(mode=0o755)
            await _unpack(engine, work, spool, volume.Content, tree, _VOLUME)
            await in_thread(_give, tree, volume.Root)
    if package.Log:
        tree = work.ingest / "log"
        tree.mkdir(mode=0o700)
        await _unpack(engine, work, spool, package.Log, tree, _LOG)
        for name in os.listdir(tree):
            if not _LOG_NAME.match(name) or not stat.S_ISREG(os.lstat(tree / name).st_mode):
                raise InvalidArgument(f"invalid archive: {name[:80]!r} is no log file")


async def _unpack(engine: Engine, work: _Work, spool: Spool, digest: str, tree: Path, options: Options) -> list[str]:
    """Unpack a blob of the archive into a directory; the opaque directories in it."""
    descriptor: Descriptor = work.found.blobs[digest]
    path = layout.name_of(Digest(digest))
    with ExitStack() as opened:
        blob = spool.open(path)
        opened.callback(os.close, blob)
        root = os.open(tree, _DIRECTORY)
        opened.callback(os.close, root)
        try:
            result = await engine.archiver.unpack(blob, root, options=options)
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid archive: {path}: {error.message}") from None
    if result.input_digest != digest or result.input_size != descriptor.size:
        raise DataCorrupt(f"{path} does not match its digest {digest}")
    return result.opaque


def _give(directory: Path, root: PackedRoot) -> None:
    fd = os.open(directory, _DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(fd, root.Uid, root.Gid)
        os.fchmod(fd, root.Mode)
        os.utime(fd, ns=(root.ModifiedAt, root.ModifiedAt))
    finally:
        os.close(fd)


# --- becoming visible


async def _appear(engine: Engine, work: _Work, stack: list[Layer]) -> Container:
    """Image, networks, volumes, record: all of them or none."""
    package = work.package
    async with undo_on_error("unpack") as undo:
        image = await _add_image(engine, work, stack, undo)
        endpoints = await _networks(engine, work, undo)
        mounts = await _volumes(engine, work, undo)
        directory = directory_of(engine, work.id)
        directory.mkdir(mode=0o700)
        undo.push(trees.discard, directory)
        if package.Log:
            for name in os.listdir(work.ingest / "log"):
                os.rename(work.ingest / "log" / name, directory / name)
        container = packages.unpacked(
            package,
            container_id=work.id,
            name=work.name,
            image_id=image.id,
            host_config=work.host_config,
            mounts=mounts,
            endpoints=endpoints,
        )
        await _fill(engine, work, container)
        if work.old is not None:
            await rename.rename(engine, work.old, f"{work.name}-{random_id()[:SHORT]}")
            undo.push(rename.rename, engine, work.old, work.name)
        await engine.containers.add(container)
        work.is_there = True
    tell(engine, container, "unpack")
    if work.old is not None:
        try:
            await remove.remove(engine, work.old, force=True)
        except TareError as error:
            work.notes.append(f"the container that was called {work.name} is still there: {error.message}")
    return container


async def _add_image(engine: Engine, work: _Work, stack: list[Layer], undo: Undo) -> Image:
    """The image, under its name where that is free here."""
    images, reference = engine.images, None
    if work.package.Image.Reference:
        reference = parse_reference(work.package.Image.Reference).with_default_tag()
        other = images.all_references().get(reference)
        if other is not None:
            if other != work.found.image_id:
                work.notes.append(f"{reference.familiar()} is another image here, and stays: this one has no name")
            reference = None
    is_new = images.find(work.found.image_id) is None
    image = await images.add_image(work.found.image.raw, stack, references=[reference] if reference else [])
    if is_new:
        undo.push(_remove_image, engine, image.id)
    elif reference is not None:
        undo.push(_remove_image, engine, reference.canonical())
    return image


async def _remove_image(engine: Engine, name: str) -> None:
    await engine.images.remove(name, uses=image_uses(engine), force=True, prune=False)


async def _networks(engine: Engine, work: _Work, undo: Undo) -> dict[str, EndpointSettings]:
    """Make the networks that are missing; the endpoints as they can be here."""
    endpoints = dict(work.package.Endpoints)
    for network in work.package.Networks:
        name = network.Definition.Name
        if name not in endpoints:
            continue
        record = next((known for known in engine.networks.list() if known.name == name), None)
        if record is None:
            record = await _make_network(engine, work, network)
            undo.push(engine.networks.remove, record.id)
        endpoints[name], lost = moving.fitted(endpoints[name], record)
        if lost:
            work.notes.append(f"network {name}: {', '.join(lost)} is not an address of it here, another is taken")
    return endpoints


async def _make_network(engine: Engine, work: _Work, network: packages.PackedNetwork) -> NetworkRecord:
    body = network.Definition
    settings = work.package.Endpoints[body.Name]
    if not network.SubnetAsked and not settings.IPAMConfig:
        return await engine.networks.create(moving.without_subnets(body))
    try:
        overlaps = moving.taken(body, await engine.networks.in_use())
    except ValueError as error:
        raise InvalidArgument(f"network {body.Name}: {error}") from None
    if not overlaps:
        try:
            return await engine.networks.create(body)
        except Forbidden as error:
            overlaps = [error.message]
    record = await engine.networks.create(moving.without_subnets(body))
    has = ", ".join(pool.subnet for pool in record.pools)
    work.notes.append(f"network {body.Name}: subnet {', '.join(overlaps)} is taken here, it has {has}")
    return record


async def _volumes(engine: Engine, work: _Work, undo: Undo) -> tuple[MountPoint, ...]:
    """Make the volumes that are missing and give them their contents; the mounts as they are here."""
    for volume in work.package.Volumes:
        is_new = not _is_known(engine, volume.Name)
        await engine.volumes.create(volume.Name, driver=volume.Driver, options=volume.Options, labels=volume.Labels)
        if is_new:
            undo.push(_remove_volume, engine, volume.Name)
        if not volume.Content:
            continue
        if is_new or work.wanted.replaces_volumes:
            await _exchange(engine, volume.Name, work.content(volume), undo)
        else:
            work.notes.append(f"volume {volume.Name} exists here and is kept as it is (--replace-volumes)")
    return await volumes.provide(engine, work.id, work.package.Mounts, undo)


async def _remove_volume(engine: Engine, name: str) -> None:
    await engine.volumes.remove(name, force=True)


async def _exchange(engine: Engine, name: str, content: Path, undo: Undo) -> None:
    """What was unpacked becomes the content of a volume; what was there goes when all is done."""
    stage = engine.volumes.stage(name)
    if stage is None:
        raise Conflict(f"volume {name} is in use", hint="stop the containers that use it first")
    undo.push(engine.images.discard, stage)
    stage.rmdir()
    os.rename(content, stage)
    if not await engine.volumes.exchange(name):
        raise Conflict(f"volume {name} is in use", hint="stop the containers that use it first")
    undo.push(engine.volumes.exchange, name)
    os.rename(stage, content)  # goes with the ingest; an undo finds it where it was
    undo.push(os.rename, content, stage)


async def _fill(engine: Engine, work: _Work, container: Container) -> None:
    """Empty volumes whose content did not travel are filled from the image, as at create."""
    packed = {volume.Name for volume in work.package.Volumes if volume.Content}
    rest = tuple(point for point in container.mounts if point.type == "volume" and point.name not in packed)
    await volumes.fill(engine, replace(container, mounts=rest))


# --- running


async def _start(engine: Engine, container: Container, package: Package) -> None:
    slot = engine.containers.find(container.id)
    try:
        await start.start(engine, slot)
    except TareError as error:
        raise type(error)(
            f"container {container.name} ({container.id[:SHORT]}) is here but could not be started: {error.message}",
            hint=error.hint,
        ) from None
    if package.State.RestartCount:
        engine.containers.change(slot, restart_count=package.State.RestartCount)
    if package.was_paused:
        stop.pause(engine, slot)


__all__ = ["Unpacked", "Wanted", "unpack"]
