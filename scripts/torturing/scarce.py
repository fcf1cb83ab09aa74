"""What an engine needs is used up: the disk's bytes, its inodes, descriptors, memory. See docs/reliability.md.

It must go on to list, inspect, start, stop and remove, also when it is killed and started again in the middle; what it
refuses it refuses in words and leaves nothing of; when there is room again, all is as before.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tare.store.reserve import PIECES, Reserve
from tare.testing.audit import until
from tare.testing.exchange import TAR, Refused, archive_of, tar_of
from torturing.engines import Engine

IMAGE = "base:1"
_SIZE = 160 * 1024 * 1024
_INODES = 2048
ROUNDS = 4  # containers that only come to their end, or begin, while nothing is left


@contextlib.contextmanager
def small_disk(directory: Path, *, inodes: int = 0) -> Iterator[Path]:
    """A mounted ext4 of 160 MiB. inodes: how many it has; 0 for as many as usual."""
    directory.mkdir(parents=True)
    image, place = directory / "image", directory / "disk"
    with image.open("wb") as file:
        file.truncate(_SIZE)
    few = ["-N", str(inodes)] if inodes else []
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", *few, str(image)], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        until("nobody is on the disk", lambda: subprocess.run(["umount", place], capture_output=True).returncode == 0)
        image.unlink()
        place.rmdir()
        directory.rmdir()


def use_up_bytes(place: Path) -> None:
    """To the last block."""
    with (place / "ballast").open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            piece = b"\xff" * size
            with contextlib.suppress(OSError):
                while True:
                    file.write(piece)


def use_up_inodes(place: Path) -> None:
    """To the last one."""
    directory = place / "many"
    directory.mkdir(exist_ok=True)
    number = len(os.listdir(directory))
    with contextlib.suppress(OSError):
        while True:
            (directory / str(number)).touch()
            number += 1


def give_back(place: Path) -> None:
    """What the two above took."""
    (place / "ballast").unlink(missing_ok=True)
    if (place / "many").exists():
        for entry in (place / "many").iterdir():
            entry.unlink()
        (place / "many").rmdir()


@dataclass
class Outcome:
    """done, refused: operations; faults: one line each, none if all is well."""

    done: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)
    start_s: float = 0.0

    def must(self, what: str, act: Callable[[], object]) -> None:
        """It has to work."""
        try:
            act()
            self.done += 1
        except (Refused, AssertionError, OSError, EOFError) as error:
            self.faults.append(f"{what}: {str(error) or repr(error)}")

    def may(self, what: str, act: Callable[[], object], *, words: tuple[str, ...]) -> None:
        """It works, or says why not in one of these words."""
        try:
            act()
            self.done += 1
        except Refused as error:
            self.refused += 1
            if not any(word in str(error).lower() for word in words):
                self.faults.append(f"{what} was refused without a word of the cause: {error}")
        except (AssertionError, OSError, EOFError) as error:
            self.faults.append(f"{what}: {str(error) or repr(error)}")

    def row(self) -> str:
        """For people."""
        start = f", started again after {self.start_s * 1000:.0f} ms" if self.start_s else ""
        return f"{self.done} operations done, {self.refused} refused in words{start}, {len(self.faults)} faults"


_BODY = {"Image": IMAGE, "Cmd": ["sleep", "100000"], "HostConfig": {"Binds": ["/anonymous"]}}


def furnish(engine: Engine, base: bytes) -> None:
    """What is there before anything is short: an image, containers (r runs, c was created, x has ended), spare things."""
    engine.import_image(IMAGE, base, changes=['CMD ["sh"]'])
    engine.import_image("spare:1", tar_of({"f": os.urandom(3000)}))
    for number in range(ROUNDS):
        for kind in "rcx":
            engine.call("POST", f"/containers/create?name={kind}{number}", _BODY)
        for kind in "rx":
            engine.call("POST", f"/containers/{kind}{number}/start")
        engine.call("POST", f"/containers/x{number}/kill")
        engine.call("POST", f"/containers/x{number}/wait")
        engine.call("POST", "/volumes/create", {"Name": f"v{number}"})
    engine.call("POST", "/networks/create", {"Name": "spare"})


def go_on(engine: Engine, outcome: Outcome, number: int) -> None:
    """What must work without anything to spare, once."""
    outcome.must("list", lambda: engine.json("GET", "/containers/json?all=1"))
    outcome.must("inspect", lambda: engine.json("GET", f"/containers/r{number}/json"))
    outcome.must("images", lambda: engine.json("GET", "/images/json"))
    outcome.must("logs", lambda: engine.call("GET", f"/containers/r{number}/logs?stdout=1"))
    outcome.must("info", lambda: engine.json("GET", "/info"))
    outcome.must("start", lambda: engine.call("POST", f"/containers/c{number}/start"))
    outcome.must("start again", lambda: engine.call("POST", f"/containers/x{number}/start"))
    outcome.must("stop", lambda: engine.call("POST", f"/containers/r{number}/stop?t=0"))
    outcome.must("remove", lambda: engine.call("DELETE", f"/containers/r{number}?v=1"))
    outcome.must("remove by force", lambda: engine.call("DELETE", f"/containers/c{number}?force=1&v=1"))
    outcome.must("remove a volume", lambda: engine.call("DELETE", f"/volumes/v{number}"))


def try_in_vain(engine: Engine, outcome: Outcome, round_: int, *, words: tuple[str, ...]) -> None:
    """What needs room, once; nothing that was refused may be there."""
    layer = tar_of({"big": os.urandom(8 << 20), **{str(n): b"x" for n in range(100)}})
    context = tar_of({"Dockerfile": f"FROM {IMAGE}\nCOPY f /f\nRUN touch /x\n".encode(), "f": os.urandom(1 << 20)})
    had = _names(engine)
    refused = outcome.refused
    operations: dict[str, Callable[[], object]] = {
        "import": lambda: engine.call("POST", f"/images/create?fromSrc=-&repo=n-import{round_}", layer, TAR),
        "load": lambda: engine.call("POST", "/images/load", archive_of(f"n-load{round_}:1", [layer]), TAR),
        "commit": lambda: engine.call("POST", f"/commit?container=x0&repo=n-commit{round_}"),
        "build": lambda: engine.call("POST", f"/build?t=n-build{round_}", context, TAR),
        "tag": lambda: engine.call("POST", f"/images/{IMAGE}/tag?repo=n-tag{round_}"),
        "create": lambda: engine.call("POST", f"/containers/create?name=n-create{round_}", _BODY),
        "create a volume": lambda: engine.call("POST", "/volumes/create", {"Name": f"n-volume{round_}"}),
        "create a network": lambda: engine.call("POST", "/networks/create", {"Name": f"n-network{round_}"}),
        "copy": lambda: engine.call("PUT", "/containers/x0/archive?path=/", layer, TAR),
    }
    for what, act in operations.items():
        before, refused = _names(engine), outcome.refused
        outcome.may(what, act, words=words)
        if outcome.refused > refused and (left := _names(engine) - before):
            outcome.faults.append(f"{what} was refused and left {sorted(left)}")
    for name in sorted(_names(engine) - had):
        if "n-" not in name:
            continue  # an anonymous volume, which goes with its container
        kind, _, rest = name.partition(" ")
        path = {"image": f"/images/{rest}", "container": f"/containers/{rest}?v=1"}.get(kind, f"/{kind}s/{rest}")
        outcome.must(f"remove {name}", lambda path=path: engine.call("DELETE", path))


def _names(engine: Engine) -> set[str]:
    found = {f"container {c['Names'][0][1:]}" for c in engine.json("GET", "/containers/json?all=1")}
    found |= {f"image {tag}" for image in engine.json("GET", "/images/json") for tag in image["RepoTags"] or ()}
    found |= {f"volume {volume['Name']}" for volume in engine.json("GET", "/volumes")["Volumes"] or ()}
    return found | {f"network {network['Name']}" for network in engine.json("GET", "/networks")}


def disk(engine: Engine, place: Path, base: bytes, *, use_up: Callable[[Path], None], rounds: int = ROUNDS) -> Outcome:
    """A started engine whose data root is on `place`, with nothing left on that; it is killed and started twice so."""
    outcome = Outcome()
    words = ("no space left", "disk is full", "disk quota")
    furnish(engine, base)
    for number in range(rounds):
        if engine.is_ours:
            until("the reserve is whole", lambda: Reserve(engine.data).pieces() == PIECES)
        use_up(place)
        if number % 2:
            engine.kill()
            if not _starts(engine, outcome):
                return outcome
        use_up(place)
        try_in_vain(engine, outcome, number, words=words)
        use_up(place)
        go_on(engine, outcome, number)
        give_back(place)
        outcome.faults += [f"round {number}: {fault}" for fault in engine.findings(quick=True)]
        outcome.must("create", lambda: engine.call("POST", "/containers/create?name=again", _BODY))
        outcome.must("start", lambda: engine.call("POST", "/containers/again/start"))
        outcome.must("remove", lambda: engine.call("DELETE", "/containers/again?force=1&v=1"))
        image = tar_of({"f": os.urandom(1 << 20)})
        outcome.must(
            "import", lambda image=image: engine.call("POST", "/images/create?fromSrc=-&repo=again", image, TAR)
        )
        outcome.must("remove the image", lambda: engine.call("DELETE", "/images/again"))
    outcome.faults += engine.findings()
    return outcome


def _starts(engine: Engine, outcome: Outcome) -> bool:
    try:
        outcome.start_s = max(outcome.start_s, engine.start())
    except AssertionError as error:
        outcome.faults.append(f"it does not start: {str(error).strip().splitlines()[-1]}")
        return False
    return True


def on_small_disk(directory: Path, kind: str, make: Callable[[Path], Engine], base: bytes, *, rounds: int) -> Outcome:
    """`disk` for an engine that `make` makes for a data root. directory: not there yet, gone afterwards."""
    use_up, inodes = KINDS[kind]
    with small_disk(directory, inodes=inodes) as place:
        engine = make(place / "data")
        engine.start()
        try:
            return disk(engine, place, base, use_up=use_up, rounds=rounds)
        finally:
            give_back(place)
            engine.destroy()


KINDS: dict[str, tuple[Callable[[Path], None], int]] = {"bytes": (use_up_bytes, 0), "inodes": (use_up_inodes, _INODES)}


_FEW = 200


def descriptors(make: Callable[[list[str]], Engine], base: bytes, *, rounds: int = ROUNDS) -> Outcome:
    """An engine that may open 200 descriptors, while clients want all of them: silent ones, half requests, streams."""
    outcome = Outcome()
    engine = make(["prlimit", f"--nofile={_FEW}:{_FEW}"])
    engine.start()
    try:
        furnish(engine, base)
        for number in range(rounds):
            with contextlib.ExitStack() as stack:
                held = [stack.enter_context(connected(engine, text)) for text in _hungry(number) for _ in range(_FEW)]
                until("none is in the queue", lambda: engine.request("GET", "/_ping")[0] in (200, 503))
                go_on(engine, outcome, number)
                try_in_vain(engine, outcome, number, words=("too many open files",))
                outcome.refused += sum(was_refused(connection) for connection in held)
            outcome.faults += [f"round {number}: {fault}" for fault in engine.findings(quick=True)]
        outcome.must("all come back", lambda: _all_served(engine))
        outcome.faults += engine.findings()
    finally:
        engine.destroy()
    return outcome


def _hungry(number: int) -> list[bytes]:
    """What the clients say; each round ends with others."""
    words = [
        b"",
        b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{",
    ]
    return [*words[number % 3 :], *words[: number % 3]]


@contextlib.contextmanager
def connected(engine: Engine, text: bytes) -> Iterator[socket.socket]:
    """A client that says `text` and reads nothing."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(engine.socket))
        with contextlib.suppress(OSError):  # it was dropped
            connection.sendall(text)
        yield connection


