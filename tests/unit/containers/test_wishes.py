"""Labels that ask for more than Docker has words for."""

from __future__ import annotations

from typing import Any

import pytest

from tare.base.errors import InvalidArgument
from tare.containers.wishes import boot_waves, check, restarts_when_unhealthy
from tare.wire.config import ContainerConfig


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"tare.on-unhealthy": "restart"},
        {"tare.on-unhealthy": "none"},
        {"tare.start.order": "-3", "tare.start.delay": "0.5"},
    ],
)
def test_what_means_something(labels: dict[str, str]) -> None:
    check(labels)


@pytest.mark.parametrize(
    "labels",
    [
        {"tare.on-unhealthy": "explode"},
        {"tare.start.order": "first"},
        {"tare.start.delay": "-1"},
        {"tare.start.delay": "99999"},
        {"tare.start.delay": "nan"},
    ],
)
def test_what_means_nothing_is_refused(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="invalid label"):
        check(labels)


def test_restarts_when_unhealthy(made: Any) -> None:
    assert restarts_when_unhealthy(made(config=ContainerConfig(Labels={"tare.on-unhealthy": "restart"})))
    assert not restarts_when_unhealthy(made(config=ContainerConfig(Labels={"tare.on-unhealthy": "none"})))
    assert not restarts_when_unhealthy(made(config=ContainerConfig()))


def test_waves_by_order_with_the_longest_delay(made: Any) -> None:
    def one(name: str, **labels: str) -> Any:
        return made(
            name=name, config=ContainerConfig(Labels={f"tare.start.{key}": value for key, value in labels.items()})
        )

    found = boot_waves(
        [one("web", order="2"), one("plain"), one("db", order="-1", delay="3"), one("cache", order="-1", delay="1.5")]
    )
    assert [([member.name for member in members], delay) for members, delay in found] == [
        (["db", "cache"], 3.0),
        (["plain"], 0.0),
        (["web"], 0.0),
    ]
