"""Whether and when a container that ended is started again (pure).

Source: moby daemon/internal/restartmanager/restartmanager.go.
"""

from __future__ import annotations

from tare.wire.config import RestartRule

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 60.0
_STEADY_S = 10.0


def next_delay(previous_s: float, *, ran_s: float) -> float:
    """How long to wait before the next start: doubling from 0.1 s to a minute, from the start after a run of 10 s."""
    if previous_s == 0.0 or ran_s >= _STEADY_S:
        return FIRST_DELAY_S
    return min(previous_s * 2, LONGEST_DELAY_S)


def restarts(rule: RestartRule, *, exit_code: int, restart_count: int, was_stopped_by_user: bool) -> bool:
    """Whether the policy starts it again after this exit. What a user stopped stays stopped."""
    if was_stopped_by_user:
        return False
    if rule.Name in ("always", "unless-stopped"):
        return True
    if rule.Name == "on-failure":
        return exit_code != 0 and (rule.MaximumRetryCount == 0 or restart_count < rule.MaximumRetryCount)
    return False


def starts_with_the_daemon(rule: RestartRule, *, exit_code: int, was_stopped_by_user: bool) -> bool:
    """Whether it is started when the daemon starts and finds it not running, though it has run before.

    `always` means that even for one that a user stopped.
    """
    if rule.Name == "always":
        return True
    return restarts(rule, exit_code=exit_code, restart_count=0, was_stopped_by_user=was_stopped_by_user)
