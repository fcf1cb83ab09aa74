"""Layouts recorded from real machines, parsers, and update plans."""

import pytest

from tare.base.errors import InvalidArgument, Unavailable
from tare.drivers import cgroups
from tare.drivers.cgroups import CgroupMode, Limits, Write

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = """\
25 18 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:7 - tmpfs tmpfs ro,mode=755
28 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:10 - cgroup cgroup rw,cpu,cpuacct
29 25 0:26 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,memory
27 25 0:24 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd
"""
HYBRID = V1 + "26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:8 - cgroup2 cgroup2 rw\n"


def test_v2():
    layout = cgroups.detect(V2)
    assert (layout.mode, layout.unified, layout.trees) == (CgroupMode.V2, "/sys/fs/cgroup", {})


def test_v1():
    layout = cgroups.detect(V1)
    assert layout.mode is CgroupMode.V1
    assert layout.trees == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
        "name=systemd": "/sys/fs/cgroup/systemd",
    }
    assert cgroups.controllers(layout) == {"cpu", "cpuacct", "memory"}


@pytest.mark.parametrize(("on_v2", "left"), [("", set()), ("hugetlb", {"hugetlb"}), ("memory hugetlb", {"hugetlb"})])
def test_hybrid_tells_what_was_left_to_v2(on_v2, left):
    layout = cgroups.detect(HYBRID, unified_controllers=on_v2)
    assert (layout.mode, layout.leftover) == (CgroupMode.HYBRID, left)


def test_mounts_elsewhere_do_not_count():
    inner = V1.replace("/sys/fs/cgroup", "/var/lib/box/sys/fs/cgroup")
    assert cgroups.detect(inner + V2).mode is CgroupMode.V2
    with pytest.raises(Unavailable, match="no cgroup hierarchy"):
        cgroups.detect(inner)


def test_names():
    assert cgroups.path_for("abc") == "/tare/abc"
    assert cgroups.path_for("abc", "/a//b/") == "/a/b/abc"
    assert cgroups.path_for("abc", "/") == "/abc"
    with pytest.raises(InvalidArgument):
        cgroups.path_for("abc", "a/../b")


def test_directories_are_one_per_hierarchy():
    found = [str(path) for path in cgroups.directories(cgroups.detect(HYBRID, unified_controllers=""), "/tare/x")]
    assert found == [
        "/sys/fs/cgroup/cpu,cpuacct/tare/x",
        "/sys/fs/cgroup/memory/tare/x",
        "/sys/fs/cgroup/systemd/tare/x",
        "/sys/fs/cgroup/unified/tare/x",
    ]


def test_parsers():
    stat = cgroups.parse_cpu_v2(
        "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_periods 2\nnr_throttled 1\nthrottled_usec 9"
    )
    assert (stat.total_nanos, stat.user_nanos, stat.throttled_periods, stat.throttled_nanos) == (7000, 4000, 1, 9000)
    assert cgroups.parse_flat("a 1\nb x\nc -1\nd") == {"a": 1, "c": -1}
    entries = cgroups.parse_io_stat("8:0 rbytes=5 wbytes=6 rios=1 wios=2\n7:0 \n", ("rbytes", "wbytes"))
    assert [(e.major, e.operation, e.value) for e in entries] == [(8, "read", 5), (8, "write", 6)]
    old = cgroups.parse_blkio_v1("8:0 Read 5\n8:0 Total 5\nTotal 5\n")
    assert [(e.minor, e.operation, e.value) for e in old] == [(0, "read", 5), (0, "total", 5)]


def files(writes):
    return [(write.file, write.value) for write in writes]


def test_memory_and_swap_are_written_in_the_order_v1_accepts():
    limits = Limits(memory_bytes=200, swap_bytes=400)
    grow = cgroups.plan_update(limits, mode=CgroupMode.V1, current_memory_bytes=100)
    assert [w.file for w in grow] == ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
    for present in (300, None):
        shrink = cgroups.plan_update(limits, mode=CgroupMode.HYBRID, current_memory_bytes=present)
        assert [w.file for w in shrink] == ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
    assert cgroups.plan_update(limits, mode=CgroupMode.V1, has_swap=False) == [
        Write(controller="memory", file="memory.limit_in_bytes", value="200")
    ]


def test_plans_for_both_versions():
    limits = Limits(cpu_shares=1024, cpu_quota_us=50000, cpu_period_us=100000, pids=-1, cpuset_cpus="0-1")
    assert files(cgroups.plan_update(limits, mode=CgroupMode.V1)) == [
        ("cpu.shares", "1024"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpuset.cpus", "0-1"),
        ("pids.max", "max"),
    ]
    assert files(cgroups.plan_update(limits, mode=CgroupMode.V2)) == [
        ("cpu.weight", "39"),
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", "0-1"),
        ("pids.max", "max"),
    ]
    memory = Limits(memory_bytes=100, swap_bytes=150, reservation_bytes=50, blkio_weight=500)
    assert files(cgroups.plan_update(memory, mode=CgroupMode.V2)) == [
        ("memory.max", "100"),
        ("memory.swap.max", "50"),
        ("memory.low", "50"),
        ("io.weight", "default 4950"),
    ]
    assert cgroups.plan_update(Limits(), mode=CgroupMode.V2) == []


@pytest.mark.parametrize(("shares", "weight"), [(0, 0), (2, 1), (1024, 39), (262144, 10000), (1, 1), (10**9, 10000)])
def test_shares(shares, weight):
    assert cgroups.shares_to_weight(shares) == weight


def test_what_hybrid_left_to_v2_is_mounted_as_v1(tmp_path, monkeypatch):
    mounted = []
    monkeypatch.setattr(cgroups, "_ROOT", tmp_path)
    monkeypatch.setattr(cgroups.linux, "mount", lambda *given: mounted.append(given))
    layout = cgroups.Layout(mode=CgroupMode.HYBRID, leftover=frozenset({"hugetlb", "no-v1-name"}))
    assert cgroups.ensure_crun_usable(layout) == (tmp_path / "hugetlb",)
    assert mounted == [("cgroup", str(tmp_path / "hugetlb"), "cgroup", 0, "hugetlb")]
    assert cgroups.ensure_crun_usable(cgroups.Layout(mode=CgroupMode.HYBRID)) == ()


def test_a_kernel_that_refuses_leaves_runc(tmp_path, monkeypatch):
    def refuse(*given):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(cgroups, "_ROOT", tmp_path)
    monkeypatch.setattr(cgroups.linux, "mount", refuse)
    layout = cgroups.Layout(mode=CgroupMode.HYBRID, leftover=frozenset({"hugetlb"}))
    with pytest.raises(Unavailable, match="cgroup controller hugetlb") as caught:
        cgroups.ensure_crun_usable(layout)
    assert caught.value.hint == "use the runtime runc"
