"""kill -9 of the engine at random instants, under eight clients that do everything at once.

Each client keeps a ledger of its own things. An operation that was answered has happened; one that the kill cut off may
have or not, as a whole. After each kill the next engine is compared with all ledgers. Meanwhile witnesses run: containers
that write numbered lines, one that echoes on a connection through a published port, some that end with a code of their own.
"""

from __future__ import annotations

import json
import math
import random
import socket
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tare.testing.audit import until
from tare.testing.exchange import TAR, Api, Refused, archive_of, tar_of
from tare.testing.registry import Registry, registry
from torturing.engines import Engine

CLIENTS = 8
IMAGE = "storm:base"
_PER_CLIENT = 4
_WRITER = "i=0; while :; do echo $i; i=$((i+1)); [ $((i%50)) = 0 ] && sleep 0.05; done"
_ECHO = ["nc", "-ll", "-p", "7", "-e", "cat"]
_PARKED_S = 60.0
_ROUND_S = 60.0


@dataclass
class Thing:
    """A container or a tag. is_there, is_running: None while only the engine knows; is_ending: it was told to end."""

    is_there: bool | None = False
    is_running: bool | None = False
    is_ending: bool = False
    id: str = ""
    pid: int = 0


@dataclass
class Storm:
    """What all share: the gate that is open while the engine lives, what went wrong, what was done."""

    api: Api
    server: Registry | None  # None: the engine cannot reach it
    gate: threading.Event = field(default_factory=threading.Event)
    is_over: bool = False
    faults: list[str] = field(default_factory=list)
    answered: int = 0
    cut_off: int = 0
    news: threading.Condition = field(default_factory=threading.Condition)

    def count_answer(self) -> None:
        """One more, for who waits for them."""
        with self.news:
            self.answered += 1
            self.news.notify_all()

    def wait_answers(self, count: int) -> bool:
        """Wait until so many more have come; False when they do not within `_ROUND_S`."""
        with self.news:
            enough = self.answered + count
            return self.news.wait_for(lambda: self.answered >= enough, _ROUND_S)


