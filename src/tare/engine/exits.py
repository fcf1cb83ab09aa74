"""What happens when a container ends: noticed by the monitor's pidfd, recorded, cleaned up, told.

The order: record the exit status and release who waits for it (a person sees the prompt at once), then undo what
start did, then `--rm`. A start that comes meanwhile waits for the supervisor.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from tare.base import clock
from tare.containers.container import Container, State
from tare.containers.service import Slot
from tare.drivers import cgroups
from tare.engine.engine import Engine
from tare.engine.news import tell
from tare.engine.release import cgroup_path, kill_leftovers, release
from tare.engine.remove import remove_after_exit

log = logging.getLogger(__name__)

LOST_EXIT_CODE = 255
_KILLED = 137
_DRAIN_S = 2.0


async def supervise(engine: Engine, slot: Slot, ended: Awaitable[object]) -> None:
    """Wait for `ended` (the monitor is gone, so log and exit status are complete) and deal with it."""
    await ended
    await handle_exit(engine, slot)


async def handle_exit(engine: Engine, slot: Slot) -> None:
    """Record the exit of a container that ran, clean up after it, and remove it if it asked for that."""
    container = slot.container
    code = engine.monitor.exit_code(container.id)
    if code is None:
        log.warning("container %s ended without an exit status: its monitor was killed", container.id)
        kill_leftovers(engine, cgroup_path(container))
        code = LOST_EXIT_CODE
    await slot.hub.until_drained(_DRAIN_S)
    slot.hub.finish()
    now = clock.now()
    ran_s = max(0, (now - container.started_at) // 1_000_000_000)
    is_oom = code == _KILLED and _was_out_of_memory(engine, container)
    if is_oom:
        tell(engine, container, "oom")
    removes = container.host_config.AutoRemove
    container = engine.containers.change(
        slot,
        state=State.EXITED,
        exit_code=code,
        finished_at=now,
        is_oom_killed=is_oom,
        process=None,
        endpoints=container.asked_endpoints,
    )
    tell(engine, container, "die", exitCode=str(code), execDuration=str(ran_s))
    slot.tell_exit()
    try:
        if not removes:
            await engine.containers.save(slot)  # before the monitor's file with the exit status goes
        await release(engine, container)
    finally:
        slot.stopped.set()
    if removes:
        await remove_after_exit(engine, slot)


def _was_out_of_memory(engine: Engine, container: Container) -> bool:
    """The monitor may be gone before it hears of the kernel's choice; the control group still counts it."""
    if engine.monitor.was_oom_killed(container.id):
        return True
    return cgroups.read_stats(engine.cgroups, cgroup_path(container)).memory.oom_kills > 0
