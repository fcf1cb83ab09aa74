"""The scenarios of `scripts/torture` by name, and the table in docs/reliability.md that they fill."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torturing import outside, powercut, rude, scarce, soak, storm
from torturing.engines import ROOT, Engine, Tare, engine

_ROUNDS, _CUTS = 100, 200
_CHURN, _CROWD, _SOAK_S = 10_000, 4000, 1800.0
_WORK_S, _REST_S = 20.0, 30.0
_HEAD = re.compile(r"^\| scenario \| tare \|.*$", re.MULTILINE)


@dataclass(frozen=True)
class World:
    """What a scenario gets. directory: not there yet, to be removed; command: "" for our engine."""

    directory: Path
    base: bytes
    command: str
    limit_s: float
    seed: int

    def engine(self) -> Engine:
        """A started engine, for the scenario to destroy."""
        made = engine(self.directory, self.command)
        made.start()
        return made


@dataclass(frozen=True)
class Verdict:
    """figures: one line for people; faults: one line each."""

    figures: str
    faults: list[str]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """is_ours_alone: no other engine can be asked that."""

    what: str
    run: Callable[[World], Verdict]
    is_ours_alone: bool = False


def _failpoints(_: World) -> Verdict:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/e2e/test_failpoints.py", "--tb=line"],
        cwd=ROOT,
        env={**os.environ, "TARE_TORTURE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    return Verdict(
        lines[-1] if lines else "nothing ran", [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    )


def _storm(world: World) -> Verdict:
    made = world.engine()
    try:
        outcome = storm.run(made, world.base, rounds=_ROUNDS, seed=world.seed, limit_s=world.limit_s)
    finally:
        made.destroy()
    return Verdict(outcome.row(), outcome.faults)


def _adoption(world: World) -> Verdict:
    made = world.engine()
    try:
        took = {count: storm.adoption(made, world.base, count=count) for count in (20, 100)}
    finally:
        made.destroy()
    told = "; ".join(f"{count} containers: {seconds * 1000:.0f} ms" for count, seconds in took.items())
    return Verdict(told, [])


def _powercut(world: World) -> Verdict:
    outcome = powercut.torture(
        world.directory, world.base, command=world.command, cuts=_CUTS, work_s=_WORK_S, rest_s=_REST_S,
        seed=world.seed, limit_s=world.limit_s, tell=lambda line: print(f"  {line}", flush=True),
    )  # fmt: skip
    return Verdict(outcome.row(), outcome.faults)


def _disk(kind: str) -> Callable[[World], Verdict]:
    def run(world: World) -> Verdict:
        world.directory.mkdir()
        outcome = scarce.on_small_disk(
            world.directory / "disk",
            kind,
            lambda data: engine(world.directory / "engine", world.command, data=data),
            world.base,
            rounds=scarce.ROUNDS,
        )
        world.directory.rmdir()
        return Verdict(outcome.row(), outcome.faults)

    return run


def _bound(scenario: Callable[..., scarce.Outcome]) -> Callable[[World], Verdict]:
    def run(world: World) -> Verdict:
        outcome = scenario(lambda prefix: Tare(world.directory, prefix=prefix), world.base)
        return Verdict(outcome.row(), outcome.faults)

    return run


def _rude(world: World) -> Verdict:
    made = world.engine()
    try:
        outcome = rude.run(made, world.base, crowd=_CROWD, seed=world.seed)
    finally:
        made.destroy()
    return Verdict(outcome.row(), outcome.faults)


def _outside(world: World) -> Verdict:
    told, faults = [], []
    world.directory.mkdir()
    for what, act in {
        "by hand": lambda made, _: outside.run(made, world.base, rounds=5),
        "clock": lambda made, fake: outside.clock_jumps(made, world.base, fake, rounds=3),
        "reboot": lambda made, fake: outside.reboot(made, world.base, fake),
    }.items():
        fake = outside.Fake(world.directory / "fake")
        made = Tare(world.directory / "engine", environment=fake.environment())
        made.start()
        try:
            outcome = act(made, fake)
        finally:
            made.destroy()
            shutil.rmtree(fake.directory)
        told.append(f"{what}: {outcome.row()}")
        faults += outcome.faults
    world.directory.rmdir()
    return Verdict("; ".join(told), faults)


def _churn(world: World) -> Verdict:
    made = world.engine()
    try:
        outcome = soak.churn(made, world.base, rounds=_CHURN, limit_s=world.limit_s)
    finally:
        made.destroy()
    return Verdict(outcome.row(), outcome.faults)


def _soak(world: World) -> Verdict:
    made = world.engine()
    try:
        outcome = soak.soak(made, world.base, seconds=min(_SOAK_S, world.limit_s))
    finally:
        made.destroy()
    return Verdict(outcome.row(), outcome.faults)


SCENARIOS: Mapping[str, Scenario] = {
    "failpoints": Scenario(what="an error or a kill at every step", run=_failpoints, is_ours_alone=True),
    "storm": Scenario(what="kill -9 at random instants under eight clients", run=_storm),
    "adoption": Scenario(what="from kill -9 to an engine that has all containers again", run=_adoption),
    "powercut": Scenario(what="what is there after the power was cut at random instants", run=_powercut),
    "bytes": Scenario(what="a disk without a block left", run=_disk("bytes")),
    "inodes": Scenario(what="a disk without an inode left", run=_disk("inodes")),
    "descriptors": Scenario(
        what="clients that take every descriptor", run=_bound(scarce.descriptors), is_ours_alone=True
    ),
    "memory": Scenario(what="an engine that may have 160 MiB", run=_bound(scarce.memory), is_ours_alone=True),
    "rude": Scenario(what="clients that never read, send halves, come by the thousand, vanish", run=_rude),
    "outside": Scenario(what="what others kill and remove, clock jumps, a reboot", run=_outside, is_ours_alone=True),
    "churn": Scenario(what="10,000 containers by eight clients", run=_churn),
    "soak": Scenario(what="mixed work for half an hour", run=_soak),
}


def write_column(page: Path, name: str, verdicts: Mapping[str, Verdict]) -> None:
    """Renew an engine's cells in the page's table; other cells and rows stay."""
    text = page.read_text()
    head = _HEAD.search(text)
    assert head is not None, f"{page} has no table of scenarios"
    end = text.find("\n\n", head.start())
    lines = text[head.start() : end].splitlines()
    columns = [cell.strip() for cell in lines[0].strip("|").split("|")]
    if name not in columns:
        columns.append(name)
    rows = {cells[0]: cells for line in lines[2:] if (cells := [cell.strip() for cell in line.strip("|").split("|")])}
    for scenario, verdict in verdicts.items():
        cells = rows.setdefault(scenario, [scenario])
        cells += ["-"] * (len(columns) - len(cells))
        cells[columns.index(name)] = verdict.figures.replace("|", "/")
    table = [columns, ["---"] * len(columns), *(row + ["-"] * (len(columns) - len(row)) for row in rows.values())]
    page.write_text(text[: head.start()] + "\n".join(f"| {' | '.join(row)} |" for row in table) + text[end:])
