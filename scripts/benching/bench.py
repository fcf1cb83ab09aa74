"""How much is measured, how a figure is taken, and what a result says."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benching.engines import Engine, Missing

IMAGE = "bench:rootfs"


@dataclass(frozen=True)
class Size:
    """How much: the real thing, or enough to see that it works."""

    rounds: int
    files: int
    image_mib: int
    touched: int
    log_mib: int
    containers: int
    running: int
    seconds: float
    steps: int
    copied: int
    nap: int
    networks: int
    endpoints: int
    stream_mib: int
    crowd: int
    asleep: int


FULL = Size(rounds=11, files=8000, image_mib=300, touched=5000, log_mib=100, containers=500, running=20, seconds=4.0,
            steps=20, copied=20_000, nap=2, networks=200, endpoints=500, stream_mib=500, crowd=50, asleep=200)  # fmt: skip
QUICK = Size(rounds=2, files=300, image_mib=10, touched=100, log_mib=4, containers=20, running=3, seconds=0.5,
             steps=20, copied=1000, nap=1, networks=10, endpoints=40, stream_mib=20, crowd=8, asleep=10)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """Medians by engine, in `unit`; more is better where `is_rate`."""

    item: str
    unit: str
    values: dict[str, float]
    target: str
    is_met: Callable[[float, float | None], bool]
    is_rate: bool = False


class Bench:
    """The engines, the root file system, and how figures are taken."""

    def __init__(self, engines: list[Engine], tar: Path, size: Size) -> None:
        self.engines, self.tar, self.size, self.work = engines, tar, size, tar.parent
        for engine in engines:
            engine.docker("import", tar, IMAGE)

    def interleaved(self, action: Callable[[Engine], object], after: Callable[[Engine], object] | None = None, *,
                    before: Callable[[Engine], object] | None = None, rounds: int | None = None) -> dict[str, float]:  # fmt: skip
        """Median milliseconds of `action`, the engines in turn, one round before not counted.

        The disk is settled before each: what one engine leaves unwritten is not paid for by the other, nor timed.
        """
        times: dict[str, list[float]] = {engine.name: [] for engine in self.engines}
        for number in range((rounds or self.size.rounds) + 1):
            for engine in self.engines:
                if before is not None:
                    before(engine)
                os.sync()
                started = time.perf_counter()
                action(engine)
                took = (time.perf_counter() - started) * 1000
                if after is not None:
                    after(engine)
                if number:
                    times[engine.name].append(took)
        return {name: statistics.median(values) for name, values in times.items()}

    @contextmanager
    def containers(self, name: str, *argv: str, is_started: bool = False, is_awaited: bool = True) -> Iterator[None]:
        """The same container on every engine, removed afterwards."""
        made: list[Engine] = []
        try:
            for engine in self.engines:
                made.append(engine)
                engine.docker("create", "--name", name, IMAGE, *argv)
                if is_started:
                    engine.docker("start", name)
                    if is_awaited and engine.docker("wait", name) != "0":
                        raise Missing(f"{engine.name}: {name} failed: {engine.docker('logs', '--tail', '3', name)}")
            yield
        finally:
            for engine in made:
                engine.docker("rm", "-f", name)


def below(limit: float) -> Callable[[float, float | None], bool]:
    return lambda ours, theirs: theirs is not None and ours <= limit * theirs


def above(limit: float) -> Callable[[float, float | None], bool]:
    return lambda ours, theirs: theirs is not None and ours >= limit * theirs
