"""Where containers and volumes meet: provided and filled at create, mounted at start, given back, forgotten.

    <exec-root>/mounts/<container id>/<n>         an image that a container mounts, or a bind without what is below it
    <exec-root>/mounts/<container id>/<n>.part    the part of a volume or an image that it mounts

A directory of a volume asked for by `subpath` may be changed by another container at any moment. So it is resolved
once, by descriptor, and mounted in a place of ours from which the runtime takes it. (Runtimes refuse a descriptor of
ours, `/proc/PID/fd/N`: it belongs to another mount namespace, and mount(2) answers EINVAL; measured with crun 1.8.)
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from tare.aio.threads import in_thread
from tare.aio.undo import Undo
from tare.base.digest import Digest, hex_of
from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound
from tare.base.ids import ContainerId
from tare.containers.container import Container, MountPoint
from tare.containers.mounts import inherit, parse_volumes_from
from tare.containers.service import Slot
from tare.drivers import linux, trees
from tare.drivers.archive.client import Options
from tare.drivers.snapshots import Ids
from tare.engine.engine import Engine, rootfs_of
from tare.wire.config import HostConfig

log = logging.getLogger(__name__)

_FILL = Options(whiteouts=False, allow_empty=True)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


# --- create


def inherited(engine: Engine, host_config: HostConfig) -> list[MountPoint]:
    """The mounts that `--volumes-from` brings, later containers over earlier ones.

    Raises InvalidArgument, also for a container that does not exist (W10: 404 at create means the image).
    """
    points: dict[str, MountPoint] = {}
    for text in host_config.VolumesFrom or ():
        name, mode = parse_volumes_from(text)
        try:
            other = engine.containers.find(name).container
        except NotFound as error:
            raise InvalidArgument(error.message) from None
        points |= {point.destination: point for point in inherit(other.mounts, mode)}
    return list(points.values())


async def provide(
    engine: Engine, container_id: ContainerId, points: Sequence[MountPoint], undo: Undo
) -> tuple[MountPoint, ...]:
    """Make or find every volume and hold it for the container. The points with names and sources.

    Raises InvalidArgument, Conflict (the volume has another driver).
    """
    provided: list[MountPoint] = []
    for number, point in enumerate(points):
        if point.type == "image":
            provided.append(_provide_image(engine, container_id, point, number))
            continue
        if point.type != "volume":
            provided.append(point)
            continue
        try:
            record, is_new = await engine.volumes.obtain(
                point.name,
                container_id,
                driver=point.driver if point.driver != "local" else "",
                options=point.options,
                labels=point.labels,
            )
        except NotFound as error:
            raise InvalidArgument(error.message, hint=error.hint) from None
        undo.push(_give_up, engine, record.name, container_id, is_new and point.is_anonymous)
        source = str(engine.volumes.path(record.name))
        provided.append(replace(point, name=record.name, driver=record.driver, source=source))
    return tuple(provided)


def in_order(engine: Engine, container_id: ContainerId, points: Iterable[MountPoint]) -> tuple[MountPoint, ...]:
    """Points of a container that were put together anew: parents first, images at places of their own."""
    ordered = sorted(points, key=lambda point: point.destination.count("/") if point.destination != "/" else 0)
    return tuple(
        replace(point, source=str(_parts(engine, container_id) / str(number))) if point.type == "image" else point
        for number, point in enumerate(ordered)
    )


async def take_over(engine: Engine, slot: Slot) -> None:
    """Before a start: mounts that were edited while the container ran hold from now on."""
    container = slot.container
    if container.next_mounts is None:
        return
    new = tuple(point for point in container.next_mounts if point not in container.mounts)
    await fill(engine, replace(container, mounts=new))
    await engine.containers.save(slot, durable=True, mounts=container.next_mounts, next_mounts=None)
    let_go(engine, container.mounts, slot.container)


def let_go(engine: Engine, before: Iterable[MountPoint], container: Container) -> None:
    """The container had the points `before`: it holds those volumes no more that it has not now."""
    held = {point.name for point in container.all_mounts}
    for point in before:
        if point.type == "volume" and point.name not in held:
            engine.volumes.let_go(point.name, container.id)


def _provide_image(engine: Engine, container_id: ContainerId, point: MountPoint, number: int) -> MountPoint:
    """The image as it is now; a tag that moves later changes nothing. Raises InvalidArgument (W10)."""
    try:
        image = engine.images.resolve(point.name)
    except NotFound as error:
        raise InvalidArgument(error.message, hint="pull it first") from None
    if image.chain_id is None:
        raise InvalidArgument(f"image {point.name} has no content to be mounted")
    source = str(_parts(engine, container_id) / str(number))
    return replace(point, image_id=image.id, chain_id=image.chain_id, source=source)


async def _give_up(engine: Engine, name: str, container_id: str, removes: bool) -> None:
    engine.volumes.let_go(name, container_id)
    if removes:
        await engine.volumes.remove(name, force=True)


async def fill(engine: Engine, container: Container) -> None:
    """Copy-up: what the image has at a volume's place becomes the content of the volume, if that is empty (W83).

    The container's snapshot is prepared. Owners, modes, times, links, user.* attributes and file capabilities are
    kept; links on the way are followed inside the root only. Volumes that have to be mounted are filled at start.
    Raises InvalidArgument when a file is in the place of a volume, Unavailable when the disk is full.
    """
    points = [
        point
        for point in container.mounts
        if point.type == "volume"
        and point.copies
        and engine.volumes.is_plain(point.name)
        and await _is_empty(engine, container, point)
    ]
    if not points:
        return
    target = rootfs_of(engine, container.id)
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        engine.snapshots.mount(container.id, target, readonly=True)
        for point in points:
            await _fill(engine, point, target)
    finally:
        engine.snapshots.unmount(target)
        target.rmdir()
        target.parent.rmdir()


async def _is_empty(engine: Engine, container: Container, point: MountPoint) -> bool:
    path = await engine.volumes.mount(point.name, container.id)
    try:
        with _target(Path(path), point) as target:
            return target is not None and not os.listdir(target)
    finally:
        await engine.volumes.unmount(point.name, container.id)


@contextmanager
def _target(whole: Path, point: MountPoint) -> Iterator[int | None]:
    """The directory of the volume that is mounted; None for a part that is none, or not there: the start says so."""
    try:
        fd = _open_part(whole, point.subpath, _DIRECTORY) if point.subpath else os.open(whole, _DIRECTORY)
    except OSError:
        if not point.subpath:
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _open_part(whole: Path, part: str, flags: int) -> int:
    """A directory or file inside a volume or image. No link leads out of it. Raises OSError."""
    root = os.open(whole, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return linux.openat2(root, part, flags, resolve=linux.RESOLVE_BENEATH | linux.RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(root)


@contextmanager
def _source(root: int, point: MountPoint) -> Iterator[int | None]:
    """The directory of the image at the volume's place; None where the image has none."""
    try:
        fd = linux.open_in_root(root, point.destination, _DIRECTORY)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise InvalidArgument(f"cannot mount volume over existing file, file exists {point.destination}") from None
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise InternalError(f"cannot open {point.destination} of the image: {error.strerror}") from error
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


