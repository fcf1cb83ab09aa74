"""Power cuts in short: drivers/snapshots/overlay, store/blobs, store/db, engine/create. The long form is
`scripts/torture --only powercut`; docs/adr/0023-power-cuts-by-recording.md says what a cut is.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torturing import powercut, recorder
from torturing.engines import Tare

HAS_PARTS = os.path.exists("/dev/fuse") and os.path.exists("/dev/loop-control")
pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not HAS_PARTS, reason="this kernel has no FUSE or no loop devices"),
]


def test_what_was_answered_survives_and_nothing_is_damaged(scratch: Path, rootfs_tar: bytes) -> None:
    seed = time.time_ns()
    outcome = powercut.torture(scratch / "cuts", rootfs_tar, cuts=6, work_s=4, rest_s=1, seed=seed)
    print(outcome.row())
    assert outcome.faults == [], f"seed {seed}"
    assert outcome.acts > 20
    assert outcome.open_cuts > 0


class _Worst(random.Random):
    """Nothing is on the disk that was not flushed."""

    def choice(self, seq: Sequence[Any]) -> Any:
        return seq[0]


def test_a_container_that_was_answered_has_its_files(scratch: Path, rootfs_tar: bytes) -> None:
    """The record was durable before the directories: SQLite's log is synced without a commit of the journal."""
    disk = powercut.Disk(scratch / "one")
    answered: dict[int, str] = {}
    try:
        disk.attach()
        made = Tare(scratch / "made", data=disk.place / "data")
        try:
            made.start()
            made.import_image("busybox:latest", rootfs_tar)
            for number in range(8):
                made.call("POST", f"/containers/create?name=c{number}", {"Image": "busybox", "Cmd": ["true"]})
                answered[time.monotonic_ns()] = f"c{number}"
            last = max(answered)
            made.call("POST", "/images/busybox/tag?repo=later")
        finally:
            made.destroy()
            disk.detach()
        target, place = scratch / "one" / "cut", scratch / "one" / "after"
        place.mkdir()
        for at, _ in powercut.disks(disk.log, disk.base, [*sorted(answered)[::3], last], _Worst(), target):
            powercut.run("mount", "-t", "ext4", "-o", "loop", target, place)
            after = Tare(scratch / "again", data=place / "data")
            try:
                after.start()
                assert after.findings() == []
                names = {name for entry in after.json("GET", "/containers/json?all=1") for name in entry["Names"]}
                assert {f"/{name}" for when, name in answered.items() if when <= at} <= names
                after.call("POST", f"/containers/{answered[at]}/start")
            finally:
                after.forget()
                powercut.run("umount", "-R", place)
    finally:
        disk.detach()
        shutil.rmtree(scratch / "one")


def test_a_cut_has_what_was_flushed_and_any_part_of_the_rest(tmp_path: Path) -> None:
    """The harness itself: without a flush a write may be gone, after one it never is."""
    base, log, target = tmp_path / "base", tmp_path / "log", tmp_path / "cut"
    base.write_bytes(bytes(4 * 4096))
    one, two = b"1" * 4096, b"2" * 8192
    steps = [(10, 0, one), (20, recorder.FLUSH, b""), (30, 4096, two), (40, recorder.FLUSH, b"")]
    log.write_bytes(b"".join(recorder.RECORD.pack(at, offset, len(data)) + data for at, offset, data in steps))
    seen: dict[int, set[bytes]] = {}
    for seed in range(60):
        for at, _ in powercut.disks(log, base, [5, 15, 35, 45], random.Random(seed), target):
            content = target.read_bytes()
            seen.setdefault(at, set()).add(bytes(content[n * 4096] or 48 for n in range(4)))
    assert seen[5] == {b"0000"}
    assert seen[15] == {b"0000", b"1000"}
    assert seen[35] == {b"1000", b"1200", b"1020", b"1220"}
    assert seen[45] == {b"1220"}
