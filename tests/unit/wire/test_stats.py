"""An empty sample, as dockerd writes that of a container that does not run."""

from __future__ import annotations

import msgspec

from tare.wire.stats import StatsBody


def test_empty() -> None:
    text = msgspec.json.encode(StatsBody(name="/web", id="c")).decode()
    cpu = (
        '{"cpu_usage":{"total_usage":0,"usage_in_kernelmode":0,"usage_in_usermode":0},'
        '"throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}}'
    )
    nulls = ",".join(
        f'"{name}":null'
        for name in (
            "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
            "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
        )
    )  # fmt: skip
    assert text == (
        '{"read":"0001-01-01T00:00:00Z","preread":"0001-01-01T00:00:00Z","pids_stats":{},'
        f'"blkio_stats":{{{nulls}}},"num_procs":0,"storage_stats":{{}},"cpu_stats":{cpu},"precpu_stats":{cpu},'
        '"memory_stats":{},"name":"/web","id":"c"}'
    )
