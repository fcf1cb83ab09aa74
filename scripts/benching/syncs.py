"""What syncing costs: tare beside itself with every sync answered by a filter instead of by the disk (`nosync.py`).

The engine has no switch for that, and nothing in it knows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from benching import images, nosync
from benching.bench import Bench, Result
from benching.engines import Tare

_LIMIT_PERCENT = 15


@contextmanager
def _beside_itself(bench: Bench) -> Iterator[Bench]:
    """Two engines that differ in nothing but syncs; `tare` is the one that does them."""
    made: list[Tare] = []
    try:
        for name, kind in (("tare", "with"), ("without", "without")):
            prefix = (sys.executable, "-IS", nosync.__file__, kind)
            made.append(Tare(bench.work / kind, name=name, bridge=f"tb{name[0]}", prefix=prefix))
        yield Bench([*made], bench.tar, replace(bench.size, rounds=2 * bench.size.rounds))
    finally:
        for engine in made:
            engine.stop()


def _cost(bench: Bench, measure: Callable[[Bench], Result]) -> Result:
    with _beside_itself(bench) as both:
        found = measure(both)
    percent = 100 * (found.values["tare"] / found.values["without"] - 1)
    return Result(
        f"what syncing adds to {found.item}", "%", {"tare": percent}, f"≤ {_LIMIT_PERCENT} %",
        lambda ours, _: ours <= _LIMIT_PERCENT,
    )  # fmt: skip


def pull(bench: Bench) -> Result:
    return _cost(bench, images.pull_many)


def push(bench: Bench) -> Result:
    return _cost(bench, images.push)


def load(bench: Bench) -> Result:
    return _cost(bench, images.load)


def rmi(bench: Bench) -> Result:
    return _cost(bench, images.rmi)
