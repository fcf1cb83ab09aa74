"""The engine under torture: one of ours, or any other that a command starts and that speaks the Engine API on a socket."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tare.drivers.network.bridge import BridgeDriver
from tare.testing import audit
from tare.testing.daemon import Daemon
from tare.testing.exchange import Api

ROOT = Path(__file__).resolve().parents[2]
_START_S = 120.0
_POOL = ("--default-address-pool", "base=10.224.0.0/12,size=24")  # others may have used up the common ones
DOCKERD = """sh -c '
mkdir -p {run}
[ -S {run}/c ] || setsid containerd --config /dev/null --root {data}/c --state {run}/cs -a {run}/c &
exec dockerd --containerd {run}/c --data-root {data} --exec-root {run} -H unix://{socket} --pidfile {directory}/pid \\
    --live-restore --iptables=false --ip6tables=false
'"""
"""For `--engine dockerd`: with live-restore, so that its containers survive it, too, and as packaged with a containerd that is
not killed with it."""


class Engine(Api):
    """start, kill and look at it. Paths: `directory` has everything, `data` what must survive."""

    name = ""
    is_ours = False
    directory: Path
    data: Path

    def start(self) -> float:
        """Start it and wait until it answers; the seconds that took. Raises AssertionError with its log."""
        raise NotImplementedError

    def kill(self) -> None:
        """kill -9."""
        raise NotImplementedError

    def findings(self, *, quick: bool = False) -> list[str]:  # noqa: ARG002 - for engines with a check of their own
        """What it finds wrong with itself; nothing where it has no such check."""
        return []

    def destroy(self) -> None:
        """End it and take away everything it made."""
        raise NotImplementedError

    def forget(self) -> None:
        """The same for one whose data are a copy that nobody needs, whatever state it is in."""
        raise NotImplementedError


class Tare(Engine):
    """The engine of this checkout. data: where its data root is, if not in the directory."""

    name = "tare"
    is_ours = True

    def __init__(self, directory: Path, *, data: Path | None = None, arguments: Sequence[str] = ()) -> None:
        arguments = (*_POOL, *arguments)
        self._daemon = Daemon(directory, bridge=_bridge(), source=ROOT / "src", arguments=arguments)
        if data is not None:
            self._daemon.data_root = data
        super().__init__(self._daemon.socket)
        self.directory, self.data = directory, self._daemon.data_root

    @property
    def log(self) -> Path:
        """What it said."""
        return self._daemon.log

    def start(self) -> float:
        began = time.monotonic()
        self._daemon.start()
        return time.monotonic() - began

    def kill(self) -> None:
        self._daemon.kill()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._daemon.stop()

    def findings(self, *, quick: bool = False) -> list[str]:
        return audit.findings(self, quick=quick)

    def destroy(self) -> None:
        self._daemon.destroy()

    def forget(self) -> None:
        if self._daemon.is_alive():
            self._daemon.clear()
        self._daemon.kill()
        driver = BridgeDriver(rules=True)
        try:
            driver.remove_bridge(self._daemon.bridge)
        finally:
            driver.close()
        shutil.rmtree(self.directory)


class Other(Engine):
    """An engine by its start command, in a network namespace of its own. In it {data}, {run}, {socket} and {directory}
    stand for where it has to be. It runs in the foreground; what it starts beside itself is ended with it."""

    def __init__(self, directory: Path, command: str, *, name: str = "", data: Path | None = None) -> None:
        super().__init__(directory / "s", timeout_s=120)
        directory.mkdir(parents=True)
        self.directory, self.data = directory, data or directory / "data"
        self.name = name or Path(shlex.split(command)[0]).name
        places = {"data": self.data, "run": directory / "run", "socket": self.socket, "directory": directory}
        self._argv = shlex.split(command.format(**places))
        self._space = f"tare-torture-{os.getpid()}-{directory.name}"
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(["ip", "netns", "add", self._space], check=True)
        subprocess.run(["ip", "-n", self._space, "link", "set", "lo", "up"], check=True)

    def start(self) -> float:
        began = time.monotonic()
        (self.directory / "pid").unlink(missing_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self._space}", *self._argv],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        while True:
            try:
                if self.request("GET", "/_ping")[0] == 200:
                    return time.monotonic() - began
            except (OSError, EOFError):
                pass
            said = (self.directory / "log").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, said
            assert time.monotonic() - began < _START_S, said
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _left(self) -> list[int]:
        """Processes that name our directory: helpers and containers' monitors that outlive it."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                try:
                    words = Path(f"/proc/{entry}/cmdline").read_bytes()
                except OSError:
                    continue
                if os.fsencode(self.directory) in words:
                    found.append(int(entry))
        return found

    def forget(self) -> None:
        """End it and all it started; take away mounts, namespace and directory."""
        self.kill()
        deadline = time.monotonic() + 10
        while (left := self._left()) and time.monotonic() < deadline:
            for pid in [*_contained(left), *left]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for place in sorted((m for m in mounts if m.startswith((f"{self.directory}/", f"{self.data}/"))), reverse=True):
            subprocess.run(["umount", "-l", place], check=False)
        subprocess.run(["ip", "netns", "del", self._space], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def destroy(self) -> None:
        try:
            for entry in self.json("GET", "/containers/json?all=1"):
                self.request("DELETE", f"/containers/{entry['Id']}?force=1&v=1")
        except OSError:
            pass  # it does not live: what it left is ended by force
        self.forget()


def _contained(pids: Sequence[int]) -> list[int]:
    """All that descends from these processes: what runs in their containers."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - set(pids) - {os.getpid()})


_made = 0


def _bridge() -> str:
    """A name of its own for each engine of this process; the kernel allows fifteen bytes."""
    global _made
    _made += 1
    return f"tq{os.getpid()}x{_made}"


def engine(directory: Path, command: str = "", *, data: Path | None = None, arguments: Sequence[str] = ()) -> Engine:
    """Ours, or the one of the command; not started."""
    if not command:
        return Tare(directory, data=data, arguments=arguments)
    if command == "dockerd":
        return Other(directory, DOCKERD, name="dockerd", data=data)
    return Other(directory, command, data=data)
