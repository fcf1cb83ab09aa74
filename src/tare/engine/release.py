"""Undoing what start did: called after an exit, by a failed start, by remove and by restore. Idempotent."""

from __future__ import annotations

import shutil

from tare.containers.container import Container
from tare.drivers import cgroups
from tare.engine.engine import Engine, rootfs_of


def cgroup_path(container: Container) -> str:
    """The container's place below every cgroup root."""
    return cgroups.path_for(container.id, container.host_config.CgroupParent)


async def release(engine: Engine, container: Container) -> None:
    """Undo everything start did, in any state: runtime state, cgroup, mounts, network, bundle. Idempotent."""
    runtime = engine.runtimes.get(container.runtime)
    if runtime is not None:
        await runtime.delete(container.id, force=True)
    cgroups.remove(engine.cgroups, cgroup_path(container))
    await engine.networks.detach(container.id)
    engine.snapshots.unmount(rootfs_of(engine, container.id))
    bundle = engine.monitor.bundle(container.id)
    shutil.rmtree(bundle, ignore_errors=True)
    exit_file = engine.monitor.exits() / container.id
    exit_file.unlink(missing_ok=True)
