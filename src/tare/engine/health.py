"""Running health checks: one task for each running container that has one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from tare.aio import tasks
from tare.base import clock
from tare.base.durations import exact_duration
from tare.base.errors import TareError
from tare.containers.container import State
from tare.containers.health import (
    OUTPUT_BYTES,
    TIMED_OUT,
    UNHEALTHY,
    Check,
    Health,
    Probe,
    check_of,
    judge,
    pause_before_next,
)
from tare.containers.hub import Subscriber
from tare.containers.service import Slot
from tare.containers.wishes import restarts_when_unhealthy
from tare.drivers.runtime.monitor import seconds_since
from tare.engine import exec as exec_verb
from tare.engine.engine import Engine
from tare.engine.news import tell
from tare.wire.exec import ExecCreateBody

log = logging.getLogger(__name__)

_CANNOT_RUN = 126


Restarter = Callable[[Engine, Slot], Coroutine[Any, Any, None]]


def watch(engine: Engine, slot: Slot, *, restarter: Restarter) -> None:
    """Begin checking a container that runs now, if it asks for that; ended by `cancel` when it exits.

    restarter: what to do with one that is unhealthy and asked to be restarted then.
    """
    cancel(slot)
    check = check_of(slot.container.config)
    if check is not None:
        if slot.container.health is None:
            engine.containers.change(slot, health=Health())
        slot.health = tasks.spawn(
            _check_for_ever(engine, slot, check, restarter), name=f"health of {slot.container.name}"
        )


def cancel(slot: Slot) -> None:
    """Stop checking."""
    if slot.health is not None:
        slot.health.cancel()
        slot.health = None


async def _check_for_ever(engine: Engine, slot: Slot, check: Check, restarter: Restarter) -> None:
    while True:
        health = slot.container.health or Health()
        await asyncio.sleep(pause_before_next(check, health, since_start_s=_since_start(slot)))
        if slot.container.state is not State.RUNNING:
            continue
        probe = await _probe(engine, slot, check)
        since_start_s = (probe.started_at - slot.container.started_at) / 1e9
        after = judge(check, health, probe, since_start_s=since_start_s)
        engine.containers.change(slot, health=after)
        if after.status != health.status:
            slot.tell_health()
            tell(engine, slot.container, f"health_status: {after.status}")
            if after.status == UNHEALTHY and restarts_when_unhealthy(slot.container):
                tasks.spawn(restarter(engine, slot), name=f"restart unhealthy {slot.container.name}")
                return


def _since_start(slot: Slot) -> float:
    """By the kernel's clock, which nobody sets."""
    process = slot.container.process
    return seconds_since(process.monitor_started) if process is not None else 0.0


async def _probe(engine: Engine, slot: Slot, check: Check) -> Probe:
    """Run the check once. One that takes too long is killed and counts as failed."""
    started_at = clock.now()
    try:
        exit_code, output = await _run(engine, slot, check)
    except TareError as error:
        exit_code, output = _CANNOT_RUN, error.message
    return Probe(
        started_at=started_at,
        ended_at=clock.now(),
        exit_code=exit_code,
        output=output.encode()[:OUTPUT_BYTES].decode("utf-8", "ignore"),
    )


async def _run(engine: Engine, slot: Slot, check: Check) -> tuple[int, str]:
    body = ExecCreateBody(Cmd=list(check.argv), AttachStdout=True, AttachStderr=True)
    exec_ = exec_verb.create(engine, slot, body)
    subscriber = exec_.hub.subscribe()
    output = bytearray()
    reading = tasks.spawn(_read(subscriber, output), name="health output", is_awaited=True)
    try:
        await exec_verb.start(engine, exec_, attached=True)
        async with asyncio.timeout(check.timeout_s):
            await asyncio.shield(reading)
            await exec_.ended.wait()
    except TimeoutError:
        if exec_.kill is not None:  # it has not ended, and only left somebody behind who may still write
            exec_.kill()
        said = f"Health check exceeded timeout ({exact_duration(round(check.timeout_s * 1e9))})"
        return TIMED_OUT, f"{said}: {_text(output)}" if output else said
    finally:
        exec_.hub.unsubscribe(subscriber)
        reading.cancel()
    return exec_.exit_code if exec_.exit_code is not None else _CANNOT_RUN, _text(output)


async def _read(subscriber: Subscriber, into: bytearray) -> None:
    """What the check writes, as far as it is kept."""
    while packets := await subscriber.read():
        if len(into) < OUTPUT_BYTES:
            into += b"".join(data for _, data in packets)


def _text(output: bytearray) -> str:
    return output[:OUTPUT_BYTES].decode("utf-8", "replace")
