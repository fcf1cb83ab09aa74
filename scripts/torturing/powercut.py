"""The power goes at an instant: whatever was not flushed is gone, in part or whole. See docs/adr/0023-power-cuts-by-recording.md.

One run is recorded: an engine with its data root on ext4, on a loop device, on a file that logs each write and each flush
(`recorder.py`), under clients that note when each of their operations was answered. A cut at the instant t is a disk with
every write before the last flush before t, and of those between that flush and t any part of their 4 KiB pages. For each
cut a new engine is started on such a disk, and has to have what was answered before t, and nothing that is damaged.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import random
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tare.testing.exchange import TAR, Api, Refused, archive_of, tar_of
from tare.testing.registry import Registry, registry
from torturing import recorder
from torturing.engines import Engine, engine

IMAGE = "base:1"
CLIENTS = 3
_PAGE = 4096
_SIZE = 768 * 1024 * 1024
_PATIENCE_S = 30.0


class Disk:
    """ext4 on a loop device on a file that is recorded; mounted at `place` between `attach` and `detach`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.place, self.base, self.log = directory / "mounted", directory / "base", directory / "log"
        self._image, self._fuse = directory / "image", directory / "fuse"
        self._loop = ""
        self._process: subprocess.Popen[bytes] | None = None
        for path in (self.place, self._fuse):
            path.mkdir()
        with self.base.open("wb") as file:
            file.truncate(_SIZE)
        run("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", self.base)
        copy(self.base, self._image)

    def attach(self) -> None:
        """From here on everything is recorded."""
        program: list[str | Path] = [sys.executable, "-IS", recorder.__file__, self._fuse, self._image, self.log]
        self._process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self._loop = run("losetup", "--find", "--show", "--direct-io=on", self._fuse / recorder.FILE)
        assert run("losetup", "-n", "-O", "DIO", "-l", self._loop) == "1", "writes would be cached above the recorder"
        run("mount", "-t", "ext4", self._loop, self.place)

    def detach(self) -> None:
        """The recording is over."""
        if self._process is None:
            return
        for words in (
            ("umount", "-R", self.place), *((("losetup", "-d", self._loop),) if self._loop else ()), ("umount", self._fuse)
        ):  # fmt: skip
            _patiently(*words)
        self._process.wait(_PATIENCE_S)
        self._process = None


def run(*argv: str | Path) -> str:
    """Run a program to its end. Raises AssertionError with its words."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.stderr.strip()}"
    return done.stdout.strip()


def _patiently(*argv: str | Path) -> None:
    """The kernel may still be letting go of a mount."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            run(*argv)
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def copy(source: Path, target: Path) -> None:
    """Holes stay holes."""
    run("cp", "--sparse=always", source, target)


# --- what is done, and what was answered


@dataclass(frozen=True, kw_only=True)
class Act:
    """One operation on a thing: from when to when (ns), and what the thing is afterwards: "" for not there."""

    began: int
    ended: int
    kind: str
    name: str
    value: str


