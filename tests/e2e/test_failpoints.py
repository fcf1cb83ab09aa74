"""Each step that can fail or be the last one before a crash: a clean error and nothing left, or nothing lost, and the next
try works (aio/failpoints, docs/reliability.md).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tare.testing.audit import findings, until
from tare.testing.daemon import Daemon
from tare.testing.exchange import TAR, Refused, archive_of, tar_of
from tare.testing.registry import Registry, registry

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOURCE = Path(__file__).resolve().parents[2] / "src"
LINES = 6000
PATIENCE_S = 15  # the kernel takes namespaces apart one after the other, those of everybody on the machine
NOBODY = {"X-Registry-Auth": "e30="}


class Bench:
    """An engine with its failpoints, and a registry. `number` makes what each case uses its own."""

    def __init__(self, engine: Daemon, points: Path, server: Registry) -> None:
        self.engine, self.points, self.server = engine, points, server
        self.number = 0

    @property
    def name(self) -> str:
        return f"n{self.number}"

    @property
    def file(self) -> bytes:
        """A tar nobody has seen yet."""
        return tar_of({f"file{self.number}": os.urandom(3000)})

    def has(self, path: str) -> bool:
        return self.engine.request("GET", path)[0] == 200

    def container(self, **changes: Any) -> str:
        body = {
            "Image": "busybox",
            "Cmd": ["sleep", "1000"],
            "Volumes": {"/anonymous": {}},
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {"Binds": [f"vol{self.name}:/d"], "PortBindings": {"80/tcp": [{"HostPort": ""}]}},
        } | changes
        answer = self.engine.call("POST", f"/containers/create?name={self.name}", body)
        return str(json.loads(answer)["Id"])

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.engine.json("GET", f"/containers/{self.name}/json")["State"]
        return found


@dataclass(frozen=True, kw_only=True)
class Operation:
    """prepare: before; act: what is tried, again after a failure; holds: whether it is done."""

    act: Callable[[Bench], object]
    holds: Callable[[Bench], bool]
    prepare: Callable[[Bench], object] = lambda _: None


def create_and_start(bench: Bench) -> None:
    bench.engine.call("POST", f"/containers/{bench.container()}/start")


def build(bench: Bench) -> bytes:
    lines = f"FROM busybox\nCOPY f /f\nRUN echo {bench.name} >/x\n"
    context = tar_of({"Dockerfile": lines.encode(), "f": bench.name.encode()})
    return bench.engine.call("POST", f"/build?t={bench.name}", context, TAR)


def written(bench: Bench) -> list[str]:
    raw = bench.engine.call("GET", f"/containers/{bench.name}/logs?stdout=1&follow=1")
    lines, at = [], 0
    while at < len(raw):  # frames: eight bytes, of which the last four are the length
        length = int.from_bytes(raw[at + 4 : at + 8], "big")
        lines.append(raw[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(lines).decode().split()


def talk(bench: Bench) -> None:
    # It stays for a while before its last word: one that ends within 20 ms is over before its log is looked at.
    script = f"i=0; while [ $i -lt {LINES - 1} ]; do echo $i; i=$((i+1)); done; sleep 0.5; echo $i"
    logs = {"Type": "json-file", "Config": {"max-size": "100k", "max-file": "9"}}
    bench.container(Cmd=["sh", "-c", script], HostConfig={"LogConfig": logs, "NetworkMode": "none"})


def execute(bench: Bench) -> None:
    made = json.loads(bench.engine.call("POST", f"/containers/{bench.name}/exec", {"Cmd": ["touch", "/done"]}))
    bench.engine.call("POST", f"/exec/{made['Id']}/start", {"Detach": True})
    until("its end", lambda: bench.engine.json("GET", f"/exec/{made['Id']}/json")["ExitCode"] == 0)


def has_exited(bench: Bench) -> bool:
    state = bench.state()
    return (state["Status"], state["ExitCode"]) == ("exited", 137)


OPERATIONS = {
    "import": Operation(
        act=lambda b: b.engine.call("POST", f"/images/create?fromSrc=-&repo={b.name}", b.file, TAR),
        holds=lambda b: b.has(f"/images/{b.name}/json"),
    ),
    "load": Operation(
        act=lambda b: b.engine.call("POST", "/images/load", archive_of(f"{b.name}:latest", [b.file, b.file]), TAR),
        holds=lambda b: b.has(f"/images/{b.name}/json"),
    ),
    "pull": Operation(
        prepare=lambda b: b.server.put_image(b.name, "1", [b.file, b.file]),
        act=lambda b: b.engine.call("POST", f"/images/create?fromImage={b.server.host}/{b.name}&tag=1"),
        holds=lambda b: b.has(f"/images/{b.server.host}/{b.name}:1/json"),
    ),
    "push": Operation(
        prepare=lambda b: b.engine.call(
            "POST", f"/images/create?fromSrc=-&repo={b.server.host}/{b.name}&tag=1", b.file, TAR
        ),
        act=lambda b: b.engine.call("POST", f"/images/{b.server.host}/{b.name}/push?tag=1", b"", NOBODY),
        holds=lambda b: (b.name, "1") in b.server.manifests,
    ),
    "commit": Operation(
        prepare=lambda b: (b.container(), b.engine.call("PUT", f"/containers/{b.name}/archive?path=/", b.file, TAR)),
        act=lambda b: b.engine.call("POST", f"/commit?container={b.name}&repo={b.name}"),
        holds=lambda b: b.has(f"/images/{b.name}/json"),
    ),
    "build": Operation(act=build, holds=lambda b: b.has(f"/images/{b.name}/json")),
    "tag": Operation(
        act=lambda b: b.engine.call("POST", f"/images/busybox/tag?repo={b.name}"),
        holds=lambda b: b.has(f"/images/{b.name}/json"),
    ),
    "rmi": Operation(
        prepare=lambda b: b.engine.import_image(f"{b.name}:latest", b.file),
        act=lambda b: b.engine.call("DELETE", f"/images/{b.name}"),
        holds=lambda b: not b.has(f"/images/{b.name}/json"),
    ),
    "volume create": Operation(
        act=lambda b: b.engine.call("POST", "/volumes/create", {"Name": b.name}),
        holds=lambda b: b.has(f"/volumes/{b.name}"),
    ),
    "volume rm": Operation(
        prepare=lambda b: b.engine.call("POST", "/volumes/create", {"Name": b.name}),
        act=lambda b: b.engine.call("DELETE", f"/volumes/{b.name}"),
        holds=lambda b: not b.has(f"/volumes/{b.name}"),
    ),
    "network create": Operation(
        act=lambda b: b.engine.call("POST", "/networks/create", {"Name": b.name}),
        holds=lambda b: b.has(f"/networks/{b.name}"),
    ),
    "network rm": Operation(
        prepare=lambda b: b.engine.call("POST", "/networks/create", {"Name": b.name}),
        act=lambda b: b.engine.call("DELETE", f"/networks/{b.name}"),
        holds=lambda b: not b.has(f"/networks/{b.name}"),
    ),
    "create": Operation(act=Bench.container, holds=lambda b: b.has(f"/containers/{b.name}/json")),
    "start": Operation(
        prepare=Bench.container,
        act=lambda b: b.engine.call("POST", f"/containers/{b.name}/start"),
        holds=lambda b: b.state()["Status"] == "running",
    ),
    "talk": Operation(
        prepare=talk,
        act=lambda b: b.engine.call("POST", f"/containers/{b.name}/start"),
        holds=lambda b: b.state()["StartedAt"] > "2000" and written(b) == [str(n) for n in range(LINES)],
    ),
    "exec": Operation(
        prepare=create_and_start,
        act=execute,
        holds=lambda b: b.engine.request("HEAD", f"/containers/{b.name}/archive?path=/done")[0] == 200,
    ),
    "kill": Operation(
        prepare=create_and_start,
        act=lambda b: b.engine.call("POST", f"/containers/{b.name}/kill"),
        holds=has_exited,
    ),
    "rm": Operation(
        prepare=create_and_start,
        act=lambda b: b.engine.call("DELETE", f"/containers/{b.name}?force=1&v=1"),
        holds=lambda b: not b.has(f"/containers/{b.name}/json"),
    ),
}

DATABASE = (
    "import",
    "tag",
    "rmi",
    "volume create",
    "volume rm",
    "network create",
    "network rm",
    "create",
    "start",
    "kill",
    "rm",
)
CASES: dict[str, tuple[str, ...]] = {
    "blob.written": ("import", "commit"),
    "blob.synced": ("pull",),
    "blob.renamed": ("load", "build"),
    "database.begun": DATABASE,
    "database.written": DATABASE,
    "database.committed": DATABASE,
    "layer.admit": ("import",),
    "layer.admitted": ("load",),
    "layer.staged": ("pull",),
    "layer.forgotten": ("rmi",),
    "blob.forgotten": ("rmi",),
    "snapshot.noted": ("import", "build"),
    "snapshot.renamed": ("pull",),
    "snapshot.prepared": ("create",),
    "snapshot.seal": ("build",),
    "snapshot.mount": ("start",),
    "snapshot.unmount": ("kill", "rm"),
    "snapshot.discard": ("rm", "rmi"),
    "load.spooled": ("load",),
    "image.record": ("load", "pull", "commit", "build"),
    "image.recorded": ("import",),
    "image.tag": ("tag",),
    "image.tagged": ("tag",),
    "pull.manifest": ("pull",),
    "push.blob": ("push",),
    "push.manifest": ("push",),
    "commit.packed": ("commit",),
    "draft.hashed": ("build",),
    "draft.named": ("build",),
    "build.step": ("build",),
    "volume.made": ("volume create", "create"),
    "volume.recorded": ("volume create", "create"),
    "volume.forgotten": ("volume rm", "rm"),
    "volume.discard": ("volume rm",),
    "network.recorded": ("network create",),
    "network.made": ("network create",),
    "network.unmade": ("network rm",),
    "rules.admit": ("network create",),
    "create.files": ("create",),
    "create.recorded": ("create",),
    "start.mounted": ("start",),
    "namespace.make": ("start",),
    "veth.make": ("start",),
    "veth.made": ("start",),
    "ports.change": ("start", "kill"),
    "ports.mapped": ("start",),
    "start.attached": ("start",),
    "start.rendered": ("start",),
    "monitor.started": ("start",),
    "start.created": ("start",),
    "runtime.start": ("start",),
    "start.going": ("start",),
    "start.recorded": ("start",),
    "exec.start": ("exec",),
    "exec.started": ("exec",),
    "log.rotated": ("talk",),
    "exit.seen": ("kill", "rm"),
    "exit.recorded": ("kill", "rm"),
    "release.runtime": ("kill",),
    "cgroup.remove": ("kill",),
    "release.cgroup": ("kill",),
    "release.network": ("kill",),
    "release.mounts": ("kill",),
    "release.bundle": ("kill", "rm"),
    "remove.released": ("rm",),
    "remove.files": ("rm",),
    "remove.volumes": ("rm",),
    "remove.forgotten": ("rm",),
}
IS_LONG = "TARE_TORTURE" in os.environ  # scripts/torture; else some, one for each kind of step
ERRORS = [
    "blob.renamed",
    "database.written",
    "layer.admit",
    "layer.forgotten",
    "snapshot.renamed",
    "snapshot.seal",
    "image.record",
    "volume.made",
    "volume.discard",
    "network.recorded",
    "network.unmade",
    "create.files",
    "snapshot.mount",
    "veth.made",
    "ports.mapped",
    "monitor.started",
    "start.created",
    "runtime.start",
    "exec.started",
    "exit.recorded",
    "snapshot.unmount",
    "cgroup.remove",
    "release.network",
    "remove.files",
]
KILLS = [
    "blob.renamed",
    "database.committed",
    "layer.admitted",
    "snapshot.noted",
    "draft.named",
    "volume.recorded",
    "network.unmade",
    "create.recorded",
    "ports.mapped",
    "start.created",
    "start.going",
    "exec.started",
    "log.rotated",
    "exit.seen",
    "release.mounts",
    "snapshot.discard",
    "remove.volumes",
]
EVERY = [(point, name) for point, names in CASES.items() for name in names]
BY_ERROR = [case for case in EVERY if IS_LONG or case in {(point, CASES[point][0]) for point in ERRORS}]
BY_KILL = [case for case in EVERY if IS_LONG or case in {(point, CASES[point][0]) for point in KILLS}]


def places(*verbs: str) -> set[str]:
    """The names in the source."""
    pattern = re.compile(rf"failpoints\.(?:{'|'.join(verbs)})\(\s*\"([a-z.]+)\"")
    return {name for path in (SOURCE / "tare").rglob("*.py") for name in pattern.findall(path.read_text())}


def test_none_is_forgotten() -> None:
    assert set(CASES) == places("hit", "passed")
    assert set(ERRORS) <= places("hit")
    assert set(KILLS) <= set(CASES)


@pytest.fixture(scope="module")
def bench(scratch: Path, rootfs_tar: bytes) -> Iterator[Bench]:
    points = scratch / "points"
    points.mkdir()
    made = Daemon(
        scratch / "fail",
        bridge=f"tx{os.getpid()}",
        source=SOURCE,
        environment={"TARE_FAILPOINTS": str(points)},
        arguments=["--default-address-pool", "base=10.241.0.0/16,size=24"],  # others may have used up the common ones
    )
    with registry() as server:
        made.start()
        try:
            made.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
            yield Bench(made, points, server)
        finally:
            for left in points.iterdir():
                left.unlink()
            made.destroy()


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every case leaves an engine with one image that finds nothing wrong with itself."""
    yield
    if "bench" not in request.fixturenames:
        return
    bench: Bench = request.getfixturevalue("bench")
    for left in bench.points.iterdir():
        left.unlink()
    if not bench.engine.is_alive():
        bench.engine.start()
    bench.engine.clear()
    for image in bench.engine.json("GET", "/images/json?all=1"):
        if "busybox:latest" not in image["RepoTags"]:
            bench.engine.request("DELETE", f"/images/{image['Id']}?force=1")
        else:
            for name in set(image["RepoTags"]) - {"busybox:latest"}:
                bench.engine.request("DELETE", f"/images/{name}")
    bench.engine.request("POST", "/build/prune?all=1")
    if findings(bench.engine, quick=True, patience_s=0.5):  # a case failed: the next one begins in order
        bench.engine.kill()
        bench.engine.start()


