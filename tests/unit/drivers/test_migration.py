from __future__ import annotations

import queue
import threading

import pytest

from tare.drivers import migration
from tare.drivers.cgroups import CgroupMode, Layout
from tare.drivers.migration import Migration, own_group_file

V1 = Layout(mode=CgroupMode.V1, trees={"pids": "/sys/fs/cgroup/pids", "cpu": "/sys/fs/cgroup/cpu,cpuacct"})
V2 = Layout(mode=CgroupMode.V2, unified="/sys/fs/cgroup")
OWN_V1 = "9:name=systemd:/x\n4:cpuacct,cpu:/system.slice/tare\n3:pids:/\n0::/\n"


@pytest.mark.parametrize(
    ("layout", "own", "path"),
    [
        (V1, OWN_V1, "/sys/fs/cgroup/cpu,cpuacct/system.slice/tare/cgroup.procs"),
        (V1, "3:pids:/\n", "/sys/fs/cgroup/pids/cgroup.procs"),
        (V2, "0::/system.slice/tare.service\n", "/sys/fs/cgroup/system.slice/tare.service/cgroup.procs"),
        (V2, "0::/../outside\n", ""),
        (V1, "0::/\n", ""),
        (V1, "", ""),
    ],
)
def test_where_this_process_stands(layout: Layout, own: str, path: str) -> None:
    assert own_group_file(layout, own) == path


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "own_group_file", lambda *_: "/group/cgroup.procs")


@pytest.mark.usefixtures("anywhere")
def test_the_lock_is_kept_ready_while_a_start_is_due_and_left_alone_afterwards() -> None:
    moves: queue.Queue[str] = queue.Queue()
    kept = Migration(V1, move=moves.put)
    for _ in range(2):  # it sleeps between, and wakes again
        kept.expect()
        assert [moves.get(timeout=5) for _ in range(3)] == ["/group/cgroup.procs"] * 3
        while kept._awake.is_set():
            threading.Event().wait(0.001)
        while not moves.empty():
            moves.get()


@pytest.mark.usefixtures("anywhere")
def test_a_kernel_that_refuses_is_asked_once() -> None:
    asked: queue.Queue[str] = queue.Queue()

    def refuse(path: str) -> None:
        asked.put(path)
        raise PermissionError(1, "no")

    kept = Migration(V1, move=refuse)
    kept.expect()
    asked.get(timeout=5)
    assert kept._thread is not None
    kept._thread.join(5)
    kept.expect()
    assert asked.empty()
    assert not kept._thread.is_alive()