@dataclass
class Recording:
    """What was answered when, and until when it was recorded."""

    acts: list[Act] = field(default_factory=list)
    tried: set[tuple[str, str]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    ended: int = 0

    def expected(self, at: int) -> dict[tuple[str, str], str]:
        """What must be as it was answered before `at`; what somebody was working at then may be either way."""
        known: dict[tuple[str, str], str] = {}
        open_: set[tuple[str, str]] = set()
        for act in sorted(self.acts, key=lambda act: act.ended):
            key = act.kind, act.name
            if act.ended <= at:
                known[key] = act.value
            elif act.began <= at:
                open_.add(key)
        return {key: value for key, value in known.items() if key not in open_}


class _Client:
    def __init__(self, api: Api, server: Registry | None, recording: Recording, number: int, until: float) -> None:
        self.thread = threading.Thread(target=self._run, name=f"client {number}", daemon=True)
        self._api, self._server, self._recording, self._until = api, server, recording, until
        self._random = random.Random(number)
        self._prefix, self._count = f"p{number}", 0
        self._there: dict[str, list[str]] = {"image": [], "container": [], "volume": [], "network": []}

    def _run(self) -> None:
        makers: list[Callable[[], None]] = [
            self._load,
            self._import,
            self._commit,
            self._build,
            self._tag,
            self._create,
        ]
        makers += [self._volume, self._network, self._remove, self._remove]
        makers += [self._pull] if self._server is not None else []
        while time.monotonic() < self._until:
            self._random.shuffle(makers)
            for make in makers:
                try:
                    make()
                except (Refused, OSError, EOFError) as error:
                    self._recording.faults.append(f"while recording: {error}")

    def _note(self, kind: str, name: str, act: Callable[[], object], look: Callable[[], str] = lambda: "there") -> None:
        """Do it and remember when it was answered."""
        began = time.monotonic_ns()
        self._recording.tried.add((kind, name))
        act()
        ended = time.monotonic_ns()
        self._recording.acts.append(Act(began=began, ended=ended, kind=kind, name=name, value=look()))
        self._there[kind].append(name)

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}-{self._count}"

    def _bytes(self) -> bytes:
        some = {
            f"d{n}/f{self._random.random()}": self._random.randbytes(self._random.choice((0, 10, 5000, 60_000)))
            for n in range(12)
        }
        return tar_of(some)

    def _image(self, name: str, act: Callable[[], object]) -> None:
        self._note("image", name, act, lambda: str(self._api.json("GET", f"/images/{name}/json")["Id"]))

    def _load(self) -> None:
        name = f"{self._name()}:1"
        archive = archive_of(name, [self._bytes(), self._bytes()])
        self._image(name, lambda: self._api.call("POST", "/images/load", archive, TAR))

    def _import(self) -> None:
        name, data = self._name(), self._bytes()
        self._image(
            f"{name}:1", lambda: self._api.call("POST", f"/images/create?fromSrc=-&repo={name}&tag=1", data, TAR)
        )

    def _pull(self) -> None:
        assert self._server is not None
        path = self._name()
        self._server.put_image(path, "1", [self._bytes(), self._bytes()])
        name = f"{self._server.host}/{path}"
        self._image(f"{name}:1", lambda: self._api.call("POST", f"/images/create?fromImage={name}&tag=1"))

    def _commit(self) -> None:
        if not self._there["container"]:
            return
        source, name = self._random.choice(self._there["container"]), self._name()
        self._api.call("PUT", f"/containers/{source}/archive?path=/", self._bytes(), TAR)
        self._image(f"{name}:1", lambda: self._api.call("POST", f"/commit?container={source}&repo={name}&tag=1"))

    def _build(self) -> None:
        name = self._name()
        lines = f"FROM {IMAGE}\nCOPY f /f\nRUN echo {name} >/x; mkdir /y; echo {name} >/y/z\nLABEL a={name}\n"
        context = tar_of({"Dockerfile": lines.encode(), "f": self._random.randbytes(30_000)})
        self._image(f"{name}:1", lambda: self._api.call("POST", f"/build?t={name}:1&networkmode=none", context, TAR))

    def _tag(self) -> None:
        name = self._name()
        self._image(f"{name}:1", lambda: self._api.call("POST", f"/images/{IMAGE}/tag?repo={name}&tag=1"))

    def _create(self) -> None:
        name = self._name()
        body = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
        path = f"/containers/{name}/json"
        self._note(
            "container", name, lambda: self._api.call("POST", f"/containers/create?name={name}", body),
            lambda: str(self._api.json("GET", path)["Id"]),
        )  # fmt: skip

    def _volume(self) -> None:
        name = self._name()
        self._note("volume", name, lambda: self._api.call("POST", "/volumes/create", {"Name": name}))

    def _network(self) -> None:
        name = self._name()
        self._note("network", name, lambda: self._api.call("POST", "/networks/create", {"Name": name}))
        self._drop("network")  # few at a time: the host has not so many subnets

    def _remove(self) -> None:
        self._drop(self._random.choice(("image", "container", "volume")))

    def _drop(self, kind: str) -> None:
        names = self._there[kind]
        if len(names) < 2:
            return
        name = names.pop(self._random.randrange(len(names)))
        paths = {"image": "/images/", "container": "/containers/", "volume": "/volumes/", "network": "/networks/"}
        began = time.monotonic_ns()
        self._api.call("DELETE", f"{paths[kind]}{name}")
        ended = time.monotonic_ns()
        self._recording.acts.append(Act(began=began, ended=ended, kind=kind, name=name, value=""))