async def _fill(engine: Engine, point: MountPoint, rootfs: Path) -> None:
    """Fill one volume from the root file system mounted at `rootfs`, unless somebody was quicker."""
    root = os.open(rootfs, _DIRECTORY)
    try:
        with _source(root, point) as source:
            if source is None:
                return
            async with engine.volumes.filling(point.name):
                stage = engine.volumes.stage(point.name) if not point.subpath else None
                if stage is not None:
                    try:
                        await _copy(engine, source, stage)
                    except BaseException:
                        await in_thread(trees.discard, stage)
                        raise
                    if await engine.volumes.commit(point.name):
                        return
                with _target(engine.volumes.path(point.name), point) as target:
                    if target is not None and not os.listdir(target):  # a part, or in use: it cannot be exchanged
                        await _copy_into(engine, source, target)
    finally:
        os.close(root)


async def _copy(engine: Engine, source: int, target: Path) -> None:
    into = os.open(target, _DIRECTORY | os.O_NOFOLLOW)
    try:
        await _copy_into(engine, source, into)
    finally:
        os.close(into)


async def _copy_into(engine: Engine, source: int, target: int) -> None:
    """Bytes go from one confined worker to another; none passes through the engine."""
    attributes = os.fstat(source)
    if os.listdir(source):
        async with engine.archiver.pack(source, one_file_system=True) as reader:
            await engine.archiver.unpack(reader, target, options=_FILL)
    try:
        os.fchown(target, attributes.st_uid, attributes.st_gid)
        os.fchmod(target, stat.S_IMODE(attributes.st_mode))
        os.utime(target, ns=(attributes.st_atime_ns, attributes.st_mtime_ns))
    except OSError as error:  # a mounted volume may not know owners
        if error.errno not in (errno.EPERM, errno.EROFS, errno.EOPNOTSUPP):
            raise InternalError(f"cannot set the owner of the volume: {error.strerror}") from error


