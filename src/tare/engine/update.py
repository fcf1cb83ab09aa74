"""Changing the limits and the restart policy of a container, live."""

from __future__ import annotations

from typing import Any

import msgspec

from tare.base.errors import Conflict
from tare.containers import checks
from tare.containers.checks import CPU_PERIOD_US
from tare.containers.container import Container
from tare.containers.service import Slot
from tare.drivers import cgroups
from tare.drivers.cgroups import Limits
from tare.engine.engine import Engine
from tare.engine.news import tell
from tare.engine.release import cgroup_path
from tare.wire.config import HostConfig

_NUMBERS = (
    "CpuShares", "BlkioWeight", "CpuPeriod", "CpuQuota", "NanoCpus", "CpuRealtimePeriod", "CpuRealtimeRuntime", "Memory",
    "MemorySwap", "MemoryReservation",
)  # fmt: skip
_TEXTS = ("CpusetCpus", "CpusetMems")


async def update(engine: Engine, slot: Slot, wanted: HostConfig) -> list[str]:
    """Apply what `wanted` says and nothing else: zero and empty leave a limit as it is. Returns warnings.

    The kernel is asked first and the record changed after, so a value it refuses changes nothing that inspect shows.
    Raises InvalidArgument, Conflict.
    """
    async with slot.lock:
        container = slot.container
        if slot.is_being_removed:
            raise _refusal(container, 'Container is marked for removal and cannot be "update".')
        kept = wanted if engine.host.has_blkio_weight else msgspec.structs.replace(wanted, BlkioWeight=0)
        merged = merge(container, kept)  # first: its refusals name what is set already
        warnings = checks.check_resources(wanted, facts=engine.host, running=container.host_config)
        wanted = kept  # as the warning says
        if container.is_running:
            _apply(engine, container, wanted, merged)
        await engine.containers.save(slot, durable=True, host_config=merged)
    tell(engine, slot.container, "update")
    return warnings


def _refusal(container: Container, why: str) -> Conflict:
    return Conflict(f"Cannot update container {container.id}: {why}")


def merge(container: Container, wanted: HostConfig) -> HostConfig:
    """The stored HostConfig with the new values. Raises InvalidArgument, Conflict in dockerd's words.

    Source: moby container/container_unix.go, UpdateContainer.
    """
    old = container.host_config
    if wanted.NanoCpus > 0 and old.CpuPeriod > 0:
        raise _refusal(container, "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set")
    if wanted.NanoCpus > 0 and old.CpuQuota > 0:
        raise _refusal(container, "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set")
    if wanted.CpuPeriod > 0 and old.NanoCpus > 0:
        raise _refusal(container, "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")
    if wanted.CpuQuota > 0 and old.NanoCpus > 0:
        raise _refusal(container, "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set")
    if wanted.Memory and not wanted.MemorySwap and 0 < old.MemorySwap < wanted.Memory:
        raise _refusal(
            container,
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        )
    changes: dict[str, Any] = {
        name: value for name in (*_NUMBERS, *_TEXTS) if (value := getattr(wanted, name)) not in (0, "")
    }
    if wanted.PidsLimit is not None:
        changes["PidsLimit"] = max(0, wanted.PidsLimit)
    if wanted.RestartPolicy.Name:
        checks.check_restart(HostConfig(RestartPolicy=wanted.RestartPolicy))
        if old.AutoRemove and wanted.RestartPolicy.Name != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changes["RestartPolicy"] = wanted.RestartPolicy
    return msgspec.structs.replace(old, **changes)


def limits_of(wanted: HostConfig, merged: HostConfig) -> Limits:
    """The limits that change. Period and quota go together, since v2 keeps them in one file."""
    quota = period = None
    if wanted.NanoCpus > 0:
        quota, period = wanted.NanoCpus * CPU_PERIOD_US // 1_000_000_000, CPU_PERIOD_US
    elif wanted.CpuQuota or wanted.CpuPeriod:
        quota, period = merged.CpuQuota or None, merged.CpuPeriod or None
    pids = wanted.PidsLimit
    return Limits(
        memory_bytes=wanted.Memory or None,
        swap_bytes=_swap(wanted, merged),
        reservation_bytes=wanted.MemoryReservation or None,
        cpu_shares=wanted.CpuShares or None,
        cpu_quota_us=quota,
        cpu_period_us=period,
        cpu_rt_period_us=wanted.CpuRealtimePeriod or None,
        cpu_rt_runtime_us=wanted.CpuRealtimeRuntime or None,
        cpuset_cpus=wanted.CpusetCpus or None,
        cpuset_mems=wanted.CpusetMems or None,
        pids=None if pids is None else (pids if pids > 0 else -1),
        blkio_weight=wanted.BlkioWeight or None,
    )


def _swap(wanted: HostConfig, merged: HostConfig) -> int | None:
    """Memory plus swap, as it has to be when memory changes."""
    if wanted.MemorySwap:
        return wanted.MemorySwap
    return merged.MemorySwap or None if wanted.Memory else None


def _apply(engine: Engine, container: Container, wanted: HostConfig, merged: HostConfig) -> None:
    path = cgroup_path(container)
    limit = cgroups.read_stats(engine.cgroups, path).memory.limit_bytes
    plan = cgroups.plan_update(
        limits_of(wanted, merged),
        mode=engine.cgroups.mode,
        current_memory_bytes=limit,
        has_swap=engine.host.has_swap_limit,
    )
    cgroups.apply(engine.cgroups, path, plan)