def record(made: Engine, base: bytes, *, work_s: float, rest_s: float) -> Recording:
    """Let clients work at a started engine, then nobody."""
    recording = Recording()
    made.call("POST", "/images/create?fromSrc=-&repo=base&tag=1", base, TAR)
    with registry() as server:
        until = time.monotonic() + work_s
        clients = [_Client(made, server if made.is_ours else None, recording, n, until) for n in range(CLIENTS)]
        for client in clients:
            client.thread.start()
        for client in clients:
            client.thread.join()
        time.sleep(rest_s)
        recording.ended = time.monotonic_ns()
    return recording


# --- cuts


def choose(recording: Recording, log: Path, count: int, chance: random.Random) -> list[int]:
    """Instants: a third of them anywhere, a third within 20 ms of an answer, a third between a write and its flush."""
    first = min(act.began for act in recording.acts)
    answers = [act.ended for act in recording.acts]
    writes = [
        at for at, offset, _ in recorder.records(log) if offset != recorder.FLUSH and first <= at < recording.ended
    ]
    kinds: list[Callable[[], int]] = [
        lambda: chance.randint(first, recording.ended),
        lambda: chance.choice(answers) + chance.randint(0, 20_000_000),
        lambda: chance.choice(writes),
    ]
    return sorted(kinds[number % len(kinds)]() for number in range(count))


def disks(log: Path, base: Path, cuts: Sequence[int], chance: random.Random, target: Path) -> Iterator[tuple[int, int]]:
    """For each cut, in order, make `target` what a disk may hold then; yields the instant and how many pages were open."""
    stable = target.with_suffix(".stable")
    copy(base, stable)
    pending: list[tuple[int, bytes]] = []
    waiting = list(cuts)
    try:
        with stable.open("r+b", buffering=0) as file:
            for at, offset, data in recorder.records(log):
                while waiting and at > waiting[0]:
                    yield waiting[0], _cut(stable, target, pending, chance)
                    waiting.pop(0)
                if not waiting:
                    return
                if offset == recorder.FLUSH:
                    for place, piece in pending:
                        file.seek(place)
                        file.write(piece)
                    pending.clear()
                else:
                    pending.append((offset, data))
            for at in waiting:
                yield at, _cut(stable, target, pending, chance)
    finally:
        stable.unlink()


def _cut(stable: Path, target: Path, pending: list[tuple[int, bytes]], chance: random.Random) -> int:
    target.unlink(missing_ok=True)  # a file of its own: the kernel may not have let go of the disk before
    copy(stable, target)
    pages = [
        (offset + start, data[start : start + _PAGE])
        for offset, data in pending
        for start in range(0, len(data), _PAGE)
    ]
    share = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    with target.open("r+b", buffering=0) as file:
        for offset, page in pages:
            if chance.random() < share:
                file.seek(offset)
                file.write(page)
    return len(pages)


# --- what is left


def examine(made: Engine, recording: Recording, at: int, chance: random.Random) -> tuple[list[str], list[str]]:
    """(lost, damaged) of an engine that was started on the disk of a cut."""
    known = recording.expected(at)
    lost: list[str] = []
    damaged: list[str] = made.findings()
    there = _there(made)
    for (kind, name), value in known.items():
        found = there.get((kind, name), "")
        if found != value:
            lost.append(f"{kind} {name}: {found or 'nothing'} instead of {value or 'nothing'}")
    strange = there.keys() - recording.tried - {("image", IMAGE)}
    if made.is_ours:  # another one may keep containers of a build that was cut short
        damaged += [f"{kind} {name}: nobody asked for it" for kind, name in strange]
    images = [name for kind, name in there if kind == "image"]
    for name in chance.sample(images, min(4 if made.is_ours else 40, len(images))):  # ours has read every byte above
        damaged += _image_faults(made, name)
    containers = [name for kind, name in there if kind == "container"]
    for name in chance.sample(containers, min(2, len(containers))):
        try:
            made.call("POST", f"/containers/{name}/start")
            made.request("POST", f"/containers/{name}/kill")  # a step of a build may have ended by itself
        except Refused as error:
            damaged.append(f"container {name} does not start: {error}")
    return lost, damaged


