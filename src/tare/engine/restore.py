"""After the daemon's own start: what runs is adopted, what ended meanwhile is dealt with, what a crash left is removed.

Restore answers crashes as undo answers errors; both end in the same idempotent release and remove.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil

from tare.aio import tasks
from tare.base.ids import is_full_id
from tare.containers.container import Container, State
from tare.containers.restart import starts_with_the_daemon
from tare.containers.service import Slot
from tare.containers.wishes import boot_waves
from tare.drivers import trees
from tare.drivers.runtime import monitor
from tare.engine import export, forward, health, imagemount, rotation, volumes
from tare.engine.engine import Engine
from tare.engine.exits import handle_exit, supervise
from tare.engine.prepare import wish_of
from tare.engine.release import release
from tare.engine.remove import remove, remove_after_exit
from tare.engine.start import restart_by_policy, restart_unhealthy
from tare.networks.service import RunningContainer

log = logging.getLogger(__name__)


async def restore(engine: Engine) -> None:
    """Bring every record in line with the kernel. One container that cannot be restored does not stop the others."""
    await volumes.restore(engine)
    imagemount.restore(engine)
    export.sweep(engine)
    alive = [slot for slot in engine.containers if slot.container.is_running and _is_alive(slot.container)]
    await engine.networks.restore([_running(engine, slot.container) for slot in alive])
    for slot in list(engine.containers):
        try:
            await _restore(engine, slot)
        except Exception:
            log.exception("restoring container %s", slot.container.name)
    _remove_orphans(engine)
    due = [slot.container for slot in engine.containers if _is_due(slot)]
    if due:
        tasks.spawn(_start_in_order(engine, due), name="start after boot")


async def _start_in_order(engine: Engine, due: list[Container]) -> None:
    """Start what its policy wants started, wave by wave (`containers.wishes`)."""
    for members, delay_s in boot_waves(due):
        slots = [engine.containers.find(member.id) for member in members]
        outcomes = await asyncio.gather(*(restart_by_policy(engine, slot) for slot in slots), return_exceptions=True)
        for member, outcome in zip(members, outcomes, strict=True):
            if isinstance(outcome, Exception):
                log.warning("container %s could not be started: %s", member.name, outcome)
        await asyncio.sleep(delay_s)


async def _restore(engine: Engine, slot: Slot) -> None:
    container = slot.container
    if container.build_id:  # nobody waits for this step any more
        if container.is_running and _is_alive(container):
            await _adopt(engine, slot)
        elif container.is_running:  # nobody would tell of its end again
            await handle_exit(engine, slot, starter=None)
        if not slot.is_being_removed:
            await remove(engine, slot, force=True, volumes=True)
        return
    if container.is_running:
        if _is_alive(container):
            await _adopt(engine, slot)
        else:
            log.info("container %s ended while the daemon was away", container.name)
            await handle_exit(engine, slot, starter=None)
            forward.watch(engine, slot)
        return
    await release(engine, container)
    if container.host_config.AutoRemove and container.started_at:
        await remove_after_exit(engine, slot)
        return
    if container.state is State.REMOVING:  # nobody remembers whether its volumes were to go with it: they stay
        await remove_after_exit(engine, slot, volumes=False)
        return
    if container.state is State.RESTARTING:
        engine.containers.change(slot, state=State.EXITED)
    if container.started_at:
        forward.watch(engine, slot)  # what an earlier engine left unsent


def _is_due(slot: Slot) -> bool:
    """Whether it has run before, does not now, and its policy wants it started with the daemon."""
    container = slot.container
    if slot.is_being_removed or container.is_running or not container.started_at:
        return False
    return starts_with_the_daemon(
        container.host_config.RestartPolicy,
        exit_code=container.exit_code,
        was_stopped_by_user=container.was_stopped_by_user,
    )


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
    health.watch(engine, slot, restarter=restart_unhealthy)
    rotation.watch(engine, slot, adopted=True)
    forward.watch(engine, slot)
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
