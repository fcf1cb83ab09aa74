"""A real daemon in a directory of its own, started, killed and restarted by tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tare.drivers.network.bridge import BridgeDriver

_START_S = 20.0


class Daemon:
    """One engine with its own data root, exec root, socket and bridge."""

    def __init__(self, directory: Path, *, bridge: str, source: Path, arguments: Sequence[str] = ()) -> None:
        self.directory = directory
        self.bridge = bridge
        self.data_root = directory / "data"
        self.exec_root = directory / "run"
        self.socket = directory / "s"
        self.log = directory / "log"
        self._source = source
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def host(self) -> str:
        """For DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._process is not None
        return self._process.pid

    def argv(self) -> list[str]:
        """How it is started."""
        return [
            sys.executable, "-m", "tare.daemon.app",
            "--data-root", str(self.data_root), "--exec-root", str(self.exec_root),
            "-H", self.host, "--bridge", self.bridge, *self._arguments,
        ]  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers. Raises AssertionError with its log."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv(),
                env={**os.environ, "PYTHONPATH": str(self._source)},
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
            except OSError:
                pass
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

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

    def import_image(self, reference: str, tar: bytes, changes: Sequence[str] = ()) -> str:
        """Make an image from a tar. Returns its id."""
        name, _, tag = reference.partition(":")
        query = urlencode([("fromSrc", "-"), ("repo", name), ("tag", tag), *(("changes", c) for c in changes)])
        status, body = self.request(
            "POST", f"/images/create?{query}", body=tar, headers={"Content-Type": "application/x-tar"}
        )
        assert status == 200, body
        return str(json.loads(body.splitlines()[-1])["status"])

    def json(self, method: str, path: str, body: object = None, *, expect: int = 200) -> Any:
        """One exchange of JSON; the status must be `expect`."""
        data = b"" if body is None else json.dumps(body).encode()
        status, answer = self.request(method, path, body=data, headers={"Content-Type": "application/json"})
        assert status == expect, answer
        return json.loads(answer) if answer else None

    def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One request on a connection of its own; the answer's body is read whole."""
        lines = [f"{method} {quote(path, safe='/?&=:%+')} HTTP/1.1", "Host: test", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.socket))
            connection.sendall("\r\n".join(lines).encode() + body)
            raw = b""
            while piece := connection.recv(1 << 20):
                raw += piece
        head, _, rest = raw.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        return status, _unchunk(rest) if b"transfer-encoding: chunked" in head.lower() else rest


def _unchunk(raw: bytes) -> bytes:
    out = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        out += raw[:length]
        raw = raw[length + 2 :]
    return out
