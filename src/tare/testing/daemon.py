"""A real daemon in a directory of its own, started, killed and restarted by tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tare.drivers.network.bridge import BridgeDriver
from tare.testing.exchange import Api

_START_S = 20.0


class Daemon(Api):
    """One engine with its own data root, exec root, socket and bridge."""

    def __init__(
        self,
        directory: Path,
        *,
        bridge: str,
        source: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """prefix: a command that executes the rest of its line (prlimit, nsenter)."""
        super().__init__(directory / "s")
        self.directory = directory
        self.bridge = bridge
        self.data_root = directory / "data"
        self.exec_root = directory / "run"
        self.log = directory / "log"
        self._source = source
        self._arguments = list(arguments)
        self._prefix = list(prefix)
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._process is not None
        return self._process.pid

    def argv(self) -> list[str]:
        """How it is started."""
        return [
            *self._prefix, sys.executable, "-m", "tare.daemon.app",
            "--data-root", str(self.data_root), "--exec-root", str(self.exec_root),
            "-H", self.host, "--bridge", self.bridge, *self._arguments,
        ]  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers. Raises AssertionError with its log."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv(),
                env={**os.environ, "PYTHONPATH": str(self._source), **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                if self.request("GET", "/_ping")[0] == 200:
                    return
            except (OSError, EOFError):
                pass
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def is_alive(self) -> bool:
        """Whether it runs; one that ended by itself is forgotten."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        return self._process is not None

    def stop(self) -> None:
        """End it as an administrator does; containers go on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_START_S)
            self._process = None

    def destroy(self) -> None:
        """Remove every container, stop, and take bridge, rules and files away."""
        if self._process is None:
            self.start()
        self.clear()
        self.stop()
        driver = BridgeDriver(rules=True)
        try:
            driver.remove_bridge(self.bridge)
        finally:
            driver.close()
        shutil.rmtree(self.directory)

    def clear(self) -> None:
        """Remove every container, volume and network."""
        for entry in self.json("GET", "/containers/json?all=1"):
            self.request("DELETE", f"/containers/{entry['Id']}?force=1&v=1")
        self.request("POST", '/volumes/prune?filters={"all":["true"]}')
        self.request("POST", "/networks/prune")
