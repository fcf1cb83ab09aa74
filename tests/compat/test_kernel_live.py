"""Every flag of `docker exec`, `update`, `start`, `stop`, `kill`, `restart` and `attach`, and what the kernel has then."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.root

Run = Callable[..., Any]


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"compat_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


view = _sibling("kernelview")
table = _sibling("flagtable")

MEMORY = 64 * 1024 * 1024


@pytest.fixture
def put(engine_host: str, docker: Run) -> Iterator[Callable[..., Any]]:
    """Start a container with these flags; removed afterwards."""
    names: list[str] = []

    def run(*words: str, command: tuple[str, ...] = ("sleep", "1000")) -> Any:
        names.append(view.new_name())
        said = docker(engine_host, "run", "-d", "--name", names[-1], *words, "busybox", *command)
        assert said.code == 0, said.err
        return view.Box(engine_host, docker, names[-1], said)

    yield run
    docker(engine_host, "rm", "-fv", *names)


# --- exec

EXECS: list[tuple[str, list[str], dict[str, str]]] = [
    ("-e A=1 --env B=2 --env-file @DIR@/env", ["env"], {"A": "1", "B": "2", "C": "3", "OWN": "x"}),
    (
        "-u 1000:10",
        ["cat", "/proc/self/status"],
        {"Uid": "1000 1000 1000 1000", "Gid": "10 10 10 10", "CapEff": "0" * 16},
    ),
    ("-w /var", ["sh", "-c", "echo cwd=$(readlink /proc/self/cwd)"], {"cwd": "/var"}),
    (
        "",
        ["cat", "/proc/self/status"],
        {"CapBnd": "00000000a80425fb", "CapInh": "0" * 16, "Seccomp": "2", "Umask": "0022"},
    ),
    ("--privileged", ["cat", "/proc/self/status"], {"CapInh": "0" * 16, "CapAmb": "0" * 16}),
    ("-t", ["sh", "-c", "echo tty=$(tty) term=$TERM"], {"tty": "/dev/pts/0 term=xterm"}),
    ("-i", ["sh", "-c", "read -r line && echo line=$line"], {"line": "in"}),
]


@pytest.mark.parametrize("runtime", table.BOTH)
def test_exec(runtime: str, put: Callable[..., Any], engine_host: str, docker: Run, tmp_path: Path) -> None:
    """What a second process sees of itself, for each flag; and that it lives in the container's groups and namespaces."""
    if runtime not in docker(engine_host, "info", "-f", "{{json .Runtimes}}").out:
        pytest.skip(f"this engine has no {runtime}")
    (tmp_path / "env").write_text("C=3\n")
    box = put("--runtime", runtime, "-e", "OWN=x", "--pids-limit", "50")
    for words, argv, expected in EXECS:
        flags = words.replace("@DIR@", str(tmp_path)).split()
        said = docker(engine_host, "exec", *flags, box.name, *argv, stdin="in\n")
        assert said.code == 0, (words, said.err)
        separator = ":" if argv[0] == "cat" else "="
        found = {
            key: " ".join(value.split())
            for key, _, value in (line.partition(separator) for line in said.out.splitlines())
        }
        assert {key: found.get(key) for key in expected} == expected, words
    whole = view.status_lines(docker(engine_host, "exec", "--privileged", box.name, "cat", "/proc/self/status").out)
    ours = view.status_lines(Path("/proc/self/status").read_text())
    assert int(whole["CapBnd"], 16) == int(ours["CapBnd"], 16)


def test_exec_detached(put: Callable[..., Any], engine_host: str, docker: Run) -> None:
    box = put()
    assert docker(engine_host, "exec", "-d", box.name, "sleep", "4321") == type(box.said)(0, "", "")
    found = [pid for pid in _pids_of(box) if Path(f"/proc/{pid}/cmdline").read_text() == "sleep\x004321\0"]
    assert len(found) == 1
    for kind in ("mnt", "net", "pid", "ipc", "uts"):
        assert os.readlink(f"/proc/{found[0]}/ns/{kind}") == box.ns(kind)
    assert Path(f"/proc/{found[0]}/cgroup").read_text() == box.proc("cgroup")


