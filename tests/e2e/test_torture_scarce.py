"""Nothing left of what the engine needs, in short: store/reserve, web/server. The long form is `scripts/torture --only …`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torturing import scarce
from torturing.engines import Tare

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.mark.parametrize("kind", list(scarce.KINDS))
def test_a_disk_without_room(scratch: Path, rootfs_tar: bytes, kind: str) -> None:
    outcome = scarce.on_small_disk(
        scratch / kind, kind, lambda data: Tare(scratch / f"{kind}-engine", data=data), rootfs_tar, rounds=2
    )
    print(outcome.row())
    assert outcome.faults == []
    assert outcome.refused > 5


@pytest.mark.parametrize("scenario", [scarce.descriptors, scarce.memory])
def test_an_engine_that_may_not_have_more(
    scratch: Path, rootfs_tar: bytes, scenario: Callable[..., scarce.Outcome]
) -> None:
    outcome = scenario(lambda prefix: Tare(scratch / "bound", prefix=prefix), rootfs_tar, rounds=1)
    print(outcome.row())
    assert outcome.faults == []
