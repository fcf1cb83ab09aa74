"""What comes to a subreaper and is nobody's is collected; what somebody waits for is left to it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Iterator

import pytest

from tare.aio import proc
from tare.aio.orphans import Orphans

_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def orphan() -> int:
    """One that has ended, as a program leaves it that starts another and goes."""
    done = asyncio.run(proc.run(["/bin/sh", "-c", "/bin/sleep 1000 >&2 & echo $!"]))
    pid = int(done.stdout)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_orphans_are_collected_at_the_second_look() -> None:
    orphans = Orphans()
    assert orphans.collect() == []
    both = sorted((orphan(), orphan()))
    assert orphans.collect() == []
    assert sorted(orphans.collect()) == both
    assert [is_there(pid) for pid in both] == [False, False]
    assert orphans.collect() == []


def test_those_that_live_are_left_alone() -> None:
    done = asyncio.run(proc.run(["/bin/sh", "-c", "/bin/sleep 1000 >&2 & echo $!"]))
    alive, orphans = int(done.stdout), Orphans()
    try:
        assert (orphans.collect(), orphans.collect(), is_there(alive)) == ([], [], True)
    finally:
        asyncio.run(proc.end(alive))


def test_what_is_claimed_is_left_to_who_waits() -> None:
    orphans, pid = Orphans(), orphan()
    with proc.claimed(pid):
        assert (orphans.collect(), orphans.collect(), is_there(pid)) == ([], [], True)
    assert (orphans.collect(), orphans.collect()) == ([], [pid])


def test_a_child_belongs_to_who_started_it() -> None:
    orphans, child = Orphans(), proc.start(["/bin/sh", "-c", "exit 3"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert (orphans.collect(), orphans.collect()) == ([], [])
    assert child.wait() == 3
