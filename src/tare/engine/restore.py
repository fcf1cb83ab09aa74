"""After the daemon's own start: what runs is adopted, what ended meanwhile is dealt with, what a crash left is removed.

Restore answers crashes as undo answers errors; both end in the same idempotent release and remove.
"""

from __future__ import annotations

import logging
import os
import shutil

from tare.aio import tasks
from tare.base.ids import is_full_id
from tare.containers.container import Container, State
from tare.containers.restart import starts_with_the_daemon
from tare.containers.service import Slot
from tare.drivers import trees
from tare.drivers.runtime import monitor
from tare.engine import health, rotation, volumes
from tare.engine.engine import Engine
from tare.engine.exits import handle_exit, schedule, supervise
from tare.engine.prepare import wish_of
from tare.engine.release import release
from tare.engine.remove import remove_after_exit
from tare.engine.start import restart_by_policy
from tare.networks.service import RunningContainer

log = logging.getLogger(__name__)


async def restore(engine: Engine) -> None:
    """Bring every record in line with the kernel. One container that cannot be restored does not stop the others."""
    await volumes.restore(engine)
    alive = [slot for slot in engine.containers if slot.container.is_running and _is_alive(slot.container)]
    await engine.networks.restore([_running(engine, slot.container) for slot in alive])
    for slot in list(engine.containers):
        try:
            await _restore(engine, slot)
        except Exception:
            log.exception("restoring container %s", slot.container.name)
    _remove_orphans(engine)


async def _restore(engine: Engine, slot: Slot) -> None:
    container = slot.container
    if container.is_running:
        if _is_alive(container):
            await _adopt(engine, slot)
        else:
            log.info("container %s ended while the daemon was away", container.name)
            await handle_exit(engine, slot, starter=None)
            _start_by_policy(engine, slot)
        return
    await release(engine, container)
    if container.state is State.REMOVING or (container.host_config.AutoRemove and container.started_at):
        await remove_after_exit(engine, slot)
        return
    _start_by_policy(engine, slot)


def _start_by_policy(engine: Engine, slot: Slot) -> None:
    """What has run before and does not now is started again where its policy says so."""
    container = slot.container
    if container.state is State.RESTARTING:
        engine.containers.change(slot, state=State.EXITED)
    if slot.is_being_removed or not container.started_at:
        return
    if starts_with_the_daemon(
        container.host_config.RestartPolicy,
        exit_code=container.exit_code,
        was_stopped_by_user=container.was_stopped_by_user,
    ):
        schedule(engine, slot, ran_s=0.0, starter=restart_by_policy)


def _running(engine: Engine, container: Container) -> RunningContainer:
    assert container.process is not None
    return RunningContainer(
        wish=wish_of(engine, container), pid=container.process.pid, endpoints=container.endpoints, ports=container.ports
    )


def _is_alive(container: Container) -> bool:
    """Whether monitor and first process are the ones recorded (same boot, same start times)."""
    process = container.process
    if process is None or process.boot_id != monitor.boot_id():
        return False
    return monitor.start_time(process.monitor_pid) == process.monitor_started


async def _adopt(engine: Engine, slot: Slot) -> None:
    container = slot.container
    assert container.process is not None
    slot.started.set()
    health.watch(engine, slot)
    rotation.watch(engine, slot, adopted=True)
    ended = monitor.until_ended(container.process.monitor_pid)
    slot.supervisor = tasks.spawn(
        supervise(engine, slot, ended, starter=restart_by_policy), name=f"watch {container.name}"
    )
    log.info("container %s goes on", container.name)


def _remove_orphans(engine: Engine) -> None:
    """Bundles, exit files and directories of containers nobody knows any more (a create that a crash cut short)."""
    known = {slot.container.id for slot in engine.containers}
    kept = engine.settings.data_root / "containers"
    for name in os.listdir(kept):
        if is_full_id(name) and name not in known:
            log.info("removing left-over %s", kept / name)
            trees.discard(kept / name)
    for directory in (engine.monitor.exec_root / "containers", engine.monitor.exits()):
        for name in os.listdir(directory):
            if name not in known:
                engine_path = directory / name
                log.info("removing left-over %s", engine_path)
                if engine_path.is_dir():
                    engine.snapshots.unmount(engine_path / "rootfs")
                    shutil.rmtree(engine_path, ignore_errors=True)
                else:
                    engine_path.unlink(missing_ok=True)