# --- start and exit


async def mount(engine: Engine, container: Container, *, looks: bool = False, ids: Ids | None = None) -> dict[str, str]:
    """Mount every volume of the container, and what else the runtime cannot mount by itself. Destination to the path for the runtime; `unmount` undoes it.

    looks: somebody looks into a stopped container, so nothing is told, filled or made. ids: whose ids volumes and images
    show; binds are the host's and show its ids.
    Raises NotFound, InvalidArgument (options, subpath), Unavailable (a server that does not answer).
    """
    sources: dict[str, str] = {}
    for number, point in enumerate(container.mounts):
        if point.type == "image":
            chain = _chain_of(engine, point)
            if (image := engine.images.find(Digest(point.image_id))) is not None:
                engine.images.usage.note(image.id)
            async with engine.images.layers.standing(chain):
                sources[point.destination] = _mount_image(engine, point, chain, ids)
        if point.type == "bind" and not point.is_recursive:
            if looks and not os.path.exists(point.source):
                continue
            if not point.must_exist:
                os.makedirs(point.source, mode=0o755, exist_ok=True)
            sources[point.destination] = _mount_alone(point, _parts(engine, container.id) / str(number))
        if point.type != "volume":
            continue
        path = await engine.volumes.mount(point.name, container.id)
        if point.copies and not looks and not engine.volumes.is_plain(point.name):
            await _fill(engine, point, rootfs_of(engine, container.id))
        sources[point.destination] = (
            _mount_part(point, path, _parts(engine, container.id) / f"{number}.part") if point.subpath else str(path)
        )
        if ids is not None:
            sources[point.destination] = _mount_mapped(
                sources[point.destination], _parts(engine, container.id) / f"{number}.ids", ids
            )
        if not looks:
            _tell_mounted(engine, container, point)
    return sources


def _tell_mounted(engine: Engine, container: Container, point: MountPoint) -> None:
    engine.volumes.tell(
        point.name,
        "mount",
        container=container.id,
        destination=point.destination,
        propagation=point.propagation,
        **{"read/write": "true" if point.is_writable else "false"},
    )


def place_of(engine: Engine, container_id: str, name: str) -> Path:
    """Where something may be mounted for a container until `unmount`."""
    return _parts(engine, container_id) / name


def _parts(engine: Engine, container_id: str) -> Path:
    return engine.settings.exec_root / "mounts" / container_id


def _mount_mapped(source: str, place: Path, ids: Ids) -> str:
    """Mount a volume once more, so that it shows the ids of a container. As it is where its file system cannot do that."""
    fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        _mount_at(fd, place, what=source, is_recursive=False, ids=ids)
    finally:
        os.close(fd)
    return str(place)


def _chain_of(engine: Engine, point: MountPoint) -> Digest:
    """The file system of an image that is mounted; records of before do not say it. Raises NotFound."""
    chain = point.chain_id or engine.images.get(point.image_id).chain_id
    if not chain or Digest(chain) not in engine.images.layers.known:
        raise NotFound(f"No such image: {point.image_id}")
    return Digest(chain)


def _mount_image(engine: Engine, point: MountPoint, chain: Digest, ids: Ids | None) -> str:
    """Mount an image at a place of ours."""
    place = Path(point.source)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine.snapshots.view(hex_of(chain), place, ids=ids)
    return _mount_part(point, place, place.with_name(f"{place.name}.part")) if point.subpath else str(place)