@pytest.mark.parametrize(("point", "operation"), [case for case in BY_ERROR if case[0] in places("hit")])
def test_an_error_is_told_leaves_nothing_and_the_next_try_works(bench: Bench, point: str, operation: str) -> None:
    bench.number += 1
    case = OPERATIONS[operation]
    case.prepare(bench)
    (bench.points / point).write_text("error")
    refusal = ""
    try:
        case.act(bench)
    except Refused as error:
        refusal = str(error)
    until(f"{operation} does not pass {point}", lambda: not (bench.points / point).exists())
    assert "Traceback" not in refusal
    if not refusal:  # it went wrong behind the answer: what was answered holds
        until("what was answered", lambda: case.holds(bench))
    if operation == "rmi" and not refusal:  # files that cannot be deleted now are for the next start, or for this
        assert bench.engine.request("POST", "/tare/v1/check?fix=1&quick=1")[0] == 200
    assert not (found := findings(bench.engine, patience_s=PATIENCE_S)), found
    if refusal and not case.holds(bench):
        case.act(bench)
    assert case.holds(bench)
    assert not (found := findings(bench.engine, quick=True, patience_s=PATIENCE_S)), found


@pytest.mark.parametrize(("point", "operation"), BY_KILL)
def test_after_a_kill_all_that_was_answered_is_there_and_nothing_half(bench: Bench, point: str, operation: str) -> None:
    bench.number += 1
    case = OPERATIONS[operation]
    case.prepare(bench)
    (bench.points / point).write_text("kill")
    was_answered = False
    try:
        case.act(bench)
        was_answered = True
    except (OSError, EOFError):
        pass
    until(f"{operation} does not pass {point}", lambda: not bench.engine.is_alive())
    bench.engine.start()
    assert not (found := findings(bench.engine, patience_s=PATIENCE_S)), found
    if was_answered:
        assert case.holds(bench)
    elif not case.holds(bench):
        case.act(bench)
        assert case.holds(bench)
    assert not (found := findings(bench.engine, quick=True, patience_s=PATIENCE_S)), found


