"""What others do to the engine's things, in short: engine/exits, engine/restore. The long form is `scripts/torture --only outside`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from torturing import outside
from torturing.engines import Tare

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def fake(scratch: Path) -> outside.Fake:
    return outside.Fake(scratch / f"fake-{len(list(scratch.iterdir()))}")


@pytest.fixture
def engine(scratch: Path, fake: outside.Fake) -> Iterator[Tare]:
    made = Tare(scratch / "outside", environment=fake.environment())
    made.start()
    try:
        yield made
    finally:
        made.destroy()


def test_the_record_becomes_the_kernels(engine: Tare, rootfs_tar: bytes) -> None:
    outcome = outside.run(engine, rootfs_tar)
    print(outcome.row())
    assert outcome.faults == []


def test_a_clock_that_jumps(engine: Tare, rootfs_tar: bytes, fake: outside.Fake) -> None:
    outcome = outside.clock_jumps(engine, rootfs_tar, fake)
    print(outcome.row())
    assert outcome.faults == []


def test_a_reboot(engine: Tare, rootfs_tar: bytes, fake: outside.Fake) -> None:
    outcome = outside.reboot(engine, rootfs_tar, fake)
    print(outcome.row())
    assert outcome.faults == []
