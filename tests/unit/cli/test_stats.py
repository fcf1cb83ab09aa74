from __future__ import annotations

from typing import Any

from tare.cli.stats import cpu_percent, memory_used, row_of

SAMPLE: dict[str, Any] = {
    "id": "a" * 64,
    "name": "/web",
    "cpu_stats": {"cpu_usage": {"total_usage": 200}, "system_cpu_usage": 2000, "online_cpus": 2},
    "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
    "memory_stats": {"usage": 3 << 20, "limit": 8 << 20, "stats": {"inactive_file": 1 << 20}},
    "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2000}},
    "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 5}, {"op": "write", "value": 6}]},
    "pids_stats": {"current": 4},
}


def test_numbers() -> None:
    assert cpu_percent(SAMPLE) == 20.0
    assert cpu_percent({}) == 0.0
    assert memory_used(SAMPLE["memory_stats"]) == 2 << 20
    row = row_of(SAMPLE, "web")
    assert (row["MemUsage"], row["MemPerc"], row["NetIO"], row["BlockIO"]) == (
        "2MiB / 8MiB",
        "25.00%",
        "1kB / 2kB",
        "5B / 6B",
    )


def test_once(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/web/stats"] = (200, SAMPLE)
    out = tare("stats", "--no-stream", "web")[1]
    assert out.splitlines()[1].split()[:3] == ["a" * 12, "web", "20.00%"]
