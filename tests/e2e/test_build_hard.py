"""Builds that go wrong in the worst way: they fork for ever, fill the disk, are left at every kind of step.

Exercises engine/builds: after each the engine finds nothing wrong with itself, and no process, control group, mount,
container, layer or file of the build is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tare.testing import footprint
from tare.testing.audit import findings, until
from tare.testing.daemon import Daemon
from tare.testing.exchange import tar_of

REPOSITORY = Path(__file__).resolve().parents[2]
TAR = {"Content-Type": "application/x-tar"}
ROOM = 48 * 1024 * 1024
PLACES = ("blobs/sha256", "snapshots", "downloads", "containers", "buildcache")
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine of its own: what builds leave is counted."""
    engine = Daemon(scratch / "hard", bridge="ttbhd0", source=REPOSITORY / "src")
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


@pytest.fixture
def small(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine with 48 MiB for everything."""
    made = Daemon(scratch / "narrow", bridge="ttbhd1", source=REPOSITORY / "src")
    made.data_root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", made.data_root], check=True)
    try:
        made.start()
        made.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield made
        made.clear()
        made.stop()
    finally:
        made.kill()
        subprocess.run(["umount", "-l", made.data_root], check=True)
    made.destroy()


class Left:
    """What an engine and the host have, to be the same after a build that came to nothing."""

    def __init__(self, engine: Daemon) -> None:
        self._engine = engine
        engine.json("POST", "/build/prune?all=1")
        until("earlier work ends", lambda: not self._take()["at work"])
        self._before = self._take()

    def _take(self) -> dict[str, list[str]]:
        engine = self._engine
        host = footprint.take()
        own = str(engine.directory)
        return {
            "containers": [found["Id"] for found in engine.json("GET", "/containers/json?all=1")],
            "images": sorted(found["Id"] for found in engine.json("GET", "/images/json?all=1")),
            "files": sorted(f"{place}/{name}" for place in PLACES for name in self._listed(place)),
            "at work": [*self._listed("builds"), *self._listed("ingest"), *self._listed("trash")],
            "exec root": sorted(os.listdir(engine.exec_root / "builds")) if self._has_builds() else [],
            "processes": sorted(line for line in host.processes if own in line and "tare.daemon" not in line),
            "mounts": sorted(place for place in host.mounts if place.startswith(own)),
            "memory": sorted(found["ID"] for found in engine.json("GET", "/system/df")["BuildCache"] or []),
        }

    def _has_builds(self) -> bool:
        return (self._engine.exec_root / "builds").is_dir()

    def _listed(self, place: str) -> list[str]:
        directory = self._engine.data_root / place
        return sorted(os.listdir(directory)) if directory.is_dir() else []

    def check(self, *, cached: bool = False) -> None:
        """Wait until all is as it was. cached: steps that were done before the end are remembered, with their layers."""
        passed = {"files", "memory"} if cached else set()
        found: dict[str, list[str]] = {}

        def same() -> bool:
            found.update(self._take())
            return all(found[name] == value for name, value in self._before.items() if name not in passed)

        try:
            until("something is left", same, patience_s=30)
        except AssertionError:
            assert {k: v for k, v in found.items() if k not in passed} == {
                k: v for k, v in self._before.items() if k not in passed
            }
        assert not (wrong := findings(self._engine)), wrong


class Asked:
    """A build whose answer is read as it comes, over a connection that can be left."""

    def __init__(self, engine: Daemon, files: dict[str, bytes], *, send: float = 1.0, **query: str | int) -> None:
        """send: the part of the context that is sent."""
        body = tar_of(files)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(engine.socket))
        head = (
            f"POST /v1.51/build?{urlencode(query)} HTTP/1.1\r\nHost: x\r\n"
            f"Content-Type: application/x-tar\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body[: int(len(body) * send)])
        self.text = b""

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def wait(self, text: bytes, times: int = 1) -> None:
        """Read until the text has come so many times."""
        while self.text.count(text) < times:
            self.read()

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def read(self) -> None:
        """Read what has come."""
        data = self._socket.recv(65536)
        assert data, self.text.decode()
        self.text += data

    def leave(self) -> None:
        """End as a client that is killed does."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> bytes:
        """Read to the end of the answer."""
        self.wait(b"\r\n0\r\n\r\n")
        return self.text


def built(engine: Daemon, files: dict[str, bytes], **query: str | int) -> list[dict[str, object]]:
    _, body = engine.request("POST", f"/v1.51/build?{urlencode(query)}", body=tar_of(files), headers=TAR)
    return [json.loads(line) for line in body.splitlines() if line.strip()]


def text_of(messages: list[dict[str, object]]) -> str:
    return "".join(str(message.get("stream", "")) for message in messages)


def error_of(messages: list[dict[str, object]]) -> str:
    return str(messages[-1].get("error", ""))


def still_builds(engine: Daemon) -> None:
    """The engine answers, and the next build works."""
    said = built(engine, {"Dockerfile": b"FROM busybox\nRUN echo goes on\n"}, nocache=1, outputs='[{"Type":"tar"}]')
    assert "goes on\n" in text_of(said), said
    image = next(message["aux"]["ID"] for message in said if "aux" in message)  # type: ignore[index]
    status, _ = engine.request("GET", f"/tare/v1/builds/{image}/result?type=tar&last=1")
    assert status == 200


# -- a step that forks for ever


BOMB = b"FROM busybox\nRUN mkfifo /f; b() { sleep 1000 & b & b & wait; }; b & until read x < /f; do :; done\n"
"""The first process forks no more and so outlives the limit; a child that ends interrupts it while it opens the FIFO."""


def test_a_step_that_forks_for_ever_meets_the_limit_of_the_request(own: Daemon) -> None:
    left = Left(own)
    said = built(own, {"Dockerfile": b"FROM busybox\nRUN b() { b | b & wait; }; b; echo $?; exit 9\n"}, pidslimit=50)
    assert "can't fork" in text_of(said), said
    assert "returned a non-zero code" in error_of(said)
    left.check()


def test_a_step_that_forks_for_ever_is_ended_with_its_build(own: Daemon) -> None:
    left = Left(own)
    with Asked(own, {"Dockerfile": BOMB}, pidslimit=100) as asked:
        asked.wait(b"can't fork")
        until("its start is known", lambda: bool(own.json("GET", "/containers/json")))
        [container] = own.json("GET", "/containers/json")
        assert own.json("GET", f"/containers/{container['Id']}/json")["HostConfig"]["PidsLimit"] == 100
        top = f"/containers/{container['Id']}/top"
        until("it is as many as it may", lambda: len(own.json("GET", top)["Processes"]) > 50)
    left.check()
    still_builds(own)


def test_a_step_has_a_limit_that_nobody_asked_for(own: Daemon) -> None:
    numbers = int(Path("/proc/sys/kernel/pid_max").read_text())
    for asked, expected in (({}, min(numbers * 15 // 100, 16384)), ({"pidslimit": -1}, None)):
        with Asked(own, {"Dockerfile": b"FROM busybox\nRUN sleep 1000\n"}, **asked) as build:
            build.wait(b"Running in")
            [container] = own.json("GET", "/containers/json?all=1")
            assert own.json("GET", f"/containers/{container['Id']}/json")["HostConfig"]["PidsLimit"] == expected
        until("the step is gone", lambda: not own.json("GET", "/containers/json?all=1"))


# -- a full disk


def test_a_step_that_fills_the_disk_fails_and_gives_the_space_back(small: Daemon) -> None:
    left = Left(small)
    said = built(small, {"Dockerfile": b"FROM busybox\nRUN cat /dev/zero > /x\n"})
    assert "No space left on device" in text_of(said), said
    assert error_of(said) == "The command '/bin/sh -c cat /dev/zero > /x' returned a non-zero code: 1"
    left.check()
    still_builds(small)


@pytest.mark.parametrize(
    ("dockerfile", "query"),
    [
        ("FROM busybox\nCOPY big /a\nCOPY big /b\n", {}),
        ("FROM busybox\nADD big /a\nADD --chmod=600 big /b\n", {}),
        ("FROM busybox\nRUN head -c 26000000 /dev/urandom > /x\n", {}),
        ("FROM busybox\nRUN head -c 12000000 /dev/urandom > /x\nRUN head -c 12000000 /dev/urandom > /y\n", {"squash": 1}),
    ],
)  # fmt: skip
def test_a_layer_that_does_not_fit_is_told_and_the_next_build_works(
    small: Daemon, dockerfile: str, query: dict[str, int]
) -> None:
    left = Left(small)
    big = random.Random(1).randbytes(16_000_000)
    said = built(small, {"Dockerfile": dockerfile.encode(), "big": big if "big" in dockerfile else b""}, **query)
    assert "no space left on device" in error_of(said).lower(), said
    left.check(cached=True)
    small.json("POST", "/build/prune?all=1")
    left.check()
    still_builds(small)


def test_a_context_that_does_not_fit_is_refused(small: Daemon) -> None:
    left = Left(small)
    files = {"Dockerfile": b"FROM busybox\n", "big": random.Random(1).randbytes(ROOM)}
    status, body = small.request("POST", "/v1.51/build", body=tar_of(files), headers=TAR)
    assert b"no space left on device" in body.lower(), body
    assert status >= 400
    left.check()
    still_builds(small)


# -- left at every kind of step


def many(number: int) -> dict[str, bytes]:
    """That many small files, of which no two are the same."""
    return {f"d/{name % 50}/{name}": b"%d\n" % name for name in range(number)}


def test_left_while_the_context_is_sent(own: Daemon) -> None:
    left = Left(own)
    with Asked(own, {"Dockerfile": b"FROM busybox\n", "big": random.Random(2).randbytes(9_000_000)}, send=0.5):
        until("the context is taken in", lambda: any(os.scandir(own.data_root / "builds")))
    left.check()


CANCELLED: dict[str, tuple[bytes, dict[str, bytes], bytes, int]] = {
    "the first COPY of many files": (b"FROM busybox\nCOPY . /many\n", many(20_000), b"Step 2/2", 1),
    "COPY of many files into another stage": (
        b"FROM scratch AS a\nCOPY . /\nFROM busybox\nCOPY --from=a --chown=7 / /m\n", many(10_000), b"Step 4/4", 1,
    ),
    "ADD of an archive": (
        b"FROM busybox\nADD a.tar /\n", {"a.tar": tar_of(many(20_000))}, b"Step 2/2", 1,
    ),
    "RUN": (b"FROM busybox\nRUN echo here; sleep 1000\n", {}, b"here\\n", 1),
    "RUN with mounts": (
        b"FROM busybox\nRUN --mount=target=/c --mount=type=tmpfs,target=/t echo here; sleep 1000\n",
        many(100), b"here\\n", 1,
    ),
    "parallel stages": (
        b"FROM busybox AS a\nRUN echo here; sleep 1000\nFROM busybox AS b\nRUN echo here; sleep 1001\n"
        b"FROM busybox\nCOPY --from=a / /a\nCOPY --from=b / /b\n", {}, b"here\\n", 2,
    ),
    "the layer of a RUN": (
        b"FROM busybox\nRUN head -c 60000000 /dev/urandom > /x\nLABEL a=b\n", {}, b"Removed intermediate", 1,
    ),
}  # fmt: skip


def test_left_while_a_step_starts(scratch: Path, rootfs_tar: bytes) -> None:
    """Its program runs already, and nobody has written that down yet."""
    points = scratch / "half-points"
    points.mkdir()
    engine = Daemon(
        scratch / "half", bridge="ttbhd2", source=REPOSITORY / "src", environment={"TARE_FAILPOINTS": str(points)}
    )
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        left = Left(engine)
        (points / "start.going").write_text("delay 0.5")
        with Asked(engine, {"Dockerfile": b"FROM busybox\nRUN sleep 1000\n"}):
            until("it starts", lambda: not (points / "start.going").exists())
            (points / "database.begun").write_text("delay 1")  # the record of it takes its time
        left.check(cached=True)
    finally:
        engine.destroy()


@pytest.mark.parametrize("kind", CANCELLED)
def test_left_at_a_step(own: Daemon, kind: str) -> None:
    dockerfile, files, text, times = CANCELLED[kind]
    left = Left(own)
    with Asked(own, {"Dockerfile": dockerfile, **files}) as asked:
        asked.wait(text, times)
        assert b"Successfully built" not in asked.text
    left.check(cached=True)
    own.json("POST", "/build/prune?all=1")
    left.check()


@pytest.mark.parametrize("query", [{"squash": 1, "t": "never"}, {"provenance": "max", "t": "never"}, {}])
def test_left_while_the_image_is_made(own: Daemon, query: dict[str, str | int]) -> None:
    """By id, with `POST /build/cancel`: the build may be at any point between its last step and its end."""
    left = Left(own)
    text = b"FROM busybox\nRUN head -c 30000000 /dev/urandom > /x\nRUN head -c 30000000 /dev/urandom > /y\n"
    with Asked(own, {"Dockerfile": text}, buildid="me", **query) as asked:
        asked.wait(b"Removed intermediate", 2)
        own.request("POST", "/build/cancel?id=me")
        said = asked.end()
    if b"build cancelled" not in said:  # the machine was busy with something else: it was done before
        assert b"Successfully built" in said, said.decode()
        image = said.partition(b'"ID":"')[2][:71].decode()
        own.json("GET", f"/images/{image}/json")
        own.request("DELETE", f"/images/{image}?force=1")
    left.check(cached=True)
    own.json("POST", "/build/prune?all=1")
    left.check()


@pytest.mark.parametrize("kind", ["tar", "local", "oci", "docker"])
def test_left_while_the_result_is_read(own: Daemon, kind: str) -> None:
    left = Left(own)
    files = {"Dockerfile": b"FROM busybox\nCOPY big /\n", "big": random.Random(3).randbytes(30_000_000)}
    said = built(own, files, outputs=json.dumps([{"Type": kind}]))
    image = next(message["aux"]["ID"] for message in said if "aux" in message)  # type: ignore[index]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(own.socket))
        path = f"/tare/v1/builds/{image}/result?type={kind}&last=1"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    left.check(cached=True)
    own.json("POST", "/build/prune?all=1")
    left.check()


@contextlib.contextmanager
def dammed(engine: Daemon, place: Path, *, after: int = 4_000_000) -> Iterator[str]:
    """An address of the engine where an answer stops after so many bytes: whoever reads a longer one is not done."""
    opened: list[socket.socket] = []
    over = threading.Event()

    def pass_on(source: socket.socket, sink: socket.socket, limit: float) -> None:
        with contextlib.suppress(OSError):
            while limit > 0 and (data := source.recv(65536)):
                sink.sendall(data)
                limit -= len(data)
            if limit <= 0:
                over.wait()
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.socket(socket.AF_UNIX)
                opened.extend((client, server))
                server.connect(str(engine.socket))
                threading.Thread(target=pass_on, args=(client, server, float("inf")), daemon=True).start()
                threading.Thread(target=pass_on, args=(server, client, after), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"unix://{place}"
        finally:
            over.set()
            for end in (listener, *opened):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


@pytest.mark.parametrize("output", ["type=tar,dest={0}/out", "{0}/out", "type=oci,dest={0}/out"])
def test_the_command_line_interrupted_while_it_writes_the_result(own: Daemon, tmp_path: Path, output: str) -> None:
    left = Left(own)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/Dockerfile").write_text("FROM busybox\nRUN head -c 30000000 /dev/urandom > /x\nCOPY . /\n")
    where = output.format(tmp_path)
    with dammed(own, tmp_path / "s") as host:
        process = subprocess.Popen(
            [sys.executable, "-m", "tare.cli", "-H", host, "build", "-o", where, tmp_path / "c"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "DOCKER_CONFIG": "/nonexistent"},
        )  # fmt: skip
        until("the result is written", lambda: any(tmp_path.glob("out*")), patience_s=60)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert not [path for path in tmp_path.glob("out*") if path.is_file()]
    left.check(cached=True)
    own.json("POST", "/build/prune?all=1")
    left.check()


# -- the same step at the same time


def step_once(number: int) -> bytes:
    """Counts how often it was done, and ends when the test lets it."""
    return (
        f"FROM busybox\nRUN --mount=type=cache,id=once{number},target=/c echo x >> /c/count; echo begun; "
        "until [ -e /c/go ]; do sleep 0.05; done; echo done > /done\n"
    ).encode()


def cache_of(engine: Daemon) -> Path:
    [directory] = (engine.data_root / "buildcache").iterdir()
    return directory


def test_two_builds_of_the_same_step_do_it_once(own: Daemon) -> None:
    own.json("POST", "/build/prune?all=1")
    files = {"Dockerfile": step_once(1)}
    with Asked(own, files) as first, Asked(own, files) as second:
        first.wait(b"Step 2/2")
        second.wait(b"Step 2/2")
        until("one of them is at it", lambda: any((own.data_root / "buildcache").glob("*/count")))
        (cache_of(own) / "go").touch()
        said = [first.end(), second.end()]
    assert (cache_of(own) / "count").read_text() == "x\n"
    assert sorted(text.count(b"Using cache") for text in said) == [0, 1]
    [one, other] = [text.partition(b'"ID":"')[2][:71] for text in said]
    assert one == other != b""
    own.request("DELETE", f"/images/{one.decode()}?force=1")


def test_who_waits_for_a_step_does_it_when_the_other_leaves(own: Daemon) -> None:
    left = Left(own)
    files = {"Dockerfile": step_once(2)}
    with Asked(own, files) as second, Asked(own, files) as first:
        for asked in (first, second):
            asked.wait(b"Step 2/2")
        until("one of them is at it", lambda: any((own.data_root / "buildcache").glob("*/count")))
        while not (found := [asked for asked in (first, second) if b"begun\\n" in asked.text]):
            for asked in select.select([first, second], [], [], 60)[0]:
                asked.read()
        [doing] = found
        waiting = second if doing is first else first
        doing.leave()
        waiting.wait(b"begun\\n")
        (cache_of(own) / "go").touch()
        assert b"Successfully built" in waiting.end()
        image = waiting.text.partition(b'"ID":"')[2][:71].decode()
    assert (cache_of(own) / "count").read_text() == "x\nx\n"
    own.request("DELETE", f"/images/{image}?force=1")
    own.json("POST", "/build/prune?all=1")
    left.check()


def test_many_builds_left_at_any_moment_leave_nothing(own: Daemon) -> None:
    """Each at another message: whatever the engine does then, it undoes."""
    left = Left(own)
    text = (
        b"FROM busybox AS a\nRUN echo 1 > /1\nCOPY d /d\nFROM busybox\nWORKDIR /w\nCOPY --from=a /d /d\n"
        b"RUN --mount=from=a,target=/a ls /a > /2\nRUN echo 3 > /3\n"
    )
    files = {"Dockerfile": text, **many(300)}
    for number in range(1, 30):
        with Asked(own, files, nocache=1) as asked, contextlib.suppress(AssertionError):  # it ended before
            asked.wait(b"\r\n", number)
    left.check(cached=True)
    own.json("POST", "/build/prune?all=1")
    for image in own.json("GET", "/images/json?all=1"):
        if not image["RepoTags"]:
            own.request("DELETE", f"/images/{image['Id']}?force=1")
    own.json("POST", "/build/prune?all=1")
    left.check()
