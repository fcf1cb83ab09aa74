"""Undoing what start did: called after an exit, by a failed start, by remove and by restore. Idempotent."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal

from tare.aio import failpoints
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
    """Undo everything start did, in any state: runtime state, cgroup, network, mounts, bundle. Idempotent.

    Every step is tried; the first error is raised at the end.
    """
    problem: Exception | None = None
    for step in (_end_in_runtime, _end_cgroup, _end_network, _end_mounts, _end_bundle):
        try:
            await step(engine, container)
        except Exception as error:
            problem = problem or error
    if problem is not None:
        raise problem


async def _end_in_runtime(engine: Engine, container: Container) -> None:
    failpoints.hit("release.runtime")
    runtime = engine.runtimes.get(container.runtime)
    if runtime is not None:
        hooks = engine.monitor.bundle(container.id) / HOOKS
        await runtime.delete(container.id, has_hooks=hooks.exists())


async def _end_cgroup(engine: Engine, container: Container) -> None:
    failpoints.hit("release.cgroup")
    await _remove_cgroup(engine, cgroup_path(container))


async def _end_network(engine: Engine, container: Container) -> None:
    failpoints.hit("release.network")
    await engine.networks.detach(container.id)


async def _end_mounts(engine: Engine, container: Container) -> None:
    failpoints.hit("release.mounts")
    engine.snapshots.unmount(rootfs_of(engine, container.id))
    await volumes.unmount(engine, container)


async def _end_bundle(engine: Engine, container: Container) -> None:
    """Last: the exit status is in it, and whoever finds the bundle knows that the rest may be left."""
    failpoints.hit("release.bundle")
    bundle = engine.monitor.bundle(container.id)
    if os.path.ismount(rootfs_of(engine, container.id)):
        return  # it could not be unmounted: what is below is the container's
    shutil.rmtree(bundle, ignore_errors=True)
    exit_file = engine.monitor.exits() / container.id
    exit_file.unlink(missing_ok=True)
