"""Orphans that came to us, the subreaper of everything we start, and that nobody waits for: collected when they end.

A program in a container in the host's pid namespace leaves them, as do a monitor, a runtime or a helper that was
killed. Whoever waits for a child by itself has it from `proc.start` or has claimed it (`proc.claimed`).
"""

from __future__ import annotations

import os
from pathlib import Path

from tare.aio import proc

_TASKS = Path("/proc/self/task")


class Orphans:
    """Looks again and again, on the loop's thread."""

    def __init__(self) -> None:
        self._seen: frozenset[int] = frozenset()

    def collect(self) -> list[int]:
        """Collect what had ended at the last look already and is nobody's; returns their pids.

        The pause is for who has yet to claim its child: that of a runtime which ended a moment ago.
        """
        ended = _ended()
        due = [pid for pid in ended if pid in self._seen and _collect(pid)]
        self._seen = ended.difference(due)
        return due


def _ended() -> frozenset[int]:
    """Children that have ended and nobody waits for."""
    if not _is_zombie(os.P_ALL, 0):
        return frozenset()
    return frozenset(pid for pid in _children() if not proc.is_claimed(pid) and _is_zombie(os.P_PID, pid))


def _is_zombie(kind: int, pid: int) -> bool:
    try:
        return os.waitid(kind, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _children() -> set[int]:
    """All of ours, each thread's. Source: proc_pid_task_tid_children(5), a kernel with CONFIG_PROC_CHILDREN."""
    found: set[int] = set()
    for task in os.listdir(_TASKS):
        try:
            found.update(map(int, (_TASKS / task / "children").read_text().split()))
        except OSError:  # the thread has ended: its children are another's now
            continue
    return found


def _collect(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return False
