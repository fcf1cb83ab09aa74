"""What happens when a container ends: noticed by the monitor's pidfd, recorded, cleaned up, told.

The order: record the exit status and release who waits for it (a person sees the prompt at once), then undo what
start did, then `--rm`. A start that comes meanwhile waits for the supervisor.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sqlite3
from collections.abc import Awaitable, Callable

from tare.aio import failpoints, proc, tasks
from tare.base import clock
from tare.base.errors import NotFound, TareError
from tare.containers import restart
from tare.containers.container import Container, State
from tare.containers.service import Slot
from tare.drivers import cgroups
from tare.drivers.runtime.monitor import boot_id, seconds_since, send_signal
from tare.engine import health, rotation
from tare.engine.engine import Engine
from tare.engine.news import tell
from tare.engine.release import cgroup_path, kill_leftovers, release
from tare.engine.remove import remove_after_exit

log = logging.getLogger(__name__)

LOST_EXIT_CODE = 255
_KILLED = 137
_DRAIN_S = 2.0
_RELEASE_PAUSES_S = (0.1, 0.5, 0.0)


Starter = Callable[[Engine, Slot], Awaitable[None]]
"""How to start a container again: `engine.start.restart_by_policy`, handed in since start itself watches by us."""


async def supervise(engine: Engine, slot: Slot, ended: Awaitable[object], *, starter: Starter) -> None:
    """Wait for `ended` (the monitor is gone, so log and exit status are complete) and deal with it."""
    await ended
    await handle_exit(engine, slot, starter=starter)


async def handle_exit(engine: Engine, slot: Slot, *, starter: Starter | None) -> None:
    """Record the exit of a container that ran, clean up after it, and remove it or start it again as it asked.

    starter: None leaves the restart policy to the caller.
    """
    container = slot.container
    health.cancel(slot)
    rotation.cancel(slot)
    code = engine.monitor.exit_code(container.id)
    if code is None:
        log.warning("container %s ended without an exit status: its monitor was killed", container.id)
        kill_leftovers(engine, cgroup_path(container))
        if (process := container.process) is not None and process.boot_id == boot_id():
            send_signal(process.pid, process.pid_started, signal.SIGKILL)  # where it has left its control group
            await proc.collect(process.pid)
        code = LOST_EXIT_CODE
    await slot.hub.until_drained(_DRAIN_S)
    slot.hub.finish()
    failpoints.passed("exit.seen")
    now = clock.now()
    ran_s = _ran_s(container, now)
    is_oom = code == _KILLED and _was_out_of_memory(engine, container)
    if is_oom:
        tell(engine, container, "oom")
    removes = container.host_config.AutoRemove and not slot.is_coming_back
    goes_on = not removes and restart.restarts(
        container.host_config.RestartPolicy,
        exit_code=code,
        restart_count=container.restart_count,
        was_stopped_by_user=container.was_stopped_by_user,
    )
    container = engine.containers.change(
        slot,
        state=State.RESTARTING if goes_on and starter is not None else State.EXITED,
        exit_code=code,
        finished_at=now,
        is_oom_killed=is_oom,
        process=None,
        endpoints=container.asked_endpoints,
        ports={},
    )
    tell(engine, container, "die", exitCode=str(code), execDuration=str(ran_s))
    slot.tell_exit()
    rotation.finish(engine, slot)
    try:
        await _let_go(engine, slot)
    finally:
        slot.stopped.set()
    if removes:
        await remove_after_exit(engine, slot)
    elif starter is not None and slot.container.state is State.RESTARTING:  # nobody stopped it meanwhile
        schedule(engine, slot, ran_s=ran_s, starter=starter)


async def _let_go(engine: Engine, slot: Slot) -> None:
    """Record the end and release; again after a while where that fails: nobody else will come for it.

    What stays even so goes with the container's next start, its removal, or the engine's next start.
    """
    container = slot.container
    for pause_s in _RELEASE_PAUSES_S:
        try:
            if not container.host_config.AutoRemove or slot.is_coming_back:
                await engine.containers.save(slot)  # before the monitor's file with the exit status goes
            failpoints.hit("exit.recorded")
            return await release(engine, container)
        except (TareError, OSError, sqlite3.Error):
            log.exception("cleaning up after container %s", container.name)
        await asyncio.sleep(pause_s)
    log.error("container %s has ended and could not be cleaned up after", container.name)
    return None


def schedule(engine: Engine, slot: Slot, *, ran_s: float, starter: Starter) -> None:
    """Start it again after the back-off; `cancel` takes it back."""
    slot.restart_delay_s = restart.next_delay(slot.restart_delay_s, ran_s=ran_s)
    engine.containers.change(slot, state=State.RESTARTING, restart_count=slot.container.restart_count + 1)
    slot.restarting = tasks.spawn(
        _restart(engine, slot, slot.restart_delay_s, starter), name=f"restart {slot.container.name}"
    )


async def _restart(engine: Engine, slot: Slot, delay_s: float, starter: Starter) -> None:
    await asyncio.sleep(delay_s)
    slot.restarting = None
    try:
        await starter(engine, slot)
    except TareError as error:
        log.warning("container %s could not be restarted: %s", slot.container.name, error.message)


def _was_out_of_memory(engine: Engine, container: Container) -> bool:
    """The monitor may be gone before it hears of the kernel's choice; the control group still counts it."""
    if engine.monitor.was_oom_killed(container.id):
        return True
    try:
        return cgroups.read_stats(engine.cgroups, cgroup_path(container)).memory.oom_kills > 0
    except NotFound:  # somebody removed it by hand
        return False


def _ran_s(container: Container, now: int) -> int:
    """How long it ran, in whole seconds: by the kernel's clock, which nobody sets, if it was started in this boot."""
    process = container.process
    if process is not None and process.monitor_started and process.boot_id == boot_id():
        return max(0, int(seconds_since(process.monitor_started)))
    return max(0, (now - container.started_at) // 1_000_000_000)
