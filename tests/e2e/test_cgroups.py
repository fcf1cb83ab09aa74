"""Groups of our own in the real hierarchies: made, filled, read, limited, frozen, removed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tare.base.errors import Conflict, NotFound
from tare.base.ids import random_id
from tare.drivers import cgroups, linux
from tare.drivers.cgroups import Limits
from tare.testing import footprint

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
PARENT = "/tare-test-groups"


@pytest.fixture
def group():
    layout = cgroups.read_layout()
    path = cgroups.path_for(random_id(), PARENT)
    if layout.mode is cgroups.CgroupMode.V2:
        pytest.skip("enabling controllers downwards is the runtime's work on v2")
    for directory in cgroups.directories(layout, path):
        directory.mkdir(parents=True)
        if (directory / "cpuset.cpus").exists():
            for folder in (directory.parent, directory):
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (folder / name).write_text((folder.parent / name).read_text())
    yield layout, path
    cgroups.remove(layout, path)
    cgroups.remove(layout, PARENT)


@pytest.fixture
def sleeper(group):
    layout, path = group
    child = subprocess.Popen(["/bin/sleep", "60"])
    for directory in cgroups.directories(layout, path):
        (directory / "cgroup.procs").write_text(str(child.pid))
    yield child
    cgroups.freeze(layout, path, frozen=False)
    child.kill()
    child.wait()


def test_stats_limits_and_processes(group, sleeper):
    layout, path = group
    assert cgroups.pids(layout, path) == [sleeper.pid]
    writes = cgroups.plan_update(
        Limits(memory_bytes=64 << 20, pids=10, cpu_quota_us=50000), mode=layout.mode, has_swap=False
    )
    cgroups.apply(layout, path, writes)
    stats = cgroups.read_stats(layout, path)
    assert (stats.memory.limit_bytes, stats.pids.limit, stats.pids.current) == (64 << 20, 10, 1)
    with pytest.raises(Conflict, match="still holds processes"):
        cgroups.remove(layout, path)


def test_freezing(group, sleeper):
    layout, path = group
    cgroups.freeze(layout, path, frozen=True)
    while not cgroups.is_frozen(layout, path):
        assert sleeper.poll() is None
    cgroups.freeze(layout, path, frozen=False)
    assert not cgroups.is_frozen(layout, path)


def test_ownership_and_removal(group):
    layout, path = group
    assert cgroups.owned(layout, PARENT) == {Path(path).name}
    cgroups.remove(layout, path)
    cgroups.remove(layout, path)
    assert cgroups.owned(layout, PARENT) == set()
    with pytest.raises(NotFound):
        cgroups.read_stats(layout, path)
    assert cgroups.pids(layout, path) == []


def test_the_tests_take_back_what_they_mounted(tmp_path: Path) -> None:
    """A host that left a controller to v2 has it mounted for the session, and as it was afterwards."""
    tree = tmp_path / "hugetlb"
    tree.mkdir()
    linux.mount("tmpfs", str(tree), "tmpfs", 0, "")
    (tree / "tare" / "group").mkdir(parents=True)
    footprint.unprepare_host([tree], own="")
    assert not tree.exists()
