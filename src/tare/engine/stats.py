"""What a container uses: its processes by `ps`, its counters once or every second."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence

import msgspec
from msgspec import UNSET

from tare.aio.threads import in_thread
from tare.base import clock
from tare.base.clock import rfc3339nano
from tare.base.errors import Conflict, NotFound
from tare.containers.container import Container, State
from tare.containers.service import Slot
from tare.drivers import cgroups, processes
from tare.drivers.cgroups import BlockEntry, CgroupMode, Stats
from tare.engine.engine import Engine
from tare.engine.news import tell
from tare.engine.release import cgroup_path
from tare.wire.stats import (
    BlockBody,
    BlockEntryBody,
    CpuBody,
    CpuUsageBody,
    MemoryBody,
    PidsBody,
    StatsBody,
    ThrottlingBody,
    TrafficBody,
)

INTERVAL_S = 1.0


async def top(engine: Engine, slot: Slot, arguments: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the container's processes. Raises Conflict when it does not run, InvalidArgument."""
    container = slot.container
    if container.state is State.RESTARTING:
        raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
    if not container.is_running:
        raise Conflict(f"container {container.id} is not running")
    pids = cgroups.pids(engine.cgroups, cgroup_path(container))
    found = await processes.table(arguments, pids)
    tell(engine, container, "top")
    return found


def _sample(engine: Engine, container: Container) -> StatsBody:
    """One reading; without numbers when it does not run. Blocks for a fraction of a millisecond."""
    empty = StatsBody(name=f"/{container.name}", id=container.id)
    if not container.is_running or container.process is None:
        return empty
    try:
        read = cgroups.read_stats(engine.cgroups, cgroup_path(container))
    except NotFound:
        return empty
    has_own_network = container.host_config.NetworkMode != "host"
    interfaces = processes.traffic(container.process.pid) if has_own_network else {}
    return body_of(
        read,
        empty,
        at=clock.now(),
        system_nanos=processes.system_cpu_nanos(),
        cpus=os.sysconf("SC_NPROCESSORS_ONLN"),
        memory_bytes=engine.host.memory_bytes,
        is_v1=engine.cgroups.mode is not CgroupMode.V2,
        networks={name: _traffic(found) for name, found in interfaces.items()},
    )


def _traffic(found: processes.Traffic) -> TrafficBody:
    return TrafficBody(**{name: getattr(found, name) for name in TrafficBody.__struct_fields__})


def body_of(
    read: Stats,
    empty: StatsBody,
    *,
    at: int,
    system_nanos: int,
    cpus: int,
    memory_bytes: int,
    is_v1: bool,
    networks: dict[str, TrafficBody],
) -> StatsBody:
    """The wire form of one reading, without what was before. memory_bytes: of the host, the limit if there is none."""
    cpu, memory = read.cpu, read.memory
    limit = memory.limit_bytes
    usage = CpuUsageBody(
        total_usage=cpu.total_nanos,
        percpu_usage=list(cpu.per_cpu_nanos) or UNSET,
        usage_in_kernelmode=cpu.system_nanos,
        usage_in_usermode=cpu.user_nanos,
    )
    throttling = ThrottlingBody(
        periods=cpu.periods, throttled_periods=cpu.throttled_periods, throttled_time=cpu.throttled_nanos
    )
    others: list[BlockEntryBody] | None = [] if is_v1 else None
    return msgspec.structs.replace(
        empty,
        read=rfc3339nano(at),
        pids_stats=PidsBody(current=read.pids.current, limit=read.pids.limit if read.pids.limit is not None else UNSET),
        blkio_stats=BlockBody(
            io_service_bytes_recursive=_entries(read.block_bytes, is_v1=is_v1),
            io_serviced_recursive=_entries(read.block_operations, is_v1=is_v1),
            io_queue_recursive=others,
            io_service_time_recursive=others,
            io_wait_time_recursive=others,
            io_merged_recursive=others,
            io_time_recursive=others,
            sectors_recursive=others,
        ),
        cpu_stats=CpuBody(cpu_usage=usage, system_cpu_usage=system_nanos, online_cpus=cpus, throttling_data=throttling),
        memory_stats=MemoryBody(
            usage=memory.usage_bytes,
            max_usage=memory.max_usage_bytes if is_v1 and memory.max_usage_bytes is not None else UNSET,
            stats=dict(memory.details),
            failcnt=memory.failures if is_v1 else UNSET,
            limit=memory_bytes if limit is None else min(limit, memory_bytes),
        ),
        networks=networks or UNSET,
    )


def _entries(found: Sequence[BlockEntry], *, is_v1: bool) -> list[BlockEntryBody]:
    return [
        BlockEntryBody(
            major=entry.major,
            minor=entry.minor,
            op=entry.operation.capitalize() if is_v1 else entry.operation,
            value=entry.value,
        )
        for entry in found
    ]


async def once(engine: Engine, slot: Slot, *, with_delta: bool) -> StatsBody:
    """One object. with_delta: after a second reading a second later, so that shares can be computed (W76)."""
    first = await in_thread(_sample, engine, slot.container)
    if not with_delta or not slot.container.is_running:
        return first
    await asyncio.sleep(INTERVAL_S)
    return _after(await in_thread(_sample, engine, slot.container), first)


def _after(now: StatsBody, before: StatsBody) -> StatsBody:
    return msgspec.structs.replace(now, preread=before.read, precpu_stats=before.cpu_stats)


async def stream(engine: Engine, slot: Slot) -> AsyncIterator[StatsBody]:
    """An object a second until the container is removed."""
    before: StatsBody | None = None
    while not slot.is_being_removed:
        now = await in_thread(_sample, engine, slot.container)
        yield now if before is None else _after(now, before)
        before = now
        await asyncio.sleep(INTERVAL_S)
