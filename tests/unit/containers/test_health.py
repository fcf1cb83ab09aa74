"""Health checks: which program, which pauses, which verdict."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from tare.containers.health import (
    HEALTHY,
    STARTING,
    UNHEALTHY,
    Check,
    Health,
    Probe,
    check_of,
    judge,
    pause_before_next,
)
from tare.wire.config import ContainerConfig, HealthConfig

CHECK = Check(argv=("true",), retries=2, start_period_s=10, start_interval_s=1, interval_s=30)


@pytest.mark.parametrize(
    ("test", "argv"),
    [
        (["CMD", "a", "b"], ("a", "b")),
        (["CMD-SHELL", "a && b"], ("/bin/sh", "-c", "a && b")),
        (["NONE"], None),
        (["CMD"], None),
        ([], None),
    ],
)
def test_argv(test: list[str], argv: tuple[str, ...] | None) -> None:
    check = check_of(ContainerConfig(Healthcheck=HealthConfig(Test=test)))
    assert (check.argv if check else None) == argv


def test_the_images_shell_runs_it() -> None:
    config = ContainerConfig(Shell=["/bin/ash", "-ec"], Healthcheck=HealthConfig(Test=["CMD-SHELL", "x"]))
    found = check_of(config)
    assert found is not None
    assert found.argv == ("/bin/ash", "-ec", "x")


def test_without_a_check_there_is_none() -> None:
    assert check_of(ContainerConfig()) is None
    assert check_of(ContainerConfig(Healthcheck=UNSET)) is None


def test_durations_and_defaults() -> None:
    found = check_of(ContainerConfig(Healthcheck=HealthConfig(Test=["CMD", "x"], Interval=2_500_000_000, Retries=0)))
    assert found == Check(argv=("x",), interval_s=2.5, timeout_s=30.0, retries=3)


def probe(code: int) -> Probe:
    return Probe(started_at=1, ended_at=2, exit_code=code)


def test_failures_in_the_start_period_do_not_count() -> None:
    early = judge(CHECK, Health(), probe(1), since_start_s=5)
    assert (early.status, early.failing_streak, len(early.log)) == (STARTING, 0, 1)
    late = judge(CHECK, early, probe(1), since_start_s=11)
    assert (late.status, late.failing_streak) == (STARTING, 1)
    assert judge(CHECK, late, probe(1), since_start_s=12).status == UNHEALTHY


def test_one_success_is_healthy_and_resets_the_streak() -> None:
    sick = Health(status=UNHEALTHY, failing_streak=7)
    assert judge(CHECK, sick, probe(0), since_start_s=99) == Health(status=HEALTHY, failing_streak=0, log=(probe(0),))
    again = judge(CHECK, Health(status=HEALTHY), probe(1), since_start_s=5)
    assert (again.status, again.failing_streak) == (HEALTHY, 1)


def test_the_last_five_are_kept() -> None:
    health = Health()
    for code in range(8):
        health = judge(CHECK, health, probe(code), since_start_s=99)
    assert [entry.exit_code for entry in health.log] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("status", "since", "pause"), [(STARTING, 3, 1), (STARTING, 10, 30), (HEALTHY, 3, 30), (UNHEALTHY, 3, 30)]
)
def test_pauses(status: str, since: float, pause: float) -> None:
    assert pause_before_next(CHECK, Health(status=status), since_start_s=since) == pause
