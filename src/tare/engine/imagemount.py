"""Images mounted on the host, read-only, for whoever wants to look into them with ordinary programs.

    <exec-root>/images/<key>.json    one record for each mount
    <exec-root>/images/<key>/        where it is mounted when no place was named

A mount belongs to the kernel and outlives the engine; an image that is mounted is not removed. After a reboot the records
are there at most, and are dropped.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
from pathlib import Path

from tare.aio.threads import in_thread
from tare.aio.undo import undo_on_error
from tare.base import clock
from tare.base.digest import Digest, hex_of
from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound, TareError
from tare.drivers import linux
from tare.drivers.runtime.monitor import boot_id
from tare.engine.engine import Engine
from tare.images.mounted import ImageMount, decode, encode
from tare.images.records import ImageUse
from tare.images.service import Image

log = logging.getLogger(__name__)


def _root(engine: Engine) -> Path:
    return engine.settings.exec_root / "images"


async def mount(engine: Engine, name: str, target: str) -> ImageMount:
    """Mount an image at an empty directory, or at a place of ours for "". Raises NotFound, InvalidArgument, Conflict."""
    image = engine.images.resolve(name)
    if image.chain_id is None:
        raise InvalidArgument(f"image {name} has no files")
    key = secrets.token_hex(8)
    place = _checked_target(engine, target) if target else _root(engine) / key
    if str(place) in engine.image_mounts:
        raise Conflict(f"an image is mounted at {place} already")
    record = ImageMount(
        key=key,
        image_id=image.id,
        name=name,
        target=str(place),
        at_ns=clock.now(),
        boot_id=boot_id(),
        is_ours=not target,
    )
    async with undo_on_error("mount image") as undo:
        engine.image_mounts[record.target] = record  # from here on the image is not removed
        undo.push(engine.image_mounts.pop, record.target, None)
        async with engine.images.standing(image):
            await in_thread(_mount, engine, image, record)
            undo.push(_forget, engine, record)
        engine.images.get(image.id)  # it may have been removed by force while its files were being unpacked
    return record


def _checked_target(engine: Engine, target: str) -> Path:
    if not target.startswith("/") or "\0" in target:
        raise InvalidArgument(f"the mount point must be an absolute path: {target}")
    place = Path(os.path.realpath(target))
    for ours in (engine.settings.data_root, engine.settings.exec_root):
        if place.is_relative_to(os.path.realpath(ours)):
            raise InvalidArgument(f"{place} belongs to the engine")
    try:
        members = os.listdir(place)
    except OSError as error:
        raise InvalidArgument(f"cannot mount at {place}: {(error.strerror or '').lower()}") from None
    if members or os.path.ismount(place):
        raise InvalidArgument(f"cannot mount at {place}: the directory is not empty, or something is mounted there")
    return place


def _mount(engine: Engine, image: Image, record: ImageMount) -> None:
    assert image.chain_id is not None
    place = Path(record.target)
    root = _root(engine)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if record.is_ours:
        place.mkdir(mode=0o755)
    try:
        # The record first: a mount without one would keep its image from nothing.
        fresh = root / f".{record.key}"
        fresh.write_bytes(encode(record))
        os.rename(fresh, root / f"{record.key}.json")
        engine.snapshots.view(hex_of(image.chain_id), place)
    except BaseException:
        _drop(engine, record)
        raise


def _forget(engine: Engine, record: ImageMount) -> None:
    engine.snapshots.unmount(Path(record.target))
    _drop(engine, record)


def _drop(engine: Engine, record: ImageMount) -> None:
    """The record and the empty place."""
    (_root(engine) / f"{record.key}.json").unlink(missing_ok=True)
    if record.is_ours:
        with contextlib.suppress(FileNotFoundError):
            Path(record.target).rmdir()


def find(engine: Engine, text: str) -> list[ImageMount]:
    """The mounts that a directory or an image names. Raises NotFound."""
    if text.startswith("/"):
        for place in (os.path.normpath(text), os.path.realpath(text)):
            if place in engine.image_mounts:
                return [engine.image_mounts[place]]
        raise NotFound(f"no image is mounted at {text}")
    found = [record for record in engine.image_mounts.values() if record.name == text]
    if not found:  # not by that name, which may be gone by now
        image = engine.images.resolve(text)
        found = [record for record in engine.image_mounts.values() if record.image_id == image.id]
    if not found:
        raise NotFound(f"image {text} is not mounted")
    return found


async def unmount(engine: Engine, text: str, *, force: bool) -> list[ImageMount]:
    """Unmount what `text` names. force: also while somebody uses it, who keeps what is open. Raises NotFound, Conflict."""
    found = find(engine, text)
    for record in found:
        await in_thread(_unmount, record, force=force)
        _drop(engine, record)
        engine.image_mounts.pop(record.target, None)
    return found


def _unmount(record: ImageMount, *, force: bool) -> None:
    try:
        linux.umount(record.target, linux.MNT_DETACH if force else 0)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Conflict(
                f"{record.target} is in use", hint="leave the directory, or add --force to unmount it nevertheless"
            ) from None
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # not mounted any more: as wanted
            raise InternalError(f"cannot unmount {record.target}: {error.strerror}") from error


def uses(engine: Engine) -> list[ImageUse]:
    """The mounts, for the rules of removal."""
    return [
        ImageUse(
            container_id=record.key, image_id=record.image_id, reference=record.name, running=True, target=record.target
        )
        for record in engine.image_mounts.values()
    ]


def restore(engine: Engine) -> None:
    """At start: know again what is still mounted, and drop the rest."""
    root = _root(engine)
    if not root.is_dir():
        return
    for file in sorted(root.iterdir()):
        if file.suffix != ".json":
            continue
        try:
            record = decode(file.read_bytes())
            if engine.images.find(Digest(record.image_id)) is None:
                log.warning("image %s, mounted at %s, is not known any more", record.name, record.target)
                _forget(engine, record)
            elif record.boot_id == boot_id() and os.path.ismount(record.target):
                engine.image_mounts[record.target] = record
            else:
                _drop(engine, record)
        except (TareError, OSError):
            log.exception("restoring the image mount %s", file.name)
    kept = {record.key for record in engine.image_mounts.values()}
    for directory in root.iterdir():
        if directory.is_dir() and directory.name not in kept:  # a mount that a crash cut short
            with contextlib.suppress(TareError, OSError):
                engine.snapshots.unmount(directory)
                directory.rmdir()
