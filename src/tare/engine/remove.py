"""Removing a container: everything it had, whatever state a crash left it in. Idempotent."""

from __future__ import annotations

import asyncio
import signal

from tare.aio import failpoints
from tare.aio.threads import in_thread
from tare.base.errors import Conflict, TareError
from tare.containers.container import Container, State
from tare.containers.service import Slot
from tare.drivers import trees
from tare.engine import forward, stop
from tare.engine import volumes as volumes_of
from tare.engine.engine import Engine, directory_of
from tare.engine.news import tell
from tare.engine.release import release

_KILL_PATIENCE_S = 10.0


async def remove(engine: Engine, slot: Slot, *, force: bool = False, volumes: bool = False, called: str = "") -> None:
    """Remove it. Raises Conflict when it runs (without force) or is being removed by somebody else.

    volumes: its anonymous volumes too. called: what the client calls it; clients search for that in the refusal.
    """
    container = slot.container
    if slot.is_being_removed:
        raise Conflict(f"removal of container {called or container.name} is already in progress")
    if (container.is_running or container.state is State.RESTARTING) and not force:
        raise _still_running(container)
    slot.is_being_removed = True
    try:
        async with slot.lock:  # a start that is under way ends first; none begins any more
            if slot.container.state is State.RESTARTING:
                stop.cancel_restart(engine, slot)
            if slot.container.is_running:
                if not force:
                    raise _still_running(slot.container)
                await _kill(engine, slot)
            if slot.supervisor is not None:
                await slot.supervisor
            await _clear(engine, slot, volumes=volumes)
    except BaseException:
        slot.is_being_removed = False
        raise


def _still_running(container: Container) -> Conflict:
    return Conflict(
        f'cannot remove container "{container.name}": container is {container.state.value}: '
        "stop the container before removing or force remove"
    )


async def _kill(engine: Engine, slot: Slot) -> None:
    engine.containers.change(slot, was_stopped_by_user=True)
    try:
        stop.signal_container(engine, slot, signal.SIGKILL)
    except Conflict:
        return
    if not await stop.ended(slot, _KILL_PATIENCE_S):
        raise Conflict(f"cannot remove container {slot.container.name}: it does not end after SIGKILL")


async def remove_after_exit(engine: Engine, slot: Slot, *, volumes: bool = True) -> None:
    """`--rm`: called by the supervisor when the container has ended; waiters for removal are told either way."""
    if slot.is_being_removed:
        return
    slot.is_being_removed = True
    try:
        await _clear(engine, slot, volumes=volumes)
    except TareError as error:
        slot.is_being_removed = False
        slot.tell_removed(error.message)
        raise


async def _clear(engine: Engine, slot: Slot, *, volumes: bool) -> None:
    container = slot.container
    engine.reserve.make_room()
    marked = asyncio.wrap_future(engine.containers.begin_removal(slot))
    await forward.finish(slot)
    await release(engine, container)
    await marked
    failpoints.hit("remove.released")
    engine.snapshots.remove(container.id)
    await engine.images.release(container.id)
    await in_thread(trees.discard, directory_of(engine, container.id))
    failpoints.hit("remove.files")
    await volumes_of.forget(engine, container, remove_anonymous=volumes)
    failpoints.hit("remove.volumes")
    await engine.containers.forget(slot)
    failpoints.passed("remove.forgotten")
    engine.execs.forget(container.id)
    engine.summaries.forget(container.id)
    engine.inspections.forget(container.id)
    slot.hub.finish()
    tell(engine, container, "destroy")
    slot.tell_removed()
