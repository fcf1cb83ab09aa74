"""Long days: thousands of containers one after the other, and mixed work for as long as one likes. Nothing may pile up."""

from __future__ import annotations

import json
import os
import random
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tare.testing.exchange import TAR, Refused, tar_of
from torturing.engines import Engine, Tare

IMAGE = "soak:base"
CLIENTS = 8
_WARM = 0.2  # of the rounds: pools fill, caches grow to their bounds
_GROWTH_MIB = 12.0  # allowed after that for 10,000 rounds
_SAMPLE_S = 5.0


@dataclass(frozen=True)
class Usage:
    """What the engine holds just now."""

    descriptors: int
    threads: int
    children: int
    resident_kib: int
    mounts: int
    links: int

    def leaked(self, before: Usage, *, spare: int) -> list[str]:
        """What there is more of than before, memory apart; threads and descriptors may be `spare` more."""
        told = []
        for name, more in (("descriptors", spare), ("threads", spare), ("children", 1), ("mounts", 0), ("links", 0)):
            if getattr(self, name) > getattr(before, name) + more:
                told.append(f"{getattr(self, name)} {name} instead of {getattr(before, name)}")
        return told


def usage(engine: Tare) -> Usage:
    """Read from /proc and /sys."""
    proc = Path(f"/proc/{engine.pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    links = Path(f"/sys/class/net/{engine.bridge}/brif")
    return Usage(
        descriptors=len(os.listdir(proc / "fd")),
        threads=int(status["Threads"]),
        children=len((proc / "task" / str(engine.pid) / "children").read_text().split()),
        resident_kib=int(status["VmRSS"].split()[0]),
        mounts=sum(str(engine.directory) in line for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        links=len(os.listdir(links)) if links.exists() else 0,
    )


def groups_of(ids: set[str]) -> int:
    """How many control groups of these containers there are."""
    return sum(
        any(part in ids for part in name.replace("-", ".").split("."))
        for _, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
    )


@dataclass
class Outcome:
    """took_s: of each round; resident: (seconds, KiB); faults: one line each, none if all is well."""

    what: str
    took_s: list[float] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)
    pings_s: list[float] = field(default_factory=list)
    starts_s: list[tuple[float, float]] = field(default_factory=list)
    seconds: float = 0.0
    before: Usage | None = None
    after: Usage | None = None
    faults: list[str] = field(default_factory=list)

    def row(self) -> str:
        """For people."""
        told = [f"{len(self.took_s):,} {self.what} in {self.seconds:.0f} s"]
        if self.took_s:
            told.append(
                f"each {statistics.median(self.took_s) * 1000:.0f} ms (p99 {_at(self.took_s, 0.99) * 1000:.0f})"
            )
        if self.before and self.after:
            told.append(
                f"memory {self.before.resident_kib / 1024:.1f} to {self.after.resident_kib / 1024:.1f} MiB,"
                f" descriptors {self.before.descriptors} to {self.after.descriptors},"
                f" threads {self.before.threads} to {self.after.threads}"
            )
        if len(self.resident) > 10:
            told.append(f"slope {slope(self.resident) * 3600 / 1024:+.1f} MiB an hour")
        if self.pings_s:
            told.append(
                f"_ping {statistics.median(self.pings_s) * 1000:.1f} ms (p99 {_at(self.pings_s, 0.99) * 1000:.1f})"
            )
        if len(self.starts_s) > 10:
            third = len(self.starts_s) // 3
            first, last = ([took for _, took in part] for part in (self.starts_s[:third], self.starts_s[-third:]))
            told.append(
                f"start {statistics.median(first) * 1000:.0f} ms in the first third, {statistics.median(last) * 1000:.0f} in the last"
            )
        return f"{'; '.join(told)}; {len(self.faults)} faults"


def _at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def slope(points: list[tuple[float, int]]) -> float:
    """Of the line through them (least squares), its first fifth left out."""
    points = points[len(points) // 5 :]
    x, y = [p[0] for p in points], [float(p[1]) for p in points]
    return statistics.linear_regression(x, y).slope


def churn(engine: Engine, base: bytes, *, rounds: int, limit_s: float = float("inf")) -> Outcome:
    """create, start, wait, remove, by eight clients at once; a warm-up of a fifth before it is measured."""
    outcome = Outcome("containers created, started, waited for and removed")
    engine.import_image(IMAGE, base, changes=['CMD ["true"]'])
    began = time.monotonic()
    ids: set[str] = set()

    def one(number: int) -> None:
        begun = time.monotonic()
        name = f"s{number}"
        made = json.loads(engine.call("POST", f"/containers/create?name={name}", {"Image": IMAGE, "Cmd": ["true"]}))
        ids.add(made["Id"])
        engine.call("POST", f"/containers/{name}/start")
        code = json.loads(engine.call("POST", f"/containers/{name}/wait"))["StatusCode"]
        if code != 0:
            outcome.faults.append(f"{name} ended with {code}")
        engine.call("DELETE", f"/containers/{name}")
        outcome.took_s.append(time.monotonic() - begun)

    numbers = iter(range(rounds))
    lock = threading.Lock()

    def client(until: int) -> Callable[[], None]:
        def run() -> None:
            while time.monotonic() - began < limit_s:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    one(number)
                except (Refused, AssertionError, OSError, EOFError) as error:
                    outcome.faults.append(f"s{number}: {error!r}")
                if number >= until:
                    return

        return run

    for until in (int(rounds * _WARM), rounds):
        threads = [threading.Thread(target=client(until)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if isinstance(engine, Tare):
            outcome.faults += engine.findings(quick=True)
            if outcome.before is None:
                outcome.before = usage(engine)
            outcome.after = usage(engine)
    outcome.seconds = time.monotonic() - began
    if left := groups_of(ids):
        outcome.faults.append(f"{left} control groups are left")
    _compare(outcome, allowed_mib=_GROWTH_MIB)
    outcome.faults += engine.findings()
    return outcome


def _compare(outcome: Outcome, *, allowed_mib: float) -> None:
    if outcome.before is None or outcome.after is None:
        return
    outcome.faults += outcome.after.leaked(outcome.before, spare=8)
    grown = (outcome.after.resident_kib - outcome.before.resident_kib) / 1024
    if grown > allowed_mib:
        outcome.faults.append(f"memory grew by {grown:.1f} MiB")


class _Worker(threading.Thread):
    """Mixed work on things of its own, one after the other."""

    def __init__(self, engine: Engine, outcome: Outcome, number: int, over: threading.Event) -> None:
        super().__init__(name=f"worker {number}")
        self.engine, self.outcome, self.prefix, self.over = engine, outcome, f"m{number}", over
        self.chance = random.Random(number)

    def run(self) -> None:
        """Until it is over."""
        count = 0
        while not self.over.is_set():
            count += 1
            begun = time.monotonic()
            try:
                self._one(f"{self.prefix}-{count}")
                self.outcome.took_s.append(time.monotonic() - begun)
            except (Refused, AssertionError, OSError, EOFError) as error:
                self.outcome.faults.append(f"{self.prefix}: {error!r}")

    def _one(self, name: str) -> None:
        engine, work = self.engine, self.chance.random()
        body = {"Image": IMAGE, "Cmd": ["sh", "-c", "echo begun; sleep 1000"], "HostConfig": {"Binds": ["/anonymous"]}}
        if work < 0.1:
            context = tar_of({"Dockerfile": f"FROM {IMAGE}\nCOPY f /f\nRUN cat /f\n".encode(), "f": os.urandom(5000)})
            engine.call("POST", f"/build?t={name}", context, TAR)
            engine.call("DELETE", f"/images/{name}")
            engine.call("POST", "/build/prune?all=1") if work < 0.01 else None
            return
        if work < 0.2:
            engine.call("POST", f"/images/create?fromSrc=-&repo={name}", tar_of({"f": os.urandom(50_000)}), TAR)
            engine.call("GET", f"/images/{name}/get")
            engine.call("DELETE", f"/images/{name}")
            return
        engine.call("POST", f"/containers/create?name={name}", body)
        begun = time.monotonic()
        engine.call("POST", f"/containers/{name}/start")
        self.outcome.starts_s.append((begun, time.monotonic() - begun))
        for _ in range(3):
            made = json.loads(
                engine.call("POST", f"/containers/{name}/exec", {"Cmd": ["echo", "x"], "AttachStdout": True})
            )
            assert b"x\n" in engine.call("POST", f"/exec/{made['Id']}/start", {"Detach": False})
            engine.call("GET", f"/containers/{name}/json")
            engine.call("GET", "/containers/json")
        engine.call("PUT", f"/containers/{name}/archive?path=/tmp", tar_of({"f": os.urandom(20_000)}), TAR)
        engine.call("GET", f"/containers/{name}/archive?path=/tmp/f")
        engine.call("GET", f"/containers/{name}/logs?stdout=1")
        engine.call("GET", f"/containers/{name}/stats?stream=0&one-shot=1")
        if work < 0.4:
            engine.call("POST", f"/commit?container={name}&repo={name}")
            engine.call("DELETE", f"/images/{name}")
        if work > 0.7:
            engine.call("POST", f"/containers/{name}/restart?t=0")
        engine.call("DELETE", f"/containers/{name}?force=1&v=1")


def soak(engine: Engine, base: bytes, *, seconds: float, clients: int = 3, allowed_mib: float = 8.0) -> Outcome:
    """Mixed work by some clients. allowed_mib: how much memory may grow in the last four fifths."""
    outcome = Outcome("rounds of mixed work")
    engine.import_image(IMAGE, base, changes=['CMD ["sh"]'])
    over = threading.Event()
    workers = [_Worker(engine, outcome, number, over) for number in range(clients)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    while (elapsed := time.monotonic() - began) < seconds:
        begun = time.monotonic()
        assert engine.request("GET", "/_ping")[0] == 200
        outcome.pings_s.append(time.monotonic() - begun)
        if isinstance(engine, Tare):
            outcome.resident.append((elapsed, usage(engine).resident_kib))
            if elapsed < seconds / 5:
                outcome.before = usage(engine)
        over.wait(min(_SAMPLE_S, seconds / 40))
    over.set()
    for worker in workers:
        worker.join()
    outcome.seconds = time.monotonic() - began
    engine.call("POST", "/build/prune?all=1")
    outcome.faults += engine.findings()
    if isinstance(engine, Tare) and outcome.before is not None:
        outcome.after = usage(engine)
        _compare(outcome, allowed_mib=allowed_mib)
    return outcome
