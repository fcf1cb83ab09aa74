"""Every flag of `docker run` and `docker create`, given to the stock command line and looked for in the kernel.

The flags are those that the command line's own help lists: one that nobody has thought of fails the test. What the
kernel has is read from /proc, /sys/fs/cgroup and the bundle; what inspect says is compared beside it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pty
import subprocess
import sys
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

SECCOMP = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("view")
    (found / "env").write_text("FROM_FILE=file\n")
    (found / "labels").write_text("b=2\nc\n")
    (found / "seccomp.json").write_text(json.dumps(SECCOMP))
    return found


@pytest.fixture(scope="module")
def runtimes(engine_host: str, docker: Run) -> set[str]:
    return set(json.loads(docker(engine_host, "info", "-f", "{{json .Runtimes}}").out))


@pytest.fixture(scope="module")
def network(engine_host: str, docker: Run) -> Iterator[str]:
    name = view.new_name()
    words = ("--ipv6", "--subnet", "10.213.7.0/24", "--subnet", "fd5e:7a7e::/64", name)
    made = docker(engine_host, "network", "create", *words)
    assert made.code == 0, made.err
    yield name
    docker(engine_host, "network", "rm", name)


@pytest.fixture(scope="module")
def other(engine_host: str, docker: Run, network: str) -> Iterator[Any]:
    """A container that others join, link to and take volumes from."""
    del network
    name = view.new_name()
    made = docker(
        engine_host, "run", "-d", "--name", name, "--ipc", "shareable", "-v", "/shared", "busybox", "sleep", "1000"
    )
    assert made.code == 0, made.err
    yield view.Box(engine_host, docker, name)
    docker(engine_host, "rm", "-fv", name)


@pytest.fixture
def put(engine_host: str, docker: Run) -> Iterator[Callable[..., Any]]:
    """Start a container with these flags; removed afterwards."""
    names: list[str] = []

    def run(*words: str, command: tuple[str, ...] = ("sleep", "1000"), name: str = "") -> Any:
        name = name or view.new_name()
        names.append(name)
        named = () if "--name" in words else ("--name", name)
        said = docker(engine_host, "run", "-d", *named, *words, "busybox", *command)
        assert said.code == 0, said.err
        return view.Box(engine_host, docker, name, said)

    yield run
    if names:
        docker(engine_host, "rm", "-fv", *names)
        docker(engine_host, "volume", "rm", "-f", *names)  # rows that want a volume with a name give it the container's


def _filled(value: Any, put_in: dict[str, str]) -> Any:
    """With what stands for @WORD@ put in, in strings at any depth."""
    if isinstance(value, str):
        for word, text in put_in.items():
            value = value.replace(f"@{word}@", text)
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(item, put_in) for item in value)
    return {key: _filled(item, put_in) for key, item in value.items()} if isinstance(value, dict) else value


ROWS = [(case, runtime) for case in table.CASES for runtime in case.runtimes]


@pytest.mark.parametrize(
    ("case", "runtime"), ROWS, ids=[f"{' '.join(case.words) or 'nothing'} {runtime}".strip() for case, runtime in ROWS]
)
def test_flag(
    case: Any, runtime: str, put: Callable[..., Any], directory: Path, network: str, other: Any, runtimes: set[str]
) -> None:
    if runtime and runtime not in runtimes:
        pytest.skip(f"this engine has no {runtime}")
    name = view.new_name()
    put_in = {"DIR": str(directory), "NAME": name, "OTHER": other.name, "NET": network}
    chosen = ("--runtime", runtime) if runtime else ()
    box = put(*chosen, *_filled(case.words, put_in), command=case.command, name=name)
    box.other, box.directory = other, str(directory)
    expected = case.expected(box) if callable(case.expected) else _filled(case.expected, put_in)
    assert case.look(box) == expected
    assert {path: box.shown(path) for path in case.said} == _filled(dict(case.said), put_in)
    assert case.warns.lower() in box.said.err.lower()


@pytest.mark.parametrize(("words", "text"), table.REFUSED, ids=[words for words, _ in table.REFUSED])
def test_refused_in_words(words: str, text: str, engine_host: str, docker: Run) -> None:
    rule = words.split()
    name = view.new_name()
    said = docker(engine_host, "run", "--name", name, *rule, "busybox", "true")
    docker(engine_host, "rm", "-fv", name)
    docker(engine_host, "volume", "rm", "-f", "xx")
    assert said.code in (1, 125, 127), said  # docker makes 127 of "no such file"
    assert text in said.err
    assert said.err.strip()


def test_both_command_lines_pull_for_another_platform(engine_host: str, docker: Run, tare: Run) -> None:
    words = ("create", "--platform", "linux/s390x", "busybox")
    ours, theirs = tare(engine_host, *words), docker(engine_host, *words)
    assert ours.code == theirs.code != 0
    assert ours.err.splitlines()[0] == theirs.err.splitlines()[0] == "Unable to find image 'busybox:latest' locally"


@pytest.mark.parametrize("command", ["run", "create"])
def test_no_flag_is_forgotten(command: str, engine_host: str, docker: Run) -> None:
    every = view.flags_of(docker, engine_host, "run")
    listed = view.flags_of(docker, engine_host, command)
    shown: set[str] = set(table.SHOWN_BY_TESTS)
    for case in table.CASES:
        shown |= view.used(case.words, every)
    refused = {flag for words, _ in table.REFUSED for flag in view.used(tuple(words.split()[:1]), every)}
    assert set(listed.values()) - shown - refused == set()
    assert {name for name in table.SHOWN_BY_TESTS.values() if name not in globals()} == set()


# --- flags that need more than a row


def test_created_and_started_is_what_run_makes(
    put: Callable[..., Any], engine_host: str, docker: Run, directory: Path
) -> None:
    words = [
        *("-e", "A=1", "-u", "app", "-w", "/tmp", "--cap-add", "SYS_NICE", "--cap-drop", "MKNOD", "--ulimit", "nofile=100:200"),
        *("--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", "--cpu-shares", "200", "--cpuset-cpus", "0"),
        *("--tmpfs", "/t:size=1m", "-v", f"{directory}:/d:ro", "--sysctl", "net.ipv4.ip_forward=1", "--read-only"),
        *("--security-opt", "no-new-privileges", "--oom-score-adj", "5", "--hostname", "h", "--device", "/dev/loop-control"),
    ]  # fmt: skip
    ran = put(*words)
    name = view.new_name()
    made = docker(engine_host, "create", "--name", name, *words, "busybox", "sleep", "1000")
    assert made.code == 0, made.err
    try:
        assert docker(engine_host, "start", name).out.strip() == name
        created = view.Box(engine_host, docker, name)
        assert _everything(created) == _everything(ran)
    finally:
        docker(engine_host, "rm", "-fv", name)


def _everything(box: Any) -> dict[str, object]:
    status = view.status_lines(box.proc("status"))
    keys = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask")
    files = {
        "memory": ("memory.limit_in_bytes", "memory.swappiness", "memory.oom_control"),
        "cpu": ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
        "cpuset": ("cpuset.cpus", "cpuset.mems"),
        "pids": ("pids.max",),
        "devices": ("devices.list",),
    }
    return {
        "status": {key: status[key] for key in (*keys, "Cpus_allowed_list")},
        "limits": box.proc("limits"),
        "mounts": {target: (m.type, m.propagation) for target, m in box.mounts().items()},
        "environ": box.words("environ"),
        "cmdline": box.words("cmdline"),
        "oom": box.proc("oom_score_adj"),
        "cgroup": {(name, file): box.cgroup(name, file) for name, all_of in files.items() for file in all_of},
        "namespaces": {kind: box.shares(kind) for kind in ("net", "pid", "ipc", "uts", "mnt", "user", "cgroup")},
    }


def test_attach(engine_host: str, docker: Run) -> None:
    words = ("busybox", "sh", "-c", "echo out; echo err >&2; read -r line && echo $line")
    said = docker(engine_host, "run", "--rm", "-a", "stdout", *words)
    assert (said.out, said.err) == ("out\n", "")
    said = docker(engine_host, "run", "--rm", "-a", "stderr", *words)
    assert (said.out, said.err) == ("", "err\n")
    said = docker(engine_host, "run", "--rm", "-i", "-a", "stdin", "-a", "stdout", *words, stdin="in\n")
    assert (said.out, said.err) == ("out\nin\n", "")


def test_cidfile_and_rm(engine_host: str, docker: Run, tmp_path: Path) -> None:
    said = docker(engine_host, "run", "--rm", "--cidfile", str(tmp_path / "id"), "busybox", "cat", "/proc/self/cgroup")
    found = (tmp_path / "id").read_text()
    assert f"/{found}\n" in said.out
    assert docker(engine_host, "inspect", found).code == 1, "--rm has removed it"
    again = docker(engine_host, "run", "--rm", "--cidfile", str(tmp_path / "id"), "busybox", "true")
    assert again.code == 125
    assert "container ID file found" in again.err


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, host: str, *argv: str) -> None:
        self.master, slave = pty.openpty()
        environment = {**os.environ, "DOCKER_HOST": host, "TERM": "xterm"}
        self.process = subprocess.Popen(
            ["docker", *argv], stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)

    def until(self, text: str) -> str:
        """Read until this text has come."""
        seen = ""
        while text not in seen:
            seen += os.read(self.master, 4096).decode()
        return seen

    def end(self) -> int:
        """Its exit code."""
        try:
            return self.process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            os.close(self.master)


@pytest.mark.parametrize(("words", "keys"), [((), "\x10\x11"), (("--detach-keys", "ctrl-x,y"), "\x18y")])
def test_detach_and_its_keys(words: tuple[str, ...], keys: str, engine_host: str, docker: Run) -> None:
    name = view.new_name()
    terminal = Terminal(
        engine_host, "run", "-it", "--name", name, *words, "busybox", "sh", "-c", "echo here; sleep 1000"
    )
    try:
        terminal.until("here")
        os.write(terminal.master, keys.encode())
        assert terminal.end() == 0
        assert Path(f"/proc/{view.Box(engine_host, docker, name).pid}").exists(), "it goes on without us"
    finally:
        docker(engine_host, "rm", "-fv", name)


@pytest.mark.parametrize("proxied", [True, False])
def test_sig_proxy(proxied: bool, engine_host: str, docker: Run) -> None:
    script = "trap 'exit 7' TERM; echo ready; read -r line; exit $line"
    name = view.new_name()
    words = [
        "docker",
        "run",
        "-i",
        "--name",
        name,
        f"--sig-proxy={str(proxied).lower()}",
        "busybox",
        "sh",
        "-c",
        script,
    ]
    pipe = subprocess.PIPE
    environment = {**os.environ, "DOCKER_HOST": engine_host}
    try:
        with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
            process.terminate()
            if not proxied:
                # It went no further than the client: the container still answers what it is told.
                process.stdin.write("9\n")
                process.stdin.close()
            process.wait(30)
        assert docker(engine_host, "wait", name).out == ("7\n" if proxied else "9\n")
    finally:
        docker(engine_host, "rm", "-fv", name)


def test_stop_timeout(put: Callable[..., Any], engine_host: str, docker: Run) -> None:
    box = put("--stop-timeout", "0", command=("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"))
    assert box.shown("Config.StopTimeout") == 0
    docker(engine_host, "stop", box.name)
    assert box.refresh().shown("State.ExitCode") == 137


def test_io_weights(put: Callable[..., Any]) -> None:
    files = [n for n in ("blkio.weight", "blkio.bfq.weight") if (table.ROOT_GROUP / "blkio" / n).exists()]
    box = put("--blkio-weight", "300", *(("--blkio-weight-device", f"{table.DISK}:200") if table.DISK else ()))
    if files:
        assert box.cgroup("blkio", files[0]) == "300"
    else:
        assert "does not support Block I/O weight or" in box.said.err
        assert not table.DISK or "does not support Block I/O weight_device" in box.said.err


def test_realtime(engine_host: str, docker: Run) -> None:
    """A share of real-time needs one in every group above; without, the kernel's word is passed on."""
    name = view.new_name()
    words = ("--cpu-rt-period", "1000000", "--cpu-rt-runtime", "1000")
    said = docker(engine_host, "run", "-d", "--name", name, *words, "busybox", "sleep", "1000")
    try:
        if said.code == 0:
            box = view.Box(engine_host, docker, name)
            assert table.group("cpu", "cpu.rt_period_us", "cpu.rt_runtime_us")(box) == ("1000000", "1000")
        else:
            assert "real-time" in said.err or "rt_runtime" in said.err or "realtime" in said.err
    finally:
        docker(engine_host, "rm", "-fv", name)


