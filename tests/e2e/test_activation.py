"""An engine whose socket somebody made before: clients wait for it while it starts, and while it is started anew."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@contextmanager
def engine(own: Daemon, listening: int, manager: Path) -> Iterator[None]:
    """Started as systemd does it: the socket is descriptor 3, the variables name the process."""
    words = [str(word) for word in own.argv()]
    words[words.index("-H") + 1] = "fd://"
    started = subprocess.Popen(
        ["/bin/bash", "-c", f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&{listening}', "bash", *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "NOTIFY_SOCKET": str(manager)},
        pass_fds=[listening], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        started.terminate()
        assert started.wait(20) == 0


def test_clients_wait_while_it_starts_and_is_started_anew(scratch: Path) -> None:
    own = Daemon(scratch / "act", bridge=f"ta{os.getpid()}", source=REPOSITORY / "src")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        listening.bind(str(own.socket))
        listening.listen()
        manager.bind(str(own.directory / "notify"))
        manager.settimeout(20)
        for _ in range(2):
            with engine(own, listening.fileno(), own.directory / "notify"):
                assert own.request("GET", "/_ping") == (200, b"OK")  # sent before anybody listens to it
                assert manager.recv(64) == b"READY=1"
            assert manager.recv(64) == b"STOPPING=1"
            assert own.socket.exists(), "it is the manager's"
    own.socket.unlink()
    own.destroy()
