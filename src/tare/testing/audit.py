"""The one checker: what an engine finds wrong with itself (`tare system check`), for tests to be empty at their end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from tare.testing.exchange import Api

_PATIENCE_S = 5.0


def findings(engine: Api, *, quick: bool = False, patience_s: float = _PATIENCE_S) -> list[str]:
    """Everything that is not as it must be while nothing goes on, one line each. `quick`: contents are not read.

    What is being deleted in the background, and links the kernel removes by itself, get `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    while found := _findings(engine, quick=quick):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return found


def until(what: str, holds: Callable[[], bool], *, patience_s: float = 15.0) -> None:
    """Wait for something that tells nobody when it happens. Raises AssertionError with `what` when it does not."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def _findings(engine: Api, *, quick: bool) -> list[str]:
    status, body = engine.request("POST", f"/tare/v1/check?quiet=1&quick={int(quick)}")
    assert status == 200, body
    lines = [json.loads(line) for line in body.splitlines()]
    assert "Summary" in lines[-1], lines[-1]
    return ["{Kind} {Subject}: {Text}".format(**line["Finding"]) for line in lines if "Finding" in line]
