"""Further processes of running containers: what was asked of each, and how it fares. In memory only.

An exec is created, started once, and ends; clients read its exit status from it for `KEPT_S` seconds more. It goes
with its container. All of it lives on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from msgspec import Struct, field

from tare.base.errors import NotFound
from tare.base.ids import ContainerId
from tare.containers.hub import Hub

KEPT_S = 300.0
_COLLECT_S = 10.0


class Wish(Struct, frozen=True, kw_only=True):
    """What a client asked for. `detach_keys` are bytes, empty for the default; `argv` has at least one word."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    cwd: str = ""
    has_tty: bool = False
    is_privileged: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: bytes = b""
    size: tuple[int, int] = (0, 0)  # height, width


class Exec(Struct, kw_only=True):
    """One exec. `started` is set when it runs or failed to, `ended` when `exit_code` is known."""

    id: str
    container_id: ContainerId
    wish: Wish
    hub: Hub = field(default_factory=Hub)
    is_claimed: bool = False  # somebody started it
    pid: int = 0
    exit_code: int | None = None
    ended_at: float = 0.0  # time.monotonic() at its end
    started: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    resize: Callable[[int, int], None] | None = None  # height, width; while it runs
    kill: Callable[[], None] | None = None  # the same: SIGKILL to its process and no other

    @property
    def is_running(self) -> bool:
        """Whether its process exists."""
        return self.pid != 0 and self.exit_code is None

    def end(self, exit_code: int, *, now: float | None = None) -> None:
        """It ended, or could not start, with this status. now: monotonic seconds."""
        self.exit_code = exit_code
        self.ended_at = time.monotonic() if now is None else now
        self.resize = self.kill = None
        self.started.set()
        self.ended.set()


class Execs:
    """All of them, by id."""

    def __init__(self) -> None:
        self._all: dict[str, Exec] = {}
        self._collected_at = 0.0

    def __len__(self) -> int:
        return len(self._all)

    def add(self, exec_: Exec) -> None:
        """Remember it; now and then what is over for long enough goes."""
        now = time.monotonic()
        if now - self._collected_at >= _COLLECT_S:
            self._collected_at = now
            self.collect(now)
        self._all[exec_.id] = exec_

    def find(self, exec_id: str) -> Exec:
        """By full id. Raises NotFound."""
        exec_ = self._all.get(exec_id)
        if exec_ is None or _is_stale(exec_, time.monotonic()):
            raise NotFound(f"No such exec instance: {exec_id}")
        return exec_

    def ids_of(self, container_id: str) -> list[str]:
        """Those of a container that wait or run, as inspect shows them."""
        return [e.id for e in self._all.values() if e.container_id == container_id and e.exit_code is None]

    def forget(self, container_id: str) -> None:
        """The container is gone and its execs with it. Idempotent."""
        for exec_id in [e.id for e in self._all.values() if e.container_id == container_id]:
            del self._all[exec_id]

    def collect(self, now: float) -> None:
        """Drop what ended `KEPT_S` seconds before `now` (monotonic)."""
        for exec_id in [e.id for e in self._all.values() if _is_stale(e, now)]:
            del self._all[exec_id]


def _is_stale(exec_: Exec, now: float) -> bool:
    return exec_.exit_code is not None and now - exec_.ended_at >= KEPT_S