def test_health(put: Callable[..., Any], engine_host: str) -> None:
    """Probes run inside, as often as asked; one that takes too long and one that fails are told apart."""
    failing = put(
        *("--health-cmd", "cat /proc/self/status; exit 3", "--health-interval", "50ms", "--health-retries", "2"),
    )
    slow = put(
        *("--health-cmd", "sleep 9", "--health-interval", "1h", "--health-timeout", "100ms"),
        *("--health-start-period", "1m", "--health-start-interval", "50ms"),
    )
    seen: dict[str, str] = {}
    argv = ["docker", "events", "--since", failing.shown("Created"), "--format", "{{.Actor.ID}} {{.Action}}"]
    environment = {**os.environ, "DOCKER_HOST": engine_host}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as events:
        assert events.stdout is not None
        probes = 0
        for line in events.stdout:
            found, _, action = line.strip().partition(" ")
            if action.startswith("health_status"):
                seen[found] = action
            probes += action.startswith("exec_die") and found == slow.inspect["Id"]
            if failing.inspect["Id"] in seen and probes >= 2:
                break
        events.kill()
    assert seen[failing.inspect["Id"]] == "health_status: unhealthy"
    failed, timed = failing.refresh(), slow.refresh()
    log = failed.shown("State.Health.Log")
    assert isinstance(log, list)
    assert log[-1]["ExitCode"] == 3
    assert "Seccomp:\t2" in log[-1]["Output"], "a probe is confined like the container"
    entry = timed.shown("State.Health.Log.0")
    assert isinstance(entry, dict)
    assert entry["ExitCode"] == -1
    assert "exceeded timeout (100ms)" in entry["Output"]
    assert timed.shown("State.Health.Status") == "starting", "failures of the start period do not count"
    assert timed.shown("Config.Healthcheck") == {
        "Test": ["CMD-SHELL", "sleep 9"],
        "Interval": 3_600_000_000_000,
        "Timeout": 100_000_000,
        "StartPeriod": 60_000_000_000,
        "StartInterval": 50_000_000,
    }


def test_api_socket(put: Callable[..., Any]) -> None:
    box = put("--use-api-socket")
    assert box.root("/var/run/docker.sock").is_socket()