class Client:
    """One client with names of its own, doing one thing after the other."""

    def __init__(self, storm: Storm, number: int, seed: int) -> None:
        self.storm, self.prefix = storm, f"c{number}"
        self.thread = threading.Thread(target=self._run, name=f"client {number}", daemon=True)
        self.random = random.Random(seed)
        self.containers = {f"{self.prefix}-{n}": Thing() for n in range(_PER_CLIENT)}
        self.tags: dict[str, Thing] = {}
        self.parked = threading.Event()
        self.count = 0

    def _run(self) -> None:
        while not self.storm.is_over:
            if not self.storm.gate.is_set():
                self.parked.set()
                self.storm.gate.wait()
                self.parked.clear()
                continue
            try:
                self._step()
                self.storm.count_answer()
            except (OSError, EOFError):
                self.storm.cut_off += 1
                if self.storm.gate.is_set():  # the kill was just now: main closes the gate in a moment
                    time.sleep(0.005)
            except Refused as error:
                self.storm.faults.append(f"{self.prefix}: refused: {error}")
            except Exception as error:
                self.storm.faults.append(f"{self.prefix}: {type(error).__name__}: {error}")

    def _step(self) -> None:
        name = self.random.choice(list(self.containers))
        thing = self.containers[name]
        if not thing.is_there:
            if self.random.random() < 0.5:
                return self._make_image()
            return self._create(name, thing)
        if thing.is_running:
            return self.random.choice((self._exec, self._stop, self._exec, self._kill))(name, thing)
        return self.random.choice((self._start, self._start, self._start, self._remove, self._commit))(name, thing)

    def _create(self, name: str, thing: Thing) -> None:
        body = {"Image": IMAGE, "Cmd": ["sleep", "100000"], "HostConfig": {"Binds": [f"v-{name}:/data"]}}
        thing.is_there, thing.is_running = None, False
        answer = json.loads(self.storm.api.call("POST", f"/containers/create?name={name}", body))
        thing.is_there, thing.id = True, answer["Id"]

    def _start(self, name: str, thing: Thing) -> None:
        thing.is_running, thing.is_ending = None, False
        self.storm.api.call("POST", f"/containers/{name}/start")
        thing.pid = json.loads(self.storm.api.call("GET", f"/containers/{name}/json"))["State"]["Pid"]
        thing.is_running = True

    def _exec(self, name: str, _: Thing) -> None:
        made = json.loads(
            self.storm.api.call(
                "POST", f"/containers/{name}/exec", {"Cmd": ["echo", name], "AttachStdout": True, "Tty": True}
            )
        )
        said = self.storm.api.call("POST", f"/exec/{made['Id']}/start", {"Detach": False, "Tty": True})
        if name.encode() not in said:
            self.storm.api.request("GET", "/_ping")  # a stream that a kill cut off looks like one that ended
            raise Refused(f"exec in {name} said {said!r}")

    def _stop(self, name: str, thing: Thing) -> None:
        thing.is_running, thing.is_ending = None, True
        self.storm.api.call("POST", f"/containers/{name}/stop?t=0")
        thing.is_running = False

    def _kill(self, name: str, thing: Thing) -> None:
        thing.is_running, thing.is_ending = None, True
        self.storm.api.call("POST", f"/containers/{name}/kill")
        thing.is_running = False

    def _remove(self, name: str, thing: Thing) -> None:
        thing.is_there = None
        self.storm.api.call("DELETE", f"/containers/{name}?force=1&v=1")
        thing.is_there = False

    def _commit(self, name: str, _: Thing) -> None:
        self._image(lambda tag: self.storm.api.call("POST", f"/commit?container={name}&repo={tag}&tag=1"))

    def _make_image(self) -> None:
        gone = [tag for tag, thing in self.tags.items() if thing.is_there]
        if len(gone) > 3:
            return self._untag(self.random.choice(gone))
        makers = (self._load, self._build, self._pull) if self.storm.server is not None else (self._load, self._build)
        return self.random.choice(makers)()

    def _untag(self, tag: str) -> None:
        self.tags[tag].is_there = None
        self.storm.api.call("DELETE", f"/images/{tag}?force=1")
        self.tags[tag].is_there = False

    def _image(self, make: Any, tag: str = "") -> None:
        self.count += 1
        name = tag or f"{self.prefix}-i{self.count}:1"
        thing = self.tags[name] = Thing(is_there=None)
        make(name.removesuffix(":1"))
        thing.is_there = True

    def _bytes(self) -> bytes:
        return tar_of({f"f{self.random.random()}": self.random.randbytes(20_000)})

    def _load(self) -> None:
        layers = [self._bytes(), self._bytes()]
        self._image(lambda tag: self.storm.api.call("POST", "/images/load", archive_of(f"{tag}:1", layers), TAR))

    def _pull(self) -> None:
        assert self.storm.server is not None
        repository = f"{self.prefix}-p{self.count}"
        self.storm.server.put_image(repository, "1", [self._bytes(), self._bytes()])
        where = f"{self.storm.server.host}/{repository}"
        self._image(lambda tag: self.storm.api.call("POST", f"/images/create?fromImage={tag}&tag=1"), f"{where}:1")

    def _build(self) -> None:
        lines = f"FROM {IMAGE}\nCOPY f /f\nRUN echo {self.random.random()} >/x\n"
        context = tar_of({"Dockerfile": lines.encode(), "f": self.random.randbytes(5000)})
        self._image(lambda tag: self.storm.api.call("POST", f"/build?t={tag}:1&forcerm=1", context, TAR))