def _there(api: Api) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for image in api.json("GET", "/images/json"):
        for tag in image["RepoTags"] or ():
            if tag != "<none>:<none>":
                found["image", tag] = image["Id"]
    for container in api.json("GET", "/containers/json?all=1"):
        for name in container["Names"]:
            found["container", name.removeprefix("/")] = container["Id"]
    for volume in api.json("GET", "/volumes")["Volumes"] or ():
        found["volume", volume["Name"]] = "there"
    for network in api.json("GET", "/networks"):
        if network["Name"] not in ("bridge", "host", "none"):
            found["network", network["Name"]] = "there"
    return found


def _image_faults(api: Api, name: str) -> list[str]:
    """Whether `docker save` still gives every layer of it, byte for byte."""
    status, body = api.request("GET", f"/images/{name}/get")
    if status != 200:
        return [f"image {name} cannot be saved: {body[:200]!r}"]
    try:
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            files = {member.name: member for member in tar}

            def read(path: str) -> bytes:
                file = tar.extractfile(files[path])
                assert file is not None
                return file.read()

            entry = json.loads(read("manifest.json"))[0]
            wanted = json.loads(read(entry["Config"]))["rootfs"].get("diff_ids") or []
            found = [_plain_digest(read(layer)) for layer in entry["Layers"]]
    except (tarfile.TarError, KeyError, ValueError, OSError) as error:
        return [f"image {name} cannot be saved: {error!r}"]
    return [] if found == wanted else [f"image {name} is damaged: {found} instead of {wanted}"]


def _plain_digest(layer: bytes) -> str:
    return "sha256:" + hashlib.sha256(gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer).hexdigest()


@dataclass
class Outcome:
    """lost, damaged, refused: one line each. acts: operations that were answered in the run that was recorded."""

    acts: int = 0
    cuts: int = 0
    open_cuts: int = 0
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """All of them."""
        return [*self.lost, *self.damaged, *self.refused]

    def row(self) -> str:
        """For people."""
        return (
            f"{self.cuts} cuts ({self.open_cuts} with writes in flight) of a run with {self.acts} operations:"
            f" {len(self.lost)} lost, {len(self.damaged)} damaged, {len(self.refused)} starts refused"
        )


def torture(
    directory: Path,
    base: bytes,
    *,
    command: str = "",
    cuts: int,
    work_s: float,
    rest_s: float,
    seed: int,
    limit_s: float = math.inf,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Record one run in `directory` (made and removed), cut it, look. base: the tar of a root file system.

    limit_s: no cut is looked at later; the last instants are left out then.
    """
    began = time.monotonic()
    chance = random.Random(seed)
    disk = Disk(directory)
    outcome = Outcome()
    try:
        disk.attach()
        made = engine(directory / "e", command, data=disk.place / "data")
        try:
            made.start()
            recording = record(made, base, work_s=work_s, rest_s=rest_s)
        finally:
            made.destroy()
            disk.detach()
        outcome.acts = len(recording.acts)
        outcome.refused += recording.faults
        target, place = directory / "cut", directory / "after"
        place.mkdir()
        for at, pages in disks(disk.log, disk.base, choose(recording, disk.log, cuts, chance), chance, target):
            if time.monotonic() - began > limit_s:
                break
            outcome.cuts += 1
            outcome.open_cuts += pages > 0
            run("mount", "-t", "ext4", "-o", "loop", target, place)
            after = engine(directory / "a", command, data=place / "data")
            try:
                after.start()
                lost, damaged = examine(after, recording, at, chance)
            except (AssertionError, OSError, EOFError) as error:
                outcome.refused.append(f"cut {outcome.cuts}: {error!r:.1500}")
                tell(f"cut {outcome.cuts}: {error!r:.1500}")
                tell((after.directory / "log").read_text(errors="replace")[-3000:])
            else:
                outcome.lost += [f"cut {outcome.cuts}: {line}" for line in lost]
                outcome.damaged += [f"cut {outcome.cuts}: {line}" for line in damaged]
                if lost or damaged:
                    tell(f"cut {outcome.cuts}, {pages} pages open: {[*lost, *damaged][:3]}")
                    tell((after.directory / "log").read_text(errors="replace")[-3000:])
            finally:
                after.forget()
                _patiently("umount", "-R", place)
    finally:
        disk.detach()
        shutil.rmtree(directory)
    return outcome
