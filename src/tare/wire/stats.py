"""Docker's JSON about resource usage. Source: moby/moby api/types/container/stats.go; cgroup v1 has the more fields."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from tare.wire.config import Wire

ZERO_TIME = "0001-01-01T00:00:00Z"


class PidsBody(Wire, kw_only=True, frozen=True):
    """Processes and threads; no limit is left out."""

    current: int | UnsetType = UNSET
    limit: int | UnsetType = UNSET


class BlockEntryBody(Wire, kw_only=True, frozen=True):
    """One counter of one device."""

    major: int
    minor: int
    op: str
    value: int


class BlockBody(Wire, kw_only=True, frozen=True):
    """Block I/O; null where the kernel does not count."""

    io_service_bytes_recursive: list[BlockEntryBody] | None = None
    io_serviced_recursive: list[BlockEntryBody] | None = None
    io_queue_recursive: list[BlockEntryBody] | None = None
    io_service_time_recursive: list[BlockEntryBody] | None = None
    io_wait_time_recursive: list[BlockEntryBody] | None = None
    io_merged_recursive: list[BlockEntryBody] | None = None
    io_time_recursive: list[BlockEntryBody] | None = None
    sectors_recursive: list[BlockEntryBody] | None = None


class CpuUsageBody(Wire, kw_only=True, frozen=True):
    """Nanoseconds."""

    total_usage: int = 0
    percpu_usage: list[int] | UnsetType = UNSET
    usage_in_kernelmode: int = 0
    usage_in_usermode: int = 0


class ThrottlingBody(Wire, kw_only=True, frozen=True):
    """Periods, and nanoseconds spent throttled."""

    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class CpuBody(Wire, kw_only=True, frozen=True):
    """`cpu_stats` and `precpu_stats`; the host's own counters are left out of an empty one."""

    cpu_usage: CpuUsageBody = CpuUsageBody()
    system_cpu_usage: int | UnsetType = UNSET
    online_cpus: int | UnsetType = UNSET
    throttling_data: ThrottlingBody = ThrottlingBody()


class MemoryBody(Wire, kw_only=True, frozen=True):
    """Bytes. `limit` is the host's memory where there is none."""

    usage: int | UnsetType = UNSET
    max_usage: int | UnsetType = UNSET
    stats: dict[str, int] | UnsetType = UNSET
    failcnt: int | UnsetType = UNSET
    limit: int | UnsetType = UNSET


class TrafficBody(Wire, kw_only=True, frozen=True):
    """One network interface."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class StorageBody(Wire, kw_only=True, frozen=True):
    """Nothing on Linux."""


class StatsBody(Wire, kw_only=True, frozen=True):
    """One object of `GET /containers/{id}/stats`. `num_procs` is of Windows."""

    read: str = ZERO_TIME
    preread: str = ZERO_TIME
    pids_stats: PidsBody = PidsBody()
    blkio_stats: BlockBody = BlockBody()
    num_procs: int = 0
    storage_stats: StorageBody = StorageBody()
    cpu_stats: CpuBody = CpuBody()
    precpu_stats: CpuBody = CpuBody()
    memory_stats: MemoryBody = MemoryBody()
    name: str
    id: str
    networks: dict[str, TrafficBody] | UnsetType = UNSET
