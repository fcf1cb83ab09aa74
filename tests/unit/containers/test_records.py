"""Records on disk: what is written is what is read, and the name is unique."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tare.base.clock import Nanos
from tare.base.ids import ContainerId
from tare.containers import records
from tare.containers.container import MountPoint, Process, State
from tare.wire.config import ContainerConfig, HealthConfig, HostConfig, Mount


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:")
    opened.executescript(records.SCHEMA)
    yield opened
    opened.close()


def test_a_record_comes_back_as_it_was(made: Any, connection: sqlite3.Connection) -> None:
    container = made(
        config=ContainerConfig(Cmd="one string", Env=None, Healthcheck=HealthConfig(Test=["NONE"]), Labels={"é": "\0"}),
        host_config=HostConfig(Mounts=[Mount(Type="tmpfs", Target="/t")], Memory=1 << 40, OomKillDisable=None),
        mounts=(MountPoint(type="bind", source="/a", destination="/b", is_writable=False),),
        state=State.PAUSED,
        process=Process(pid=1, pid_started=2, monitor_pid=3, monitor_started=4, boot_id="x"),
        started_at=Nanos(5),
        exit_code=137,
        error="line\nline",
    )
    records.insert(connection, container)
    assert records.load_all(connection) == [container]
    assert records.decode(records.encode(container)) == container


def test_name_and_id_are_unique(made: Any, connection: sqlite3.Connection) -> None:
    records.insert(connection, made())
    with pytest.raises(sqlite3.IntegrityError):
        records.insert(connection, made(id=ContainerId("b" * 64)))
    with pytest.raises(sqlite3.IntegrityError):
        records.insert(connection, made(name="other"))


def test_update_renames_and_never_brings_back(made: Any, connection: sqlite3.Connection) -> None:
    records.insert(connection, made())
    records.update(connection, made(name="db"))
    records.insert(connection, made(id=ContainerId("b" * 64)))
    records.delete(connection, ContainerId("a" * 64))
    records.delete(connection, ContainerId("a" * 64))
    records.update(connection, made(name="db"))
    assert [container.name for container in records.load_all(connection)] == ["web"]


def test_oldest_first(made: Any, connection: sqlite3.Connection) -> None:
    for number in (3, 1, 2):
        records.insert(connection, made(id=ContainerId(str(number) * 64), name=f"c{number}", created_at=Nanos(number)))
    assert [container.created_at for container in records.load_all(connection)] == [1, 2, 3]


def test_what_cannot_be_read_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        records.decode(b"{}")
