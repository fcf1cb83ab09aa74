"""Mutations and the loop. The same seed gives the same inputs, so that a finding can be had again."""

from __future__ import annotations

import random
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from targets import SLOW_S, TARGETS, Target

MAX_BYTES = 4096
HANG_S = 10.0


@dataclass(frozen=True)
class Finding:
    """An input and what went wrong with it; `kind` is the same for the same fault."""

    target: str
    data: bytes
    why: str
    kind: str


def inputs(target: Target, chance: random.Random) -> Iterator[bytes]:
    """Endless: words in any order, seeds with changes, and changes of what came before."""
    last = b""
    while True:
        kind = chance.randrange(4)
        if kind == 0 or not (target.seeds or last):
            data = b"".join(chance.choice(target.words) for _ in range(chance.randrange(1, 24)))
        elif kind == 1 and target.seeds:
            data = chance.choice(target.seeds)
        else:
            data = last
        for _ in range(chance.randrange(0, 4)):
            data = changed(data, target, chance)
        last = data[:MAX_BYTES]
        yield last


def changed(data: bytes, target: Target, chance: random.Random) -> bytes:
    """One change: a byte flipped, a piece cut, repeated or replaced by a word."""
    at = chance.randrange(len(data) + 1)
    to = min(len(data), at + chance.randrange(1, 20))
    kind = chance.randrange(5)
    if kind == 0 and data:
        at = min(at, len(data) - 1)
        return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[to:]
    if kind == 2:
        return data[:to] + data[at:to] * chance.randrange(1, 30) + data[to:]
    word = chance.choice(target.words) if kind == 3 else chance.randbytes(chance.randrange(1, 9))
    return data[:at] + word + data[at:]


class Hang(Exception):
    """It did not come back."""


def _give_up(*_: object) -> None:
    raise Hang


def tried(name: str, data: bytes) -> Finding | None:
    """Give one input to one target."""
    target = TARGETS[name]
    begun = time.process_time()
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        target.call(data)
    except target.own:
        pass
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Finding(name, data, traceback.format_exc(), f"{type(error).__name__} at {last.filename}:{last.lineno}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    took = time.process_time() - begun
    return Finding(name, data, f"took {took:.1f} s of processor time", "slow") if took > SLOW_S else None


def run(name: str, *, seconds: float, seed: int, stops: bool = True) -> tuple[int, list[Finding]]:
    """Try one target for a while: how many inputs, and what was found (the first of each kind)."""
    chance = random.Random(f"{name} {seed}")
    found: dict[str, Finding] = {}
    count, ends = 0, time.monotonic() + seconds
    for data in inputs(TARGETS[name], chance):
        count += 1
        finding = tried(name, data)
        if finding is not None:
            found.setdefault(finding.kind, finding)
            if stops:
                break
        if time.monotonic() > ends:
            break
    return count, list(found.values())
