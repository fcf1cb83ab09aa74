"""Rude clients and long days, in short: web/server, aio, engine. The long forms are `scripts/torture --only rude` and the like."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from torturing import rude, soak
from torturing.engines import Tare

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def engine(scratch: Path) -> Iterator[Tare]:
    made = Tare(scratch / "rude")
    made.start()
    try:
        yield made
    finally:
        made.destroy()


def test_others_do_not_notice_and_memory_stays_bounded(engine: Tare, rootfs_tar: bytes) -> None:
    outcome = rude.run(engine, rootfs_tar, crowd=700, rounds=1)
    print(outcome.row())
    assert outcome.faults == []


def test_containers_by_the_hundred_leave_nothing(engine: Tare, rootfs_tar: bytes) -> None:
    outcome = soak.churn(engine, rootfs_tar, rounds=60)
    print(outcome.row())
    assert outcome.faults == []
    assert len(outcome.took_s) == 60


def test_mixed_work(engine: Tare, rootfs_tar: bytes) -> None:
    outcome = soak.soak(engine, rootfs_tar, seconds=4, allowed_mib=64)
    print(outcome.row())
    assert outcome.faults == []
    assert outcome.took_s
