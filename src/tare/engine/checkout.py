"""`tare checkout`: the files of an image, a container or one of its layers as a tar, whole or in part."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from tare.aio.threads import in_thread
from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.drivers import userns, views
from tare.drivers.views import Found, View
from tare.engine.engine import Engine, rootfs_of
from tare.engine.versions import Version, opened


async def checkout(engine: Engine, name: str, path: str) -> AsyncIterator[bytes]:
    """The tar of what is at `path`: a directory as `.` with everything in it, something else as the one member.

    Names are as in `versions.opened`. Raises NotFound, InvalidArgument before the first piece, which is empty.
    """
    async with AsyncExitStack() as stack:
        version = await stack.enter_async_context(opened(engine, name))
        if not version.layers:
            raise InvalidArgument(f"{name} has no files")
        view = await _opened(engine, version)
        stack.callback(view.close)
        found = await in_thread(_find, view, path, name)
        stack.callback(os.close, found.directory)
        yield b""
        async for chunk in engine.archiver.pack_chunks(
            found.directory,
            one_file_system=True,
            name="." if found.member is None else found.member,
            member=found.member,
            user_fd=view.user_fd,
        ):
            yield chunk


async def _opened(engine: Engine, version: Version) -> View:
    slot = version.container
    if slot is None:
        return await in_thread(_mounted, engine, lambda place: engine.snapshots.view(version.chain, place))
    async with slot.lock:  # it does not start while its files are being mounted
        container = slot.container
        if slot.is_being_removed:
            raise Conflict(f"removal of container {container.name} is already in progress")
        if container.is_running and container.process is not None:
            root = os.open(rootfs_of(engine, container.id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return View(root, user_fd=userns.of_process(container.process.pid))
        mount = engine.snapshots.mount
        return await in_thread(_mounted, engine, lambda place: mount(container.id, place, readonly=True))


def _mounted(engine: Engine, mount: Callable[[Path], None]) -> View:
    """Files mounted where nobody else sees them."""
    return views.view_stopped(mount, engine.settings.exec_root / "view", ())


def _find(view: View, path: str, name: str) -> Found:
    try:
        return views.find(view, path or "/")
    except NotFound:
        raise NotFound(f"{path} is not in {name}") from None