def test_nothing_of_a_container_goes_before_its_removal_is_on_record(bench: Bench) -> None:
    bench.number += 1
    bench.container()
    (bench.points / "database.begun").write_text("delay 1")
    (bench.points / "remove.files").write_text("kill")
    with pytest.raises((OSError, EOFError)):
        bench.engine.call("DELETE", f"/containers/{bench.name}")
    until("it is killed", lambda: not bench.engine.is_alive())
    bench.engine.start()
    assert not (found := findings(bench.engine)), found
    assert not bench.has(f"/containers/{bench.name}/json")
    assert bench.engine.json("GET", "/volumes")["Volumes"]  # nobody asked to remove those


def test_a_step_of_a_build_that_ended_while_nobody_was_there_is_taken_away_at_once(bench: Bench) -> None:
    bench.number += 1
    context = tar_of({"Dockerfile": b"FROM busybox\nRUN sleep 1000\n"})

    def build_it() -> None:
        with contextlib.suppress(OSError, EOFError):
            bench.engine.call("POST", "/build?networkmode=none", context, TAR)

    building = threading.Thread(target=build_it)
    building.start()
    found: list[dict[str, Any]] = []
    until("the step runs", lambda: bool(found.extend(bench.engine.json("GET", "/containers/json")) or found))
    pid = bench.engine.json("GET", f"/containers/{found[0]['Id']}/json")["State"]["Pid"]
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    bench.engine.kill()
    for process in (monitor, pid):
        os.kill(process, signal.SIGKILL)
    until("they are gone", lambda: not any(Path(f"/proc/{process}/exe").exists() for process in (monitor, pid)))
    began = time.monotonic()
    bench.engine.start()
    assert time.monotonic() - began < 8  # it was ten seconds and more: until it had not ended after a SIGKILL
    building.join()
    assert bench.engine.json("GET", "/containers/json?all=1") == []
    assert not (left := findings(bench.engine)), left
