"""A reading in Docker's shape."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from tare.drivers.cgroups import BlockEntry, CpuStats, MemoryStats, PidsStats, Stats
from tare.engine.stats import body_of
from tare.wire.stats import StatsBody, TrafficBody

EMPTY = StatsBody(name="/web", id="c")
READ = Stats(
    cpu=CpuStats(total_nanos=9, user_nanos=4, system_nanos=5, per_cpu_nanos=(4, 5), periods=1, throttled_periods=2),
    memory=MemoryStats(usage_bytes=50, max_usage_bytes=60, limit_bytes=None, failures=3, details={"cache": 7}),
    pids=PidsStats(current=2, limit=33),
    block_bytes=(BlockEntry(major=8, minor=0, operation="read", value=512),),
)


def body(*, is_v1: bool, read: Stats = READ) -> dict[str, Any]:
    made = body_of(
        read, EMPTY, at=1_000_000_000, system_nanos=99, cpus=2, memory_bytes=1000, is_v1=is_v1,
        networks={"eth0": TrafficBody(rx_bytes=1)},
    )  # fmt: skip
    return dict(msgspec.json.decode(msgspec.json.encode(made)))


def test_v1() -> None:
    found = body(is_v1=True)
    assert found["memory_stats"] == {"usage": 50, "max_usage": 60, "stats": {"cache": 7}, "failcnt": 3, "limit": 1000}
    assert found["cpu_stats"] == {
        "cpu_usage": {"total_usage": 9, "percpu_usage": [4, 5], "usage_in_kernelmode": 5, "usage_in_usermode": 4},
        "system_cpu_usage": 99,
        "online_cpus": 2,
        "throttling_data": {"periods": 1, "throttled_periods": 2, "throttled_time": 0},
    }
    assert found["blkio_stats"]["io_service_bytes_recursive"] == [{"major": 8, "minor": 0, "op": "Read", "value": 512}]
    assert found["blkio_stats"]["io_queue_recursive"] == []
    assert found["pids_stats"] == {"current": 2, "limit": 33}
    assert found["networks"]["eth0"]["rx_bytes"] == 1
    assert found["read"] == "1970-01-01T00:00:01Z"


def test_v2_has_fewer_counters() -> None:
    found = body(is_v1=False)
    assert found["memory_stats"] == {"usage": 50, "stats": {"cache": 7}, "limit": 1000}
    assert found["blkio_stats"]["io_service_bytes_recursive"][0]["op"] == "read"
    assert found["blkio_stats"]["io_queue_recursive"] is None


def test_an_empty_one_is_as_docker_writes_it() -> None:
    found = msgspec.json.decode(msgspec.json.encode(EMPTY))
    assert found["read"] == "0001-01-01T00:00:00Z"
    assert found["memory_stats"] == {}
    assert found["pids_stats"] == {}
    assert "system_cpu_usage" not in found["cpu_stats"]
    assert "networks" not in found
    assert EMPTY.networks is UNSET
