"""Health checks: what to run, when, and what the result means (pure).

Source: moby daemon/health.go; durations in Config.Healthcheck are nanoseconds, 0 or absent means the default.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, UnsetType
from msgspec.structs import replace

from tare.wire.config import ContainerConfig, HealthConfig

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
TIMED_OUT = -1
LOG_LENGTH = 5
OUTPUT_BYTES = 4096

_DEFAULT_SHELL = ("/bin/sh", "-c")
_INTERVAL_S = 30.0
_START_INTERVAL_S = 5.0
_TIMEOUT_S = 30.0
_RETRIES = 3


class Probe(Struct, frozen=True, kw_only=True):
    """One run of the check. Times in nanoseconds since the epoch; output cut at `OUTPUT_BYTES`."""

    started_at: int
    ended_at: int
    exit_code: int
    output: str = ""


class Health(Struct, frozen=True, kw_only=True):
    """What is known of a container's health; the last probes, oldest first."""

    status: str = STARTING
    failing_streak: int = 0
    log: tuple[Probe, ...] = ()


class Check(Struct, frozen=True, kw_only=True):
    """A health check with its defaults filled in; durations in seconds."""

    argv: tuple[str, ...]
    interval_s: float = _INTERVAL_S
    timeout_s: float = _TIMEOUT_S
    start_period_s: float = 0.0
    start_interval_s: float = _START_INTERVAL_S
    retries: int = _RETRIES


def check_of(config: ContainerConfig) -> Check | None:
    """The check a container asks for, None where there is none or it is disabled (`NONE`)."""
    wanted = config.Healthcheck
    if not isinstance(wanted, HealthConfig) or not wanted.Test:
        return None
    shell = config.Shell if isinstance(config.Shell, list) and config.Shell else _DEFAULT_SHELL
    argv = _argv(wanted.Test, shell)
    if argv is None:
        return None
    return Check(
        argv=argv,
        interval_s=_seconds(wanted.Interval, _INTERVAL_S),
        timeout_s=_seconds(wanted.Timeout, _TIMEOUT_S),
        start_period_s=_seconds(wanted.StartPeriod, 0.0),
        start_interval_s=_seconds(wanted.StartInterval, _START_INTERVAL_S),
        retries=wanted.Retries or _RETRIES,
    )


def _argv(test: Sequence[str], shell: Sequence[str]) -> tuple[str, ...] | None:
    kind, words = test[0], tuple(test[1:])
    if kind == "CMD" and words:
        return words
    if kind == "CMD-SHELL" and words:
        return (*shell, words[0])
    return None


def _seconds(nanos: int | UnsetType, default: float) -> float:
    return nanos / 1e9 if nanos else default


def pause_before_next(check: Check, health: Health, *, since_start_s: float) -> float:
    """How long to wait before the next probe: the start interval while it starts, the interval afterwards."""
    if health.status == STARTING and since_start_s < check.start_period_s:
        return check.start_interval_s
    return check.interval_s


def judge(check: Check, health: Health, probe: Probe, *, since_start_s: float) -> Health:
    """The health after a probe. Failures inside the start period do not count until it has once been healthy."""
    log = (*health.log, probe)[-LOG_LENGTH:]
    if probe.exit_code == 0:
        return Health(status=HEALTHY, failing_streak=0, log=log)
    if health.status == STARTING and since_start_s < check.start_period_s:
        return replace(health, log=log)
    streak = health.failing_streak + 1
    return Health(status=UNHEALTHY if streak >= check.retries else health.status, failing_streak=streak, log=log)
