"""kill -9 of the daemon under eight clients, in short: engine/restore. The long form is `scripts/torture --only storm`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torturing import storm
from torturing.engines import Tare

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def engine(scratch: Path) -> Iterator[Tare]:
    made = Tare(scratch / "storm")
    made.start()
    try:
        yield made
    finally:
        made.destroy()


def test_nothing_is_lost_revived_doubled_or_leaked(engine: Tare, rootfs_tar: bytes) -> None:
    seed = time.time_ns()
    outcome = storm.run(engine, rootfs_tar, rounds=6, seed=seed, round_answers=(10, 60))
    print(outcome.row())
    assert outcome.faults == [], f"seed {seed}"
    assert outcome.answered > 50


def test_all_that_runs_is_adopted_at_once(engine: Tare, rootfs_tar: bytes) -> None:
    took = storm.adoption(engine, rootfs_tar, count=20)
    print(f"20 running containers: answers, and has them all, after {took * 1000:.0f} ms")
    assert engine.findings(quick=True) == []
