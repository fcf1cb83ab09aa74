"""A container's file system as a tar, and where it lies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tare.containers.service import Slot
from tare.drivers import userns
from tare.engine.engine import Engine, rootfs_of

_PREFIX = "export-"


async def export(engine: Engine, slot: Slot) -> AsyncIterator[bytes]:
    """The whole file system as the container sees it, without mounts inside it. Works in every state."""
    container = slot.container
    own = not container.is_running
    target = (
        Path(tempfile.mkdtemp(prefix=_PREFIX, dir=engine.settings.exec_root))
        if own
        else rootfs_of(engine, container.id)
    )
    try:
        if own:
            engine.snapshots.mount(container.id, target, readonly=True)
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            user_fd = userns.of_process(container.process.pid) if container.process is not None else None
            try:
                async for chunk in engine.archiver.pack_chunks(root, one_file_system=True, user_fd=user_fd):
                    yield chunk
            finally:
                if user_fd is not None:
                    os.close(user_fd)
        finally:
            os.close(root)
    finally:
        if own:
            engine.snapshots.unmount(target)
            target.rmdir()


def sweep(engine: Engine) -> None:
    """At start: what an export that a crash cut short has mounted."""
    for target in engine.settings.exec_root.glob(f"{_PREFIX}*"):
        engine.snapshots.unmount(target)
        target.rmdir()
