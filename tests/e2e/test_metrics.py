"""`/metrics` of an engine with a container that runs: names, labels, and numbers that agree with the kernel and stats.

Exercises engine/metrics, api/system and the counters in api/app.
"""

from __future__ import annotations

import re

import pytest

from tare.testing.daemon import Daemon

pytestmark = pytest.mark.root
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (-?[0-9.e+-]+)\Z')


def scraped(engine: Daemon) -> dict[tuple[str, str], float]:
    """(name, labels as text) → value; every line has to be of the format."""
    status, body = engine.request("GET", "/metrics")
    assert status == 200
    found: dict[tuple[str, str], float] = {}
    for line in body.decode().splitlines():
        if line.startswith("#"):
            assert re.match(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|summary))\Z", line), line
            continue
        match = SAMPLE.match(line)
        assert match is not None, line
        found[match[1], match[2] or ""] = float(match[3])
    return found


def test_engine_and_containers_are_counted(daemon: Daemon, engine_host: str) -> None:
    body = {
        "Image": "busybox", "Cmd": ["sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 1000"],
        "HostConfig": {"Memory": 64 << 20},
    }  # fmt: skip
    made = daemon.json("POST", "/containers/create?name=counted", body, expect=201)
    daemon.json("POST", f"/containers/{made['Id']}/start", expect=204)
    before = scraped(daemon)
    assert before["tare_containers", 'state="running"'] == 1
    assert before["tare_container_memory_limit_bytes", 'name="counted"'] == 64 << 20
    assert before["tare_container_processes", 'name="counted"'] >= 1
    assert f'id="{made["Id"]}",image="busybox"' in next(k for n, k in before if n == "tare_container_info")
    stats = daemon.json("GET", "/containers/counted/stats?stream=0&one-shot=1")
    after = scraped(daemon)
    cpu = ("tare_container_cpu_seconds_total", 'name="counted"')
    assert before[cpu] <= stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9 <= after[cpu]
    start = ("tare_http_requests_total", 'method="POST",path="/containers/{id}/start"')
    assert before[start] >= 1
    asked = ("tare_http_requests_total", 'method="GET",path="/metrics"')
    assert after[asked] == before[asked] + 1


def test_errors_are_counted_by_status(daemon: Daemon) -> None:
    key = ("tare_http_errors_total", 'code="404"')
    before = scraped(daemon).get(key, 0)
    daemon.request("GET", "/containers/nobody/json")
    assert scraped(daemon)[key] == before + 1