def _mount_part(point: MountPoint, whole: Path, place: Path) -> str:
    """Mount a directory or file inside the volume or image at a place of ours. No link leads out of it."""
    try:
        part = _open_part(whole, point.subpath, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise InvalidArgument(
                f"path concatenation escapes the base directory, base: {point.type} {point.name},"
                f" subpath: {point.subpath}"
            ) from None
        why = (error.strerror or "").lower()
        raise InvalidArgument(f"cannot access path {point.subpath} of {point.type} {point.name}: {why}") from None
    try:
        _mount_at(part, place, what=f"{point.subpath} of {point.type} {point.name}", is_recursive=True)
    finally:
        os.close(part)
    return str(place)


def _mount_alone(point: MountPoint, place: Path) -> str:
    """Mount a bind's source without what is mounted below it: crun 1.8 would take that along."""
    try:
        source = os.open(point.source, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
        ) from None
    try:
        _mount_at(source, place, what=point.source, is_recursive=False)
    finally:
        os.close(source)
    return str(place)


def _mount_at(fd: int, place: Path, *, what: str, is_recursive: bool, ids: Ids | None = None) -> None:
    """Mount what `fd` names at a place of ours, made for it."""
    try:
        place.parent.mkdir(mode=0o700, exist_ok=True)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            place.mkdir(mode=0o700)
        else:
            place.touch(mode=0o600)
        tree = linux.open_tree(fd, "", recursive=is_recursive)
        try:
            if ids is not None:
                _map(tree, ids, what)
            linux.move_mount(tree, str(place))
        finally:
            os.close(tree)
    except OSError as error:
        raise InternalError(f"cannot mount {what}: {error.strerror}") from error


def _map(tree: int, ids: Ids, what: str) -> None:
    try:
        linux.map_ids(tree, ids.user_fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        log.warning("the file system of %s cannot map ids: its files keep those of the host", what)


async def unmount(engine: Engine, container: Container, *, looks: bool = False) -> None:
    """Give every volume back. Idempotent. looks: without telling, after `mount` with the same."""
    _unmount_parts(_parts(engine, container.id))
    for name in dict.fromkeys(point.name for point in container.mounts if point.type == "volume"):
        if await engine.volumes.unmount(name, container.id) and not looks:
            engine.volumes.tell(name, "unmount", container=container.id)


def _unmount_parts(directory: Path) -> None:
    """Nothing is deleted here but empty places: a mount that stays can lose nothing."""
    if not directory.is_dir():
        return
    for place in directory.iterdir():
        try:
            linux.umount(str(place), linux.MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise InternalError(f"cannot unmount {place}: {error.strerror}") from error
        place.rmdir() if place.is_dir() else place.unlink()
    directory.rmdir()


# --- remove and restore


async def forget(engine: Engine, container: Container, *, remove_anonymous: bool) -> None:
    """The container is being removed: let go of its volumes, and remove those that were made for it alone."""
    for point in container.all_mounts:
        if point.type != "volume":
            continue
        engine.volumes.let_go(point.name, container.id)
        if remove_anonymous and point.is_anonymous:
            try:
                await engine.volumes.remove(point.name, force=True)
            except Conflict:
                log.debug("anonymous volume %s stays: another container has it", point.name)


async def restore(engine: Engine) -> None:
    """At start: who refers to which volume, who had it mounted when the last daemon stopped."""
    holders: dict[str, set[str]] = {}
    users: dict[str, set[str]] = {}
    for slot in engine.containers:
        container = slot.container
        for point in container.all_mounts:
            if point.type == "volume":
                holders.setdefault(point.name, set()).add(container.id)
                if container.is_running and point in container.mounts:
                    users.setdefault(point.name, set()).add(container.id)
    await engine.volumes.restore(holders, users)
    known = {slot.container.id for slot in engine.containers}
    parts = engine.settings.exec_root / "mounts"
    parts.mkdir(mode=0o700, exist_ok=True)
    for directory in parts.iterdir():
        if directory.name not in known:
            _unmount_parts(directory)
