"""top, stats and update by the stock docker command line, checked against the kernel (api/usage, engine/stats)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tare.drivers import cgroups
from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker, out

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


def test_top(engine_host: str) -> None:
    out(engine_host, "run", "-d", "--name", "tp", "-u", "app", "busybox", "sh", "-c", "sleep 1000; echo")
    out(engine_host, "exec", "tp", "true")
    lines = out(engine_host, "top", "tp").splitlines()
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    pid = out(engine_host, "inspect", "-f", "{{.State.Pid}}", "tp")
    assert pid in [line.split()[1] for line in lines[1:]]
    assert any("sleep 1000" in line for line in lines[1:])
    assert out(engine_host, "top", "tp", "-o", "pid,comm").splitlines()[1].split()[0] == pid
    assert out(engine_host, "top", "tp", "aux").splitlines()[0].startswith("USER")
    assert "Couldn't find PID field in ps output" in docker(engine_host, "top", "tp", "-o", "comm").stderr
    assert "nonsense" in docker(engine_host, "top", "tp", "-o", "pid,nonsense").stderr
    out(engine_host, "kill", "tp")
    assert "is not running" in docker(engine_host, "top", "tp").stderr


def test_stats(engine_host: str, daemon: Daemon) -> None:
    out(
        engine_host,
        "run",
        "-d",
        "--name",
        "st",
        "-m",
        "64m",
        "--pids-limit",
        "33",
        "busybox",
        "sh",
        "-c",
        "while :; do :; done",
    )
    sample = daemon.json("GET", "/containers/st/stats?stream=0")
    assert sample["name"] == "/st"
    assert sample["memory_stats"]["limit"] == 64 << 20
    assert sample["memory_stats"]["usage"] > 0
    assert sample["pids_stats"] == {"current": 1, "limit": 33}
    assert sample["cpu_stats"]["cpu_usage"]["total_usage"] > sample["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert sample["cpu_stats"]["system_cpu_usage"] > sample["precpu_stats"]["system_cpu_usage"]
    assert sample["preread"] < sample["read"]
    assert sample["networks"]["eth0"]["rx_bytes"] >= 0
    one = daemon.json("GET", "/containers/st/stats?stream=0&one-shot=1")
    assert one["preread"] == "0001-01-01T00:00:00Z"
    row = out(engine_host, "stats", "--no-stream", "--format", "{{json .}}", "st")
    found = json.loads(row)
    assert found["Name"] == "st"
    assert float(found["CPUPerc"].rstrip("%")) > 1
    assert found["PIDs"] == "1"
    assert found["MemUsage"].endswith("/ 64MiB")
    out(engine_host, "kill", "st")
    out(engine_host, "wait", "st")
    stopped = daemon.json("GET", "/containers/st/stats?stream=0")
    assert (stopped["name"], stopped["memory_stats"], stopped["read"]) == ("/st", {}, "0001-01-01T00:00:00Z")


def test_stats_stream_until_the_container_is_removed(engine_host: str, daemon: Daemon) -> None:
    out(engine_host, "run", "-d", "--rm", "--name", "sr", "busybox", "sleep", "1.5")
    status, body = daemon.request("GET", "/containers/sr/stats")
    samples = [json.loads(line) for line in body.splitlines()]
    assert status == 200
    assert len(samples) >= 2
    assert samples[1]["preread"] == samples[0]["read"]


def control(host: str, name: str, controller: str, v1: str, v2: str) -> str:
    """One control file of the container's group."""
    ident = out(host, "inspect", "-f", "{{.Id}}", name)
    layout = cgroups.read_layout()
    is_v2 = layout.mode is cgroups.CgroupMode.V2
    place = next(
        place
        for place in cgroups.directories(layout, cgroups.path_for(ident))
        if (place / (v2 if is_v2 else v1)).exists()
    )
    return Path(place, v2 if is_v2 else v1).read_text().strip()


def test_update_reaches_the_kernel_and_stays(engine_host: str) -> None:
    out(engine_host, "run", "-d", "--name", "up", "-m", "64m", "busybox", "sleep", "1000")
    out(engine_host, "update", "-m", "32m", "--memory-swap", "48m", "--pids-limit", "44", "--cpuset-cpus", "0",
        "--cpu-shares", "512", "--restart", "on-failure:3", "up")  # fmt: skip
    assert control(engine_host, "up", "memory", "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert control(engine_host, "up", "pids", "pids.max", "pids.max") == "44"
    assert control(engine_host, "up", "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    out(engine_host, "update", "-m", "128m", "--memory-swap", "-1", "--cpus", "0.5", "up")
    assert control(engine_host, "up", "memory", "memory.limit_in_bytes", "memory.max") == str(128 << 20)
    assert control(engine_host, "up", "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    host = json.loads(out(engine_host, "inspect", "-f", "{{json .HostConfig}}", "up"))
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["NanoCpus"], host["CpuShares"]) == (
        128 << 20, -1, 44, 500_000_000, 512,
    )  # fmt: skip
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    out(engine_host, "update", "--restart", "no", "up")
    out(engine_host, "restart", "-t", "0", "up")
    assert control(engine_host, "up", "memory", "memory.limit_in_bytes", "memory.max") == str(128 << 20)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-m", "5m"], "Minimum memory limit allowed is 6MB"),
        (["-m", "256m"], "Memory limit should be smaller than already set memoryswap limit"),
        (["--cpuset-cpus", "0-999"], "Requested CPUs are not available"),
        (["--restart", "nope"], "invalid restart policy 'nope'"),
        (["--cpu-quota", "5000"], "CPU Quota cannot be updated as NanoCPUs has already been set"),
    ],
)
def test_what_update_refuses_changes_nothing(engine_host: str, argv: list[str], text: str) -> None:
    out(engine_host, "run", "-d", "--name", "no", "-m", "64m", "--cpus", "0.5", "busybox", "sleep", "99")
    before = out(engine_host, "inspect", "-f", "{{json .HostConfig}}", "no")
    done = docker(engine_host, "update", *argv, "no")
    assert (done.returncode, text in done.stderr) == (1, True), done.stderr
    assert out(engine_host, "inspect", "-f", "{{json .HostConfig}}", "no") == before


def test_update_of_a_stopped_container_counts_at_its_start(engine_host: str) -> None:
    out(engine_host, "create", "--name", "late", "busybox", "sleep", "99")
    out(engine_host, "update", "--pids-limit", "22", "late")
    out(engine_host, "start", "late")
    assert control(engine_host, "late", "pids", "pids.max", "pids.max") == "22"
