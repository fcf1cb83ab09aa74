"""Undoing what start did: called after an exit, by a failed start, by remove and by restore. Idempotent."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal

from tare.base.errors import Conflict
from tare.containers.container import Container
from tare.drivers import cgroups
from tare.engine import volumes
from tare.engine.engine import Engine, rootfs_of

HOOKS = "hooks"
"""A file in the bundle of a container whose specification has hooks: its end is the runtime's business too."""
_TRIES = 100
_PAUSE_S = 0.02


def cgroup_path(container: Container) -> str:
    """The container's place below every cgroup root."""
    return cgroups.path_for(container.id, container.host_config.CgroupParent)


async def _remove_cgroup(engine: Engine, path: str) -> None:
    """Remove the control group, ending first whatever still runs in it (a container in the host's pid namespace)."""
    for attempt in range(_TRIES):
        try:
            cgroups.remove(engine.cgroups, path)
            return
        except Conflict:
            if attempt == _TRIES - 1:
                raise
            kill_leftovers(engine, path)
            await asyncio.sleep(_PAUSE_S)


def kill_leftovers(engine: Engine, path: str) -> None:
    """SIGKILL to every process of the control group."""
    for pid in cgroups.pids(engine.cgroups, path):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


async def release(engine: Engine, container: Container) -> None:
    """Undo everything start did, in any state: runtime state, cgroup, mounts, network, bundle. Idempotent."""
    runtime = engine.runtimes.get(container.runtime)
    if runtime is not None:
        hooks = engine.monitor.bundle(container.id) / HOOKS
        await runtime.delete(container.id, has_hooks=hooks.exists())
    await _remove_cgroup(engine, cgroup_path(container))
    await engine.networks.detach(container.id)
    engine.snapshots.unmount(rootfs_of(engine, container.id))
    await volumes.unmount(engine, container)
    bundle = engine.monitor.bundle(container.id)
    shutil.rmtree(bundle, ignore_errors=True)
    exit_file = engine.monitor.exits() / container.id
    exit_file.unlink(missing_ok=True)