def was_refused(connection: socket.socket) -> bool:
    """Whether it was turned away or dropped by now."""
    connection.setblocking(False)
    try:
        return (said := connection.recv(100)) == b"" or b" 503 " in said
    except BlockingIOError:
        return False
    except OSError:
        return True


def _all_served(engine: Engine) -> None:
    for _ in range(3 * _FEW):
        assert engine.request("GET", "/containers/json")[0] == 200


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """A control group of our own (v1 or v2) with that bound and without swap where there is a bound for it."""
    is_v1 = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
    group = Path("/sys/fs/cgroup", *(["memory"] if is_v1 else []), f"tare-torture-{os.getpid()}")
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(limit_bytes))
        yield group
    finally:
        until("its last process has gone", lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def killed_for_memory(group: Path) -> int:
    """How often."""
    for name in ("memory.oom_control", "memory.events"):
        if (group / name).exists():
            return int(dict(line.split() for line in (group / name).read_text().splitlines()).get("oom_kill", 0))
    raise AssertionError(f"{group} does not count")


_BOUND = 160 * 1024 * 1024


def memory(make: Callable[[list[str]], Engine], base: bytes, *, rounds: int = ROUNDS) -> Outcome:
    """An engine that has 160 MiB with its monitors, under images larger than that and clients that never read."""
    outcome = Outcome()
    with memory_group(_BOUND) as group:
        engine = make(["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs")])
        engine.start()
        try:
            furnish(engine, base)
            big = tar_of({f"f{number}": os.urandom(64 << 20) for number in range(2)})
            for number in range(rounds):
                with contextlib.ExitStack() as stack:
                    for text in (
                        b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
                        b"GET /images/json HTTP/1.1\r\nHost: x\r\n\r\n" * 400,
                    ):
                        for _ in range(100):
                            stack.enter_context(connected(engine, text))
                    outcome.must("load", lambda: engine.call("POST", "/images/load", archive_of("big:1", [big]), TAR))
                    outcome.must("save", lambda: engine.call("GET", "/images/big:1/get"))
                    outcome.must("remove the image", lambda: engine.call("DELETE", "/images/big:1"))
                    go_on(engine, outcome, number)
                    try_in_vain(engine, outcome, number, words=("cannot allocate memory",))
            outcome.faults += engine.findings()
        finally:
            engine.destroy()
        if killed := killed_for_memory(group):
            outcome.faults.append(f"{killed} processes were killed for memory")
    return outcome
