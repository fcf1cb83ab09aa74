"""What a container asks of this engine beyond Docker's fields, by labels, so that any client can say it (pure).

tare.on-unhealthy=restart      restart it when its health check fails for good
tare.start.order=N             after a boot, containers with lower numbers start first (default 0)
tare.start.delay=SECONDS       wait so long after this one before the next number starts
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from tare.base.errors import InvalidArgument
from tare.containers.container import Container

ON_UNHEALTHY = "tare.on-unhealthy"
START_ORDER = "tare.start.order"
START_DELAY = "tare.start.delay"
_LONGEST_DELAY_S = 3600.0


def check(labels: Mapping[str, str]) -> None:
    """Refuse values that mean nothing. Raises InvalidArgument."""
    if labels.get(ON_UNHEALTHY, "restart") not in ("restart", "none"):
        raise InvalidArgument(f"invalid label {ON_UNHEALTHY}={labels[ON_UNHEALTHY]}", hint="write restart or none")
    try:
        int(labels.get(START_ORDER, "0"))
        is_sane = 0 <= float(labels.get(START_DELAY, "0")) <= _LONGEST_DELAY_S
    except ValueError:
        is_sane = False
    if not is_sane:
        raise InvalidArgument(
            f"invalid label {START_ORDER} or {START_DELAY}", hint="a whole number, and seconds from 0 to 3600"
        )


def restarts_when_unhealthy(container: Container) -> bool:
    """Whether failing its health check for good restarts it."""
    return container.labels.get(ON_UNHEALTHY) == "restart"


def boot_waves(containers: Iterable[Container]) -> list[tuple[list[Container], float]]:
    """Who starts together after a boot, first wave first, each with the seconds to wait after it."""

    def order(container: Container) -> int:
        return int(container.labels.get(START_ORDER, "0"))

    waves: list[tuple[list[Container], float]] = []
    for _, together in groupby(sorted(containers, key=order), key=order):
        members = list(together)
        waves.append((members, max(float(member.labels.get(START_DELAY, "0")) for member in members)))
    return waves
