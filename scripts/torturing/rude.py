"""Clients that behave badly: that never read, that send half of what they announce, that come by the thousand, that vanish.

Beside them one client goes on pinging and starting containers: it must not notice, and the engine's memory must stay bounded.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tare.testing.audit import until
from tare.testing.exchange import TAR, Refused, archive_of, tar_of
from torturing.engines import Engine, Tare
from torturing.soak import Usage, usage

IMAGE = "rude:base"
_GROWTH_MIB = 224.0  # each of the 84 that never read has a megabyte or two in buffers, as has each half of a request
_TALKS = "yes 0123456789012345678901234567890123456789"


@dataclass
class Outcome:
    """pings_s, starts_s: of the client beside, calm and under each kind; faults: one line each, none if all is well."""

    calm_s: tuple[float, float] = (0.0, 0.0)
    pings_s: list[float] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)
    clients: int = 0
    before: Usage | None = None
    most_kib: int = 0
    after: Usage | None = None
    faults: list[str] = field(default_factory=list)

    def row(self) -> str:
        """For people."""
        told = [f"{self.clients:,} clients"]
        if self.pings_s and self.starts_s:
            told.append(
                f"beside them _ping {statistics.median(self.pings_s) * 1000:.1f} ms (calm {self.calm_s[0] * 1000:.1f},"
                f" worst {max(self.pings_s) * 1000:.0f}), start {statistics.median(self.starts_s) * 1000:.0f} ms"
                f" (calm {self.calm_s[1] * 1000:.0f}, worst {max(self.starts_s) * 1000:.0f})"
            )
        if self.before and self.after:
            told.append(
                f"memory {self.before.resident_kib / 1024:.0f} MiB before, {self.most_kib / 1024:.0f} at most,"
                f" {self.after.resident_kib / 1024:.0f} after; descriptors {self.before.descriptors} before,"
                f" {self.after.descriptors} after"
            )
        return f"{'; '.join(told)}; {len(self.faults)} faults"


class Neighbour:
    """The client that must not notice: it pings, and it starts containers."""

    def __init__(self, engine: Engine, outcome: Outcome) -> None:
        self.engine, self.outcome, self._count = engine, outcome, 0

    def look(self, rounds: int) -> tuple[list[float], list[float]]:
        """Seconds of its pings and of its starts."""
        pings, starts = [], []
        for _ in range(rounds):
            self._count += 1
            name = f"n{self._count}"
            try:
                for _ in range(5):
                    began = time.monotonic()
                    assert self.engine.request("GET", "/_ping")[0] == 200
                    pings.append(time.monotonic() - began)
                self.engine.call("POST", f"/containers/create?name={name}", {"Image": IMAGE, "Cmd": ["sleep", "1000"]})
                began = time.monotonic()
                self.engine.call("POST", f"/containers/{name}/start")
                starts.append(time.monotonic() - began)
                self.engine.call("DELETE", f"/containers/{name}?force=1")
            except (Refused, AssertionError, OSError, EOFError) as error:
                self.outcome.faults.append(f"the client beside them: {error!r}")
        return pings, starts

    def beside(self, rounds: int) -> None:
        """The same, for the outcome."""
        pings, starts = self.look(rounds)
        self.outcome.pings_s += pings
        self.outcome.starts_s += starts
        if isinstance(self.engine, Tare):
            self.outcome.most_kib = max(self.outcome.most_kib, usage(self.engine).resident_kib)


@contextlib.contextmanager
def connections(engine: Engine, outcome: Outcome, said: list[bytes]) -> Iterator[list[socket.socket]]:
    """A client for each of these beginnings. They read nothing."""
    made: list[socket.socket] = []
    try:
        for text in said:
            connection = socket.socket(socket.AF_UNIX)
            made.append(connection)
            connection.settimeout(10)
            with contextlib.suppress(OSError):  # it was dropped already
                connection.connect(str(engine.socket))
                connection.sendall(text)
        outcome.clients += len(made)
        yield made
    finally:
        for connection in made:
            connection.close()


def _request(method: str, path: str, body: bytes = b"", *, length: int | None = None, more: str = "") -> bytes:
    size = len(body) if length is None else length
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n{more}\r\n".encode() + body


_JSON = "Content-Type: application/json\r\n"
_UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


def deaf() -> list[bytes]:
    """Who asks for streams and never reads."""
    return [
        _request("GET", "/events?since=1"),
        _request("GET", "/containers/talks/logs?follow=1&stdout=1"),
        _request("GET", "/containers/talks/stats"),
        _request("POST", "/containers/talks/attach?stream=1&stdout=1&logs=1", more=_UPGRADE),
        _request("GET", f"/images/{IMAGE}/get"),
        _request("GET", "/containers/talks/archive?path=/bin"),
        _request("GET", "/containers/json?all=1") * 200,
    ]


def halves() -> list[bytes]:
    """Who begins and does not go on."""
    return [
        b"",
        b"GET /contai",
        b"GET /version HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 30_000,
        _request("POST", "/containers/create", b'{"Image": ', length=2000, more=_JSON),
        _request("POST", "/images/load", b"\0" * 700, length=1 << 30, more="Content-Type: application/x-tar\r\n"),
        _request("POST", "/build", b"\0" * 700, length=1 << 30, more="Content-Type: application/x-tar\r\n"),
        b"POST /images/create?fromSrc=- HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nabc",
    ]


def vanishing(number: int) -> list[bytes]:
    """Who asks for something long and is gone at some instant."""
    layer = tar_of({f"f{number}": os.urandom(300_000)})
    context = tar_of({"Dockerfile": f"FROM {IMAGE}\nCOPY f /f\nRUN sleep 0.3\n".encode(), "f": os.urandom(9000)})
    create = json.dumps({"Image": IMAGE, "Cmd": ["sleep", "1000"]}).encode()
    tar = f"Content-Type: {TAR['Content-Type']}\r\n"
    return [
        _request("POST", f"/containers/create?name=g{number}", create, more=_JSON),
        _request("POST", f"/containers/v{number}/start"),
        _request("POST", f"/containers/v{number}/restart?t=0"),
        _request("POST", "/images/create?fromImage=127.0.0.1:9/nowhere&tag=1"),
        _request("POST", "/build?q=0", context, more=tar),
        _request("POST", "/images/load", archive_of(f"gone{number}:1", [layer]), more=tar),
        _request("POST", f"/images/create?fromSrc=-&repo=gone{number}", layer, more=tar),
        _request("POST", f"/containers/v{number}/attach?stream=1&stdin=1&stdout=1", more=_UPGRADE),
        _request("PUT", "/containers/talks/archive?path=/tmp", layer, more=tar),
        _request("GET", "/containers/talks/archive?path=/"),
        _request("POST", f"/commit?container=v{number}&repo=gone{number}"),
        _request("DELETE", f"/containers/v{number}?force=1"),
    ]


def run(engine: Engine, base: bytes, *, crowd: int = 4000, rounds: int = 3, seed: int = 1) -> Outcome:
    """All kinds on a started engine. crowd: how many connections there are at the most."""
    outcome = Outcome()
    chance = random.Random(seed)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, crowd + 500)), hard))
    engine.import_image(IMAGE, base, changes=['CMD ["sh"]'])
    engine.call(
        "POST",
        "/containers/create?name=talks",
        {
            "Image": IMAGE,
            "Cmd": ["sh", "-c", _TALKS],
            "HostConfig": {"NetworkMode": "none", "CpuQuota": 5000, "CpuPeriod": 100000},
        },
    )
    engine.call("POST", "/containers/talks/start")
    neighbour = Neighbour(engine, outcome)
    neighbour.look(2)
    if isinstance(engine, Tare):
        outcome.before = usage(engine)
    calm = neighbour.look(rounds * 2)
    outcome.calm_s = (statistics.median(calm[0]), statistics.median(calm[1]))
    for _ in range(rounds):
        with connections(engine, outcome, deaf() * 12):
            neighbour.beside(2)
        with connections(engine, outcome, halves() * 20):
            neighbour.beside(2)
    with connections(engine, outcome, (halves() * (crowd // 7 + 1))[:crowd]):
        neighbour.beside(rounds)
    for number in range(rounds * 5):
        _vanish(engine, outcome, chance, number)
        if number % 5 == 0:
            neighbour.beside(1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    engine.call("DELETE", "/containers/talks?force=1")
    _settle(engine)
    outcome.faults += engine.findings()
    if isinstance(engine, Tare) and outcome.before is not None:
        before = outcome.before
        until("descriptors come back", lambda: usage(engine).descriptors <= before.descriptors + 8)
        outcome.after = usage(engine)
        outcome.faults += outcome.after.leaked(before, spare=12)
        if (grown := (outcome.most_kib - before.resident_kib) / 1024) > _GROWTH_MIB:
            outcome.faults.append(f"memory grew by {grown:.0f} MiB")
    return outcome


def _vanish(engine: Engine, outcome: Outcome, chance: random.Random, number: int) -> None:
    engine.call(
        "POST", f"/containers/create?name=v{number}", {"Image": IMAGE, "Cmd": ["sleep", "1000"], "OpenStdin": True}
    )

    def one(text: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
            connection.connect(str(engine.socket))
            cut = len(text) if chance.random() < 0.7 else chance.randrange(len(text))
            connection.sendall(text[:cut])
            time.sleep(chance.random() ** 3 * 0.3)

    threads = [threading.Thread(target=one, args=(text,)) for text in vanishing(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcome.clients += len(threads)


def _settle(engine: Engine) -> None:
    """Wait for what went on though nobody waited for it, and remove what it made."""

    def remove_all() -> bool:
        for entry in engine.json("GET", "/containers/json?all=1"):
            engine.request("DELETE", f"/containers/{entry['Id']}?force=1&v=1")
        for image in engine.json("GET", "/images/json?all=1"):
            engine.request("DELETE", f"/images/{image['Id']}?force=1")
        engine.request("POST", "/build/prune?all=1")
        return not engine.json("GET", "/containers/json?all=1") and not engine.json("GET", "/images/json?all=1")

    until("what they began has ended", remove_all)
