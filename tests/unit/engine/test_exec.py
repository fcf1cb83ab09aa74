"""Which containers take an exec, and the sizes of terminals."""

from __future__ import annotations

import pytest

from tare.base.errors import Conflict, InvalidArgument
from tare.base.ids import ContainerId
from tare.containers.container import Container, Process, State
from tare.engine.exec import require_running, size_of
from tare.wire.config import ContainerConfig, HostConfig

PROCESS = Process(pid=1, pid_started=1, monitor_pid=2, monitor_started=2, boot_id="b")


def container(state: State, process: Process | None = PROCESS) -> Container:
    return Container(
        id=ContainerId("c" * 64), name="web", created_at=1, image_id="sha256:1", image_reference="busybox",
        config=ContainerConfig(), host_config=HostConfig(), runtime="crun", state=state, process=process,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "process", "text"),
    [
        (State.EXITED, None, f"container {'c' * 64} is not running"),
        (State.CREATED, None, f"container {'c' * 64} is not running"),
        (State.PAUSED, PROCESS, "Container web is paused, unpause the container before exec"),
        (State.RESTARTING, None, "Container web is restarting, wait until the container is running"),
    ],
)
def test_only_a_running_container_takes_an_exec(state: State, process: Process | None, text: str) -> None:
    with pytest.raises(Conflict) as caught:
        require_running(container(state, process), name="web")
    assert caught.value.message == text


def test_a_running_container_does() -> None:
    require_running(container(State.RUNNING))


def test_size_of() -> None:
    assert size_of(None) == (0, 0)
    assert size_of([24, 80]) == (24, 80)
    for wrong in ([1], [1, 2, 3], [-1, 2], [1, 65536]):
        with pytest.raises(InvalidArgument):
            size_of(wrong)
