"""The record: what its states mean."""

from __future__ import annotations

from typing import Any

import pytest

from tare.containers.container import State
from tare.wire.config import ContainerConfig


@pytest.mark.parametrize("state", list(State))
def test_paused_counts_as_running_and_nothing_else_does(made: Any, state: State) -> None:
    container = made(state=state)
    assert container.is_running is (state in (State.RUNNING, State.PAUSED))
    assert container.is_paused is (state is State.PAUSED)


def test_labels_are_never_none(made: Any) -> None:
    assert made(config=ContainerConfig(Labels=None)).labels == {}
    assert made().labels == {"tier": "front"}


def test_a_record_is_replaced_and_not_edited(made: Any) -> None:
    with pytest.raises(AttributeError):
        made().name = "other"
