"""Signals to a running container and what comes of them: kill, stop, pause, unpause."""

from __future__ import annotations

import asyncio
import logging
import signal

from tare.base import clock
from tare.base.errors import Conflict, NotModified
from tare.containers.container import Container, State
from tare.containers.service import Slot
from tare.drivers import cgroups
from tare.drivers.runtime.monitor import send_signal, takes_signal
from tare.engine.engine import Engine
from tare.engine.news import tell
from tare.engine.release import cgroup_path
from tare.wire.signals import parse_signal

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 10
_KILL_PATIENCE_S = 10.0
_YOUNG_S = 0.25
_LOOK_EVERY_S = 0.005


def looks(age_s: float) -> int:
    """How often to look for a handler of a program that is `age_s` old; negative where the clock was set back."""
    return round(min(max(_YOUNG_S - age_s, 0.0), _YOUNG_S) / _LOOK_EVERY_S)


async def _until_it_listens(container: Container, number: int) -> None:
    """Give a program that was started a moment ago the time to say what it does with a signal, `_YOUNG_S` at most.

    The kernel drops what the first process of a namespace has no handler for: `stop` right after `start` would wait for
    its whole time-out although the program obeys.
    """
    process = container.process
    is_first = container.host_config.PidMode in ("", "private")
    if process is None or not is_first or number in (signal.SIGKILL, signal.SIGSTOP):
        return
    for _ in range(looks((clock.now() - container.started_at) / 1e9)):  # the kernel tells nobody of a new handler
        if takes_signal(process.pid, number):
            return
        await asyncio.sleep(_LOOK_EVERY_S)


def signal_container(engine: Engine, slot: Slot, number: int) -> None:
    """Send a signal to the container's first process; news first (W38). Raises Conflict when it is not running."""
    container = slot.container
    process = container.process
    if not container.is_running or process is None:
        raise Conflict(f"container {container.id} is not running")
    tell(engine, container, "kill", signal=str(number))
    send_signal(process.pid, process.pid_started, number)
    if container.is_paused and number == signal.SIGKILL:
        cgroups.freeze(engine.cgroups, cgroup_path(container), frozen=False)


async def kill(engine: Engine, slot: Slot, signal_text: str) -> None:
    """`docker kill`; with SIGKILL it returns when the container has ended. Raises InvalidArgument, Conflict."""
    container = slot.container
    number = parse_signal(signal_text) if signal_text else signal.SIGKILL
    if not container.is_running:
        raise Conflict(f"cannot kill container: {slot.container.name}: container {container.id} is not running")
    if number in (signal.SIGKILL, parse_signal(container.config.StopSignal or "SIGTERM")):
        engine.containers.change(slot, was_stopped_by_user=True)
    await _until_it_listens(container, number)
    signal_container(engine, slot, number)
    if number == signal.SIGKILL:
        await ended(slot, _KILL_PATIENCE_S)


async def stop(engine: Engine, slot: Slot, *, timeout_s: int | None, signal_text: str = "") -> None:
    """Ask it to end, wait, then kill. timeout_s: None = the container's own, negative = for ever.

    Raises NotModified when it is not running.
    """
    container = slot.container
    number = parse_signal(signal_text or container.config.StopSignal or "SIGTERM")
    if container.state is State.RESTARTING:
        cancel_restart(engine, slot)
        return
    if not container.is_running:
        raise NotModified(f"container {container.id} is already stopped")
    if timeout_s is None:
        configured = container.config.StopTimeout
        timeout_s = configured if isinstance(configured, int) else DEFAULT_TIMEOUT_S
    engine.containers.change(slot, was_stopped_by_user=True)
    if container.is_paused:
        cgroups.freeze(engine.cgroups, cgroup_path(container), frozen=False)
    await _until_it_listens(container, number)
    try:
        signal_container(engine, slot, number)
        if not await ended(slot, None if timeout_s < 0 else float(timeout_s)):
            signal_container(engine, slot, signal.SIGKILL)
            if not await ended(slot, _KILL_PATIENCE_S):
                raise Conflict(f"cannot stop container: {container.name}: it does not end after SIGKILL")
    except Conflict:
        if slot.container.is_running:
            raise
    tell(engine, slot.container, "stop")


def cancel_restart(engine: Engine, slot: Slot) -> None:
    """It waits to be started again by its policy: leave it stopped instead."""
    if slot.restarting is not None:
        slot.restarting.cancel()
        slot.restarting = None
    engine.containers.change(slot, state=State.EXITED, was_stopped_by_user=True)


async def stop_all(engine: Engine, *, timeout_s: int) -> None:
    """Stop every running container at once; used when the daemon ends without live-restore."""
    running = [slot for slot in engine.containers if slot.container.is_running]
    results = await asyncio.gather(
        *(stop(engine, slot, timeout_s=timeout_s) for slot in running), return_exceptions=True
    )
    for slot, result in zip(running, results, strict=True):
        if isinstance(result, Exception) and not isinstance(result, NotModified):
            log.error("stopping container %s: %s", slot.container.name, result)


async def ended(slot: Slot, limit_s: float | None) -> bool:
    if limit_s == 0:
        return slot.stopped.is_set()
    try:
        await asyncio.wait_for(slot.stopped.wait(), limit_s)
    except TimeoutError:
        return False
    return True


def pause(engine: Engine, slot: Slot) -> None:
    """Freeze every process of the container. Raises Conflict."""
    container = slot.container
    if not container.is_running:
        raise Conflict(f"container {container.id} is not running")
    if container.is_paused:
        raise Conflict(f"container {container.id} is already paused")
    cgroups.freeze(engine.cgroups, cgroup_path(container), frozen=True)
    engine.containers.change(slot, state=State.PAUSED)
    tell(engine, slot.container, "pause")


def unpause(engine: Engine, slot: Slot) -> None:
    """Let a frozen container go on. Raises Conflict."""
    container = slot.container
    if not container.is_paused:
        raise Conflict(f"Container {container.id} is not paused")
    cgroups.freeze(engine.cgroups, cgroup_path(container), frozen=False)
    engine.containers.change(slot, state=State.RUNNING)
    tell(engine, slot.container, "unpause")