class Witnesses:
    """Containers that no client touches."""

    def __init__(self, api: Api, *, ports: bool) -> None:
        self._api = api
        self._ends: list[tuple[str, int]] = []
        self._made = 0
        self._connection: socket.socket | None = None
        self._echoed = 0
        for name in ("w-one", "w-two"):
            self._run(name, ["sh", "-c", _WRITER])
        if ports:
            body = {
                "ExposedPorts": {"7/tcp": {}},
                "HostConfig": {"PortBindings": {"7/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}},
            }
            self._run("w-echo", _ECHO, **body)
            found = api.json("GET", "/containers/w-echo/json")["NetworkSettings"]["Ports"]["7/tcp"]
            self._port = int(found[0]["HostPort"])
            until("nc listens", self._connect)

    def _connect(self) -> bool:
        try:
            self._connection = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        except OSError:
            return False
        return True

    def _run(self, name: str, command: list[str], **more: Any) -> None:
        self._api.call("POST", f"/containers/create?name={name}", {"Image": IMAGE, "Cmd": command, **more})
        self._api.call("POST", f"/containers/{name}/start")

    def begin(self) -> None:
        """Some that end in a moment, perhaps while nobody is there to see it."""
        for delay in (0.2, 0.6, 1.0):
            self._made += 1
            code = self._made % 100 + 1
            name = f"e-{self._made}"
            self._run(name, ["sh", "-c", f"sleep {delay}; exit {code}"])
            self._ends.append((name, code))

    def faults(self) -> list[str]:
        """What did not go on as if nothing had happened."""
        found = []
        for name, code in self._ends:
            status, _ = self._api.request("POST", f"/containers/{name}/wait")
            state = self._api.json("GET", f"/containers/{name}/json")["State"] if status == 200 else {}
            if state.get("ExitCode") != code:
                found.append(f"{name} ended with {state.get('ExitCode')}, not {code}")
            self._api.request("DELETE", f"/containers/{name}?force=1")
        self._ends.clear()
        if self._connection is not None:
            self._echoed += 1
            line = f"line {self._echoed}\n".encode()
            try:
                self._connection.sendall(line)
                said = b""
                while not said.endswith(b"\n") and (piece := self._connection.recv(1000)):
                    said += piece
            except OSError as error:
                said = str(error).encode()
            if said != line:
                found.append(f"the connection through a published port said {said!r}, not {line!r}")
        for name in ("w-one", "w-two"):
            if not self._api.json("GET", f"/containers/{name}/json")["State"]["Running"]:
                found.append(f"{name} does not run any more")
            lines = logged(self._api, name)
            if not lines or lines != [str(number) for number in range(len(lines))]:
                at = next((n for n, line in enumerate(lines) if line != str(n)), 0)
                found.append(f"the log of {name} has a gap at line {at} of {len(lines)}: {lines[at : at + 2]}")
        return found

    def end(self) -> None:
        """Take them away."""
        if self._connection is not None:
            self._connection.close()
        for entry in self._api.json("GET", "/containers/json?all=1"):
            if entry["Names"][0].startswith(("/w-", "/e-")):
                self._api.request("DELETE", f"/containers/{entry['Id']}?force=1&v=1")


def logged(api: Api, name: str) -> list[str]:
    """Whole lines of a container's output."""
    raw = api.call("GET", f"/containers/{name}/logs?stdout=1")
    pieces, at = [], 0  # joined at the end: there are millions after an hour
    while at < len(raw):
        length = int.from_bytes(raw[at + 4 : at + 8], "big")
        pieces.append(raw[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(pieces).decode().split("\n")[:-1]


def compare(api: Api, clients: list[Client]) -> list[str]:
    """What the engine has beside what the ledgers say; what only it knew is written down."""
    faults = []
    listed: dict[str, dict[str, Any]] = {}
    for entry in api.json("GET", "/containers/json?all=1"):
        name = entry["Names"][0].removeprefix("/")
        if name in listed:
            faults.append(f"container {name} is there twice")
        listed[name] = entry
    tags = {tag for image in api.json("GET", "/images/json") for tag in image["RepoTags"] or ()}
    for client in clients:
        for name, thing in client.containers.items():
            entry = listed.pop(name, None)
            if thing.is_there is None:
                thing.is_there = entry is not None
                thing.id = entry["Id"] if entry else ""
                thing.is_running = None if entry else False
            elif thing.is_there != (entry is not None):
                faults.append(f"container {name} was {'lost' if thing.is_there else 'revived'}")
                thing.is_there = entry is not None
            if entry is None:
                continue
            if entry["Id"] != thing.id:
                faults.append(f"container {name} is another one")
            if thing.is_running is None and thing.is_ending:  # the signal may be out, and it not dead yet
                api.request("POST", f"/containers/{name}/kill")
            state = api.json("GET", f"/containers/{name}/json")["State"]
            if thing.is_running is None:
                thing.is_running, thing.pid = state["Running"], state["Pid"]
            elif thing.is_running != state["Running"]:
                faults.append(f"container {name} {'ended' if thing.is_running else 'runs again'}")
                thing.is_running = state["Running"]
            elif thing.is_running and thing.pid != state["Pid"]:
                faults.append(f"container {name} was started again")
                thing.pid = state["Pid"]
        for tag, thing in client.tags.items():
            if thing.is_there is None:
                thing.is_there = tag in tags
            elif thing.is_there != (tag in tags):
                faults.append(f"image {tag} was {'lost' if thing.is_there else 'revived'}")
                thing.is_there = tag in tags
    faults += [f"container {name} is nobody's" for name in listed if not name.startswith(("w-", "e-"))]
    return faults


@dataclass(frozen=True)
class Outcome:
    """faults: one line each, none if all is well."""

    rounds: int
    answered: int
    cut_off: int
    faults: list[str]
    start_s: list[float]

    def row(self) -> str:
        """For people."""
        return (
            f"{self.rounds} kills, {self.answered:,} operations answered, {self.cut_off:,} cut off, {len(self.faults)} faults;"
            f" answers again after {statistics.median(self.start_s) * 1000:.0f} ms (worst {max(self.start_s) * 1000:.0f})"
        )


def run(
    engine: Engine,
    base: bytes,
    *,
    rounds: int,
    seed: int,
    round_s: tuple[float, float] = (0.3, 2.5),
    round_answers: tuple[int, int] | None = None,
    limit_s: float = math.inf,
) -> Outcome:
    """The storm on a started engine that is otherwise empty. base: the tar of a root file system with busybox.

    round_s: how long a round may be, at random. round_answers: so many answers end it instead, at random too, and it is
    at fault when they have not come after a minute: for machines that are busy. limit_s: no round begins later.
    """
    began = time.monotonic()
    chance = random.Random(seed)
    engine.import_image(IMAGE, base, changes=['CMD ["sh"]'])
    starts: list[float] = []
    with registry() as server:
        storm = Storm(engine, server if engine.is_ours else None)
        clients = [Client(storm, number, chance.randrange(1 << 30)) for number in range(CLIENTS)]
        witnesses = Witnesses(engine, ports=engine.is_ours)
        for client in clients:
            client.thread.start()
        try:
            for number in range(rounds):
                if time.monotonic() - began > limit_s:
                    break
                witnesses.begin()
                storm.gate.set()
                if round_answers is None:
                    time.sleep(chance.uniform(*round_s))
                elif not storm.wait_answers(chance.randint(*round_answers)):
                    storm.faults.append(f"round {number}: too few answers in {_ROUND_S:.0f} s")
                engine.kill()
                storm.gate.clear()
                for client in clients:
                    if not client.parked.wait(_PARKED_S):
                        storm.faults.append(f"{client.prefix} waits for an answer for ever")
                starts.append(engine.start())
                found = [*witnesses.faults(), *compare(engine, clients), *engine.findings(quick=number % 10 != 9)]
                storm.faults += [f"round {number}: {fault}" for fault in found]
        finally:
            storm.is_over = True
            storm.gate.set()
            for client in clients:
                client.thread.join(_PARKED_S)
        witnesses.end()
        for client in clients:
            for name in client.containers:
                engine.request("DELETE", f"/containers/{name}?force=1&v=1")
        for image in engine.json("GET", "/images/json?all=1"):
            engine.request("DELETE", f"/images/{image['Id']}?force=1")
        storm.faults += [f"at the end: {fault}" for fault in engine.findings()]
    return Outcome(len(starts), storm.answered, storm.cut_off, storm.faults, starts)


def adoption(engine: Engine, base: bytes, *, count: int) -> float:
    """Seconds from the start of an engine until it answers and all `count` running containers are its own again."""
    engine.import_image(IMAGE, base, changes=['CMD ["sh"]'])
    names = [f"a-{number}" for number in range(count)]
    for name in names:
        engine.call("POST", f"/containers/create?name={name}", {"Image": IMAGE, "Cmd": ["sleep", "100000"]})
        engine.call("POST", f"/containers/{name}/start")
    engine.kill()
    began = time.monotonic()
    engine.start()
    states = [entry["State"] for entry in engine.json("GET", "/containers/json")]
    took = time.monotonic() - began
    assert states == ["running"] * count, states
    for name in names:
        engine.call("DELETE", f"/containers/{name}?force=1")
    return took
