"""dockerd as Debian packages it, to compare with: alone with roots, a socket and a network namespace of its own.

Two engines in one network namespace delete each other's rules. Its namespace has a loopback and no way out.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

from tare.drivers import linux
from tare.drivers.network.nft import Nft

_START_S = 60.0
_NEAR, _FAR = "10.254.253.1", "10.254.253.2"
PROGRAMS = ("dockerd", "containerd", "ip", "nsenter", "docker")


def missing() -> str:
    """The first program that is not installed; "" when all are there."""
    return next((program for program in PROGRAMS if shutil.which(program) is None), "")


class Reference:
    """One dockerd. `inside` is what a program begins with that is to see its loopback."""

    def __init__(self, directory: Path, *, space: str) -> None:
        """space: the name of the network namespace to make."""
        self.directory = directory
        self.socket = directory / "s"
        self.inside = ["nsenter", f"--net=/run/netns/{space}"]
        self._space = space
        self._process: subprocess.Popen[bytes] | None = None
        self._table = ""
        directory.mkdir()
        subprocess.run(["ip", "netns", "add", space], check=True)
        subprocess.run(["ip", "-n", space, "link", "set", "lo", "up"], check=True)

    @property
    def host(self) -> str:
        """For DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers. Raises AssertionError with the end of its log."""
        log = self.directory / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [
                    *self.inside, "dockerd", "--data-root", self.directory / "data", "--exec-root", self.directory / "x",
                    "-H", self.host, "--pidfile", self.directory / "pid",
                ],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, log.read_text()[-500:]
            assert time.monotonic() < deadline, log.read_text()[-500:]
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: reference\r\nConnection: close\r\n\r\n")
                return connection.recv(64).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

    def stop(self) -> None:
        """SIGTERM, and wait until it is gone."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_START_S)
        self._process = None

    def open_network(self) -> None:
        """A link to the host, and translation there, so that its containers reach what the host reaches. Idempotent.

        The link goes with the namespace, the table of rules with `destroy`.
        """
        if self._table:
            return
        near, table = f"tr{os.getpid()}", f"tare-reference-{os.getpid()}"
        for argv in (
            ["ip", "link", "add", near, "type", "veth", "peer", "name", "up0", "netns", self._space],
            ["ip", "address", "add", f"{_NEAR}/30", "dev", near],
            ["ip", "link", "set", near, "up"],
            ["ip", "-n", self._space, "address", "add", f"{_FAR}/30", "dev", "up0"],
            ["ip", "-n", self._space, "link", "set", "up0", "up"],
            ["ip", "-n", self._space, "route", "add", "default", "via", _NEAR],
        ):
            subprocess.run(argv, check=True)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        with closing(Nft()) as nft:
            nft.run(
                f"table ip {table} {{\nchain out {{\ntype nat hook postrouting priority srcnat;\n"
                f"ip saddr {_FAR} masquerade\n}}\n}}\n"
            )
        self._table = table

    def destroy(self) -> None:
        """Remove every container, stop it, and take away what it made. Idempotent."""
        if self._process is not None and self._process.poll() is None:
            names = self._docker("ps", "-aq").stdout.split()
            if names:
                self._docker("rm", "-f", *names)
            self.stop()
        if self._table:
            with closing(Nft()) as nft:
                nft.run(f"delete table ip {self._table}")
            self._table = ""
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for place in sorted((mount for mount in mounts if mount.startswith(f"{self.directory}/")), reverse=True):
            linux.umount(place, linux.MNT_DETACH)
        subprocess.run(["ip", "netns", "del", self._space], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _docker(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", "-H", self.host, *argv], capture_output=True, text=True, check=False)
