"""Restart policies and their back-off."""

from __future__ import annotations

import pytest

from tare.containers.restart import LONGEST_DELAY_S, next_delay, restarts, starts_with_the_daemon
from tare.wire.config import RestartRule


def test_the_delay_doubles_up_to_a_minute_and_a_steady_run_resets_it() -> None:
    delays = [next_delay(0.0, ran_s=0)]
    while delays[-1] < LONGEST_DELAY_S:
        delays.append(next_delay(delays[-1], ran_s=1))
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == next_delay(LONGEST_DELAY_S, ran_s=1) == 60.0
    assert next_delay(30.0, ran_s=10) == 0.1


@pytest.mark.parametrize(
    ("name", "most", "code", "count", "by_user", "live", "at_start"),
    [
        ("no", 0, 1, 0, False, False, False),
        ("", 0, 1, 0, False, False, False),
        ("always", 0, 0, 9, False, True, True),
        ("always", 0, 0, 0, True, False, True),
        ("unless-stopped", 0, 0, 0, False, True, True),
        ("unless-stopped", 0, 137, 0, True, False, False),
        ("on-failure", 0, 0, 0, False, False, False),
        ("on-failure", 0, 1, 99, False, True, True),
        ("on-failure", 3, 1, 2, False, True, True),
        ("on-failure", 3, 1, 3, False, False, True),
    ],
)
def test_policies(name: str, most: int, code: int, count: int, by_user: bool, live: bool, at_start: bool) -> None:
    rule = RestartRule(Name=name, MaximumRetryCount=most)
    assert restarts(rule, exit_code=code, restart_count=count, was_stopped_by_user=by_user) is live
    assert starts_with_the_daemon(rule, exit_code=code, was_stopped_by_user=by_user) is at_start
