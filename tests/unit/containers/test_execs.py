"""Execs are found until they are stale, and go with their container."""

from __future__ import annotations

import time

import pytest

from tare.base.errors import NotFound
from tare.base.ids import ContainerId, random_id
from tare.containers.execs import KEPT_S, Exec, Execs, Wish

CONTAINER = ContainerId("c" * 64)


def make(execs: Execs, container: ContainerId = CONTAINER) -> Exec:
    exec_ = Exec(id=random_id(), container_id=container, wish=Wish(argv=("true",)))
    execs.add(exec_)
    return exec_


def test_what_waits_or_runs_is_shown_by_inspect_and_what_ended_is_not() -> None:
    execs = Execs()
    waiting, running, over = (make(execs) for _ in range(3))
    running.pid = 7
    over.pid = 8
    over.end(3)
    assert execs.ids_of(CONTAINER) == [waiting.id, running.id]
    assert (waiting.is_running, running.is_running, over.is_running) == (False, True, False)
    assert execs.find(over.id).exit_code == 3
    assert over.started.is_set()
    assert over.ended.is_set()


def test_what_ended_goes_after_five_minutes() -> None:
    execs = Execs()
    old, young, running = (make(execs) for _ in range(3))
    now = time.monotonic()
    old.end(0, now=now - KEPT_S)
    young.end(0, now=now)
    with pytest.raises(NotFound, match=f"No such exec instance: {old.id}"):
        execs.find(old.id)
    execs.collect(now)
    assert len(execs) == 2
    assert execs.find(young.id) is young
    assert execs.find(running.id) is running


def test_execs_go_with_their_container() -> None:
    execs = Execs()
    mine, other = make(execs), make(execs, ContainerId("d" * 64))
    execs.forget(CONTAINER)
    execs.forget(CONTAINER)
    assert execs.find(other.id) is other
    with pytest.raises(NotFound):
        execs.find(mine.id)
