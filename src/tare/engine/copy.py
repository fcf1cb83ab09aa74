"""Files in and out of a container (`docker cp`), running or not.

A view of its root is opened, the path resolved in it to a descriptor, and an archive worker shut into that packs or
extracts. A stopped container is kept from starting while something is written into it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from tare.aio.threads import in_thread
from tare.base.clock import rfc3339nano
from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.containers.container import Container
from tare.containers.service import Slot
from tare.drivers import rootfs, views
from tare.drivers.archive.client import Options
from tare.drivers.views import Bind, Found, View
from tare.engine import volumes
from tare.engine.engine import Engine, directory_of
from tare.engine.exec import open_root
from tare.engine.news import tell
from tare.wire.paths import PathStat, go_mode

STALL_S = 60.0
_EPOCH = "1970-01-01T00:00:00Z"
_FILES = (("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf"))


class Rules(Struct, frozen=True, kw_only=True):
    """How to extract. keeps_kinds: no directory over something else nor the reverse; owned_by_user: by its user."""

    keeps_kinds: bool = False
    owned_by_user: bool = False


def _view(engine: Engine, container: Container, sources: Mapping[str, str], *, readonly: bool) -> View:
    """Open the view; blocks. sources: what is mounted already of a stopped container, by destination."""
    if container.is_running and container.process is not None:
        root = open_root(container)
        try:
            return views.view_running(container.process.pid, root)
        finally:
            os.close(root)

    def binds() -> Sequence[Bind]:
        taken = {point.destination for point in container.mounts}
        points = [
            Bind(
                source=sources.get(point.destination, point.source),
                destination=point.destination,
                is_writable=point.is_writable and not readonly,
            )
            for point in sorted(container.mounts, key=lambda point: point.destination.count("/"))
            if point.source and point.type != "tmpfs"
        ]
        files = [
            Bind(source=str(directory_of(engine, container.id) / name), destination=target, is_writable=not readonly)
            for name, target in _FILES
            if target not in taken
        ]
        return [*files, *points]

    return views.view_stopped(
        lambda directory: engine.snapshots.mount(container.id, directory),
        engine.settings.exec_root / "view",
        binds(),
    )


@asynccontextmanager
async def _opened(engine: Engine, slot: Slot, *, readonly: bool) -> AsyncIterator[View]:
    """The view for the time of a block. A stopped container is locked while its view is made, and while it is written."""
    if slot.container.is_running:
        view = await in_thread(_view, engine, slot.container, {}, readonly=readonly)
        try:
            yield view
        finally:
            view.close()
        return
    async with slot.lock:
        if slot.is_being_removed:
            raise Conflict(f"removal of container {slot.container.name} is already in progress")
        view = await _view_stopped(engine, slot.container, readonly=readonly)
        if not readonly:
            try:
                yield view
            finally:
                view.close()
            return
    try:
        yield view
    finally:
        view.close()


async def _view_stopped(engine: Engine, container: Container, *, readonly: bool) -> View:
    """The view of a stopped container, with its volumes and images as a start would mount them.

    They are mounted for the moment in which the view is made: its namespace keeps them after that.
    """
    try:
        sources = await volumes.mount(engine, container, looks=True)
        return await in_thread(_view, engine, container, sources, readonly=readonly)
    finally:
        await volumes.unmount(engine, container, looks=True)


def _missing(path: str, name: str) -> NotFound:
    return NotFound(f"Could not find the file {path} in container {name}")


async def _find(view: View, path: str, name: str) -> Found:
    try:
        return await in_thread(views.find, view, path)
    except NotFound:
        raise _missing(path, name) from None


def _stat(found: Found) -> PathStat:
    status = found.status
    return PathStat(
        name=found.name,
        size=status.st_size,
        mode=go_mode(status.st_mode),
        mtime=rfc3339nano(status.st_mtime_ns) if status.st_mtime_ns else _EPOCH,
        linkTarget=found.link_target,
    )


async def stat(engine: Engine, slot: Slot, path: str, *, name: str) -> PathStat:
    """What a path of the container is. name: the container as the client called it. Raises NotFound, InvalidArgument."""
    async with _opened(engine, slot, readonly=True) as view:
        found = await _find(view, path, name)
        os.close(found.directory)
        return _stat(found)


async def read(engine: Engine, slot: Slot, path: str, *, name: str) -> AsyncIterator[PathStat | bytes]:
    """First the stat of the path, then the tar of it in chunks. Raises NotFound, InvalidArgument before the first."""
    async with _opened(engine, slot, readonly=True) as view:
        found = await _find(view, path, name)
        try:
            yield _stat(found)
            async for chunk in engine.archiver.pack_chunks(
                found.directory,
                name=found.name,
                member=found.member,
                hidden_devices=sorted(view.hidden),
                user_fd=view.user_fd,
            ):
                yield chunk
        finally:
            os.close(found.directory)
    tell(engine, slot.container, "archive-path")


async def _lively(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes from a client that keeps sending: one that stalls must not hold a stopped container for ever."""
    while True:
        try:
            piece = await asyncio.wait_for(anext(source), STALL_S)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise InvalidArgument(f"the client sent nothing for {STALL_S:.0f} seconds") from None
        yield piece


async def write(
    engine: Engine, slot: Slot, path: str, source: AsyncIterator[bytes], rules: Rules, *, name: str
) -> None:
    """Extract a tar (plain or compressed) into a directory of the container.

    Raises NotFound, and InvalidArgument for a target that is no directory or not writable and for a wrong archive.
    """
    async with _opened(engine, slot, readonly=False) as view:
        container = slot.container
        try:
            target = await in_thread(views.open_target, view, path)
        except NotFound:
            raise _missing(path, name) from None
        try:
            _refuse_readonly(container, view, target)
            owner = _owner(view, container) if rules.owned_by_user else None
            options = Options(
                whiteouts=False,
                devices=False,
                allow_empty=True,
                merge=True,
                keeps_kinds=rules.keeps_kinds,
                owner=owner,
            )
            await engine.archiver.unpack(
                _lively(source), target, jail_fd=view.root, user_fd=view.user_fd, options=options
            )
        finally:
            os.close(target)
    tell(engine, slot.container, "extract-to-dir")


def _refuse_readonly(container: Container, view: View, target: int) -> None:
    on_root = os.fstat(target).st_dev == os.fstat(view.root).st_dev
    if on_root and container.host_config.ReadonlyRootfs:
        raise InvalidArgument("container rootfs is marked read-only")
    if views.is_readonly(target):
        raise InvalidArgument("mounted volume is marked read-only")


def _owner(view: View, container: Container) -> tuple[int, int] | None:
    """The container's user, unless that is the default."""
    if not container.config.User:
        return None
    user = rootfs.resolve_user(view.root, container.config.User)
    return (user.uid, user.gid)
