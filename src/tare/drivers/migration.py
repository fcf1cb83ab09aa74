"""Moving a process into a control group, without the wait that the first move pays.

Each write to a `cgroup.procs` takes a lock for writing that every fork takes for reading. The kernel keeps such a lock
cheap for its readers, and the first writer after a pause of some 20 ms waits for an RCU grace period: 8 to 16 ms here,
0.01 ms when another write was just before. The OCI runtime is that first writer at every start and exec. So the wait is
begun when a request announces a start, beside the work that comes before the move: the daemon "moves" itself to where
it is, and again every few milliseconds while the start is due. The lock is one for all hierarchies.

Source: kernel/cgroup/cgroup.c (`cgroup_threadgroup_rwsem`), kernel/rcu/sync.c; measured on Linux 6.18.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from tare.drivers.cgroups import Layout

log = logging.getLogger(__name__)

DUE_S = 0.5
"""How long after its announcement a start is still expected, and others after it: they come in rows."""
_AGAIN_S = 0.01


def own_group_file(layout: Layout, own_cgroups: str) -> str:
    """The `cgroup.procs` of this process in any hierarchy that is mounted; "" when there is none.

    own_cgroups: the text of /proc/self/cgroup.
    """
    for line in own_cgroups.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        root = (
            layout.unified
            if number == "0"
            else next((layout.trees[n] for n in names.split(",") if n in layout.trees), None)
        )
        if root is not None and not path.startswith("/.."):
            return f"{root}{path.rstrip('/')}/cgroup.procs"
    return ""


class Migration:
    """Keeps the lock ready while a move is expected: a write each 10 ms, which takes 0.01. One thread, asleep otherwise."""

    def __init__(self, layout: Layout, *, move: Callable[[str], None] | None = None) -> None:
        self._layout = layout
        self._move = move or _move_self
        self._until = 0.0
        self._is_usable = True
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None

    def expect(self) -> None:
        """A process is about to be moved into a group. Costs the caller nothing."""
        self._until = time.monotonic() + DUE_S
        if self._is_usable and not self._awake.is_set():
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_ready, name="tare-migration", daemon=True)
                self._thread.start()
            self._awake.set()

    def _keep_ready(self) -> None:
        while self._is_usable:
            self._awake.wait()
            while time.monotonic() < self._until and self._is_usable:
                self._touch()
                time.sleep(_AGAIN_S)
            self._awake.clear()

    def _touch(self) -> None:
        try:
            with open("/proc/self/cgroup") as file:
                path = own_group_file(self._layout, file.read())
            if not path:
                raise FileNotFoundError("this process is in no group of a hierarchy that is mounted")
            self._move(path)
        except OSError as error:
            self._is_usable = False
            log.info("starts wait for the kernel's lock of control groups: %s", error)


def _move_self(path: str) -> None:
    """Write our own pid to where it stands already: nothing changes."""
    group = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(group, b"0")
    finally:
        os.close(group)