def _pids_of(box: Any) -> list[int]:
    return [int(pid) for pid in box.cgroup("pids", "cgroup.procs").split()]


def test_exec_detach_keys(put: Callable[..., Any], engine_host: str) -> None:
    terminal_of = _sibling("test_kernel_view").Terminal
    box = put()
    terminal = terminal_of(
        engine_host, "exec", "-it", "--detach-keys", "ctrl-x,y", box.name, "sh", "-c", "echo here; sleep 99"
    )
    terminal.until("here")
    os.write(terminal.master, b"\x18y")
    terminal.end()
    assert any(Path(f"/proc/{pid}/cmdline").read_text().startswith("sleep\x0099\0") for pid in _pids_of(box)), (
        "it goes on"
    )


# --- update

UPDATES: list[tuple[str, str, list[tuple[str, str]], dict[str, object]]] = [
    ("--pids-limit 33", "pids", [("pids.max", "33")], {"PidsLimit": 33}),
    ("--cpu-shares 99", "cpu", [("cpu.shares", "99")], {"CpuShares": 99}),
    (
        "--cpu-period 20000 --cpu-quota 10000",
        "cpu",
        [("cpu.cfs_period_us", "20000"), ("cpu.cfs_quota_us", "10000")],
        {"CpuPeriod": 20000, "CpuQuota": 10000},
    ),
    ("--cpuset-cpus 0 --cpuset-mems 0", "cpuset", [("cpuset.cpus", "0"), ("cpuset.mems", "0")], {"CpusetCpus": "0"}),
    (
        f"--memory {MEMORY} --memory-swap {2 * MEMORY} --memory-reservation {MEMORY // 2}",
        "memory",
        [("memory.limit_in_bytes", str(MEMORY)), ("memory.soft_limit_in_bytes", str(MEMORY // 2))],
        {"Memory": MEMORY, "MemorySwap": 2 * MEMORY, "MemoryReservation": MEMORY // 2},
    ),
    ("--restart on-failure:2", "pids", [], {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}),
]


@pytest.mark.parametrize("runtime", table.BOTH)
def test_update(runtime: str, put: Callable[..., Any], engine_host: str, docker: Run) -> None:
    """Each limit changes at once in the kernel, is shown by inspect, and holds after a restart."""
    if runtime not in docker(engine_host, "info", "-f", "{{json .Runtimes}}").out:
        pytest.skip(f"this engine has no {runtime}")
    box = put("--runtime", runtime)
    for words, controller, files, shown in UPDATES:
        said = docker(engine_host, "update", *words.split(), box.name)
        assert (said.code, said.out) == (0, f"{box.name}\n"), said.err
        box = box.refresh()
        assert [(file, box.cgroup(controller, file)) for file, _ in files] == files, words
        assert {key: box.shown(f"HostConfig.{key}") for key in shown} == shown
    assert docker(engine_host, "restart", "-t", "0", box.name).code == 0
    box = box.refresh()
    for words, controller, files, _ in UPDATES:
        assert [(file, box.cgroup(controller, file)) for file, _ in files] == files, f"{words} after a restart"
    other = put("--runtime", runtime)
    assert docker(engine_host, "update", "--cpus", "0.5", other.name).code == 0
    assert table.group("cpu", "cpu.cfs_period_us", "cpu.cfs_quota_us")(other) == ("100000", "50000")


def test_update_what_this_kernel_lacks(put: Callable[..., Any], engine_host: str, docker: Run) -> None:
    box = put()
    said = docker(engine_host, "update", "--blkio-weight", "200", box.name)
    if (table.ROOT_GROUP / "blkio/blkio.weight").exists():
        assert box.cgroup("blkio", "blkio.weight") == "200"
    else:
        assert said.code == 0
        assert "does not support Block I/O weight" in said.out + said.err
    for words in (("--cpu-rt-runtime", "1000"), ("--cpu-rt-period", "500000")):
        said = docker(engine_host, "update", *words, box.name)
        assert said.code == 0 or "rt_" in said.err or "real-time" in said.err, said.err
        assert said.code == 0 or box.refresh().shown("HostConfig.CpuRealtimeRuntime") == 0


# --- start, stop, kill, restart, attach


def test_start_attached(engine_host: str, docker: Run) -> None:
    name = view.new_name()
    docker(engine_host, "create", "-i", "--name", name, "busybox", "sh", "-c", "read -r line; echo $line; exit 5")
    try:
        said = docker(engine_host, "start", "-a", "-i", "--detach-keys", "ctrl-x", name, stdin="in\n")
        assert (said.code, said.out) == (5, "in\n")
    finally:
        docker(engine_host, "rm", "-fv", name)


def test_signals(put: Callable[..., Any], engine_host: str, docker: Run) -> None:
    """stop -s -t, kill -s, restart -s -t: what the process is sent, and when it is killed."""
    script = "trap 'echo usr1' USR1; trap 'echo hup; exit 3' HUP; trap '' TERM; echo ready; while :; do sleep 0.1; done"
    box = put(command=("sh", "-c", script))
    with _following(engine_host, box.name) as lines:
        assert lines.readline() == "ready\n"
        docker(engine_host, "kill", "--signal", "USR1", box.name)
        assert lines.readline() == "usr1\n"
        assert docker(engine_host, "restart", "--signal", "HUP", "--timeout", "30", box.name).code == 0
        assert lines.readline() == "hup\n"
    before = box.refresh()
    assert before.shown("State.Running") is True
    began = time.monotonic()
    docker(engine_host, "stop", "-t", "1", box.name)
    assert time.monotonic() - began >= 1
    assert box.refresh().shown("State.ExitCode") == 137
    docker(engine_host, "start", box.name)
    with _following(engine_host, box.name) as lines:
        while lines.readline() != "hup\n":
            pass
        assert lines.readline() == "ready\n"
        docker(engine_host, "stop", "--signal", "HUP", box.name)
    assert box.refresh().shown("State.ExitCode") == 3


class _following:  # noqa: N801 (a context, used like a function)
    """`docker logs -f` of a container, as lines."""

    def __init__(self, host: str, name: str) -> None:
        environment = {**os.environ, "DOCKER_HOST": host}
        self._process = subprocess.Popen(
            ["docker", "logs", "-f", name], stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Any:
        return self._process.stdout

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def test_attach_without_stdin(put: Callable[..., Any], engine_host: str, docker: Run) -> None:
    box = put("-i", command=("sh", "-c", "read -r line; echo got $line"))
    words = ["docker", "attach", "--no-stdin", "--sig-proxy=false", "--detach-keys", "ctrl-x", box.name]
    environment = {**os.environ, "DOCKER_HOST": engine_host}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdin is not None
        process.stdin.write("no\n")
        process.stdin.close()
        said = docker(engine_host, "attach", box.name, stdin="yes\n")
        assert said.out == "got yes\n"
        process.wait(30)


def test_pause(put: Callable[..., Any], engine_host: str, docker: Run) -> None:
    box = put()
    docker(engine_host, "pause", box.name)
    assert box.cgroup("freezer", "freezer.state") == "FROZEN"
    docker(engine_host, "unpause", box.name)
    assert box.cgroup("freezer", "freezer.state") == "THAWED"


SHOWN = {
    "exec": "-d --detach-keys " + " ".join(words for words, _, _ in EXECS),
    "update": "--cpus --blkio-weight --cpu-rt-period --cpu-rt-runtime " + " ".join(words for words, *_ in UPDATES),
    "start": "-a -i --detach-keys",
    "stop": "-t --signal",
    "kill": "--signal",
    "restart": "-t --signal",
    "attach": "--no-stdin --sig-proxy --detach-keys",
}


@pytest.mark.parametrize("command", sorted(SHOWN))
def test_no_flag_is_forgotten(command: str, engine_host: str, docker: Run) -> None:
    known = view.flags_of(docker, engine_host, command)
    assert set(known.values()) - view.used(tuple(SHOWN[command].split()), known) == set()
