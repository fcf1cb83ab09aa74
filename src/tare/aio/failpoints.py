"""Failpoints: named places between two steps of which the second must not be taken for granted. For tests only.

    TARE_FAILPOINTS=DIRECTORY   in the daemon's environment; nothing else switches them on
    DIRECTORY/<name>            what happens when the place is passed next: `error`, `kill`, or `delay SECONDS`

The file is removed when its place is passed, so each works once and a test sees that it was reached; without a file
nothing happens. Every name stands in docs/reliability.md.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

_directory = os.environ.get("TARE_FAILPOINTS", "")


def hit(name: str, error: type[Exception] = OSError) -> None:
    """Pass the place `name`, at a step that can fail. error: what that one raises when it does."""
    if _directory:
        _act(name, error)


def passed(name: str) -> None:
    """Pass the place `name`, where nothing can fail (a step is durable, memory follows): `kill` and `delay` only."""
    if _directory:
        _act(name, None)


def _act(name: str, error: type[Exception] | None) -> None:
    file = Path(_directory) / name
    try:
        action, _, value = file.read_text().strip().partition(" ")
        file.unlink()  # two threads may pass at once: the first has it
    except FileNotFoundError:
        return
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "delay":
            time.sleep(float(value))
        case "error" if error is not None:
            raise error(errno.EIO, f"failpoint {name}") if error is OSError else error(f"failpoint {name}")
        case _:
            raise ValueError(f"{file}: {action!r} cannot happen there")
