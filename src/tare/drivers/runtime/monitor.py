"""conmon: the small C program that holds a container's stdio, writes its log and records its exit status.

    <exec-root>/containers/<id>/     config.json  pid  attach (socket)  ctl  winsz (fifos)  oom
    <exec-root>/exits/<id>           the exit status, written when the container ends

It survives the daemon; everything above is enough to find it again. Facts: containers/conmon 2.1, src/conmon.c.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import time
from functools import cache
from pathlib import Path

from msgspec import Struct

from tare.aio import failpoints, proc, tasks
from tare.base.errors import Conflict, InternalError, NotFound
from tare.drivers.runtime.oci import OciRuntime, translate
from tare.drivers.runtime.streams import MonitorStreams, Streams

_SYNC_LIMIT = 64 * 1024
_CTL_RESIZE = 1
_CTL_REOPEN_LOG = 2


class Started(Struct, frozen=True):
    """A created container: its first process, and the monitor (a child of ours)."""

    pid: int
    monitor: subprocess.Popen[bytes]


class Monitor(Struct, frozen=True):
    """Starts conmon and speaks to running ones through their files."""

    path: str
    exec_root: Path

    def bundle(self, container_id: str) -> Path:
        """The directory given to the runtime."""
        return self.exec_root / "containers" / container_id

    def exits(self) -> Path:
        """Where exit statuses appear."""
        return self.exec_root / "exits"

    async def create(
        self,
        container_id: str,
        *,
        runtime: OciRuntime,
        log_path: Path | None,
        has_tty: bool,
        has_stdin: bool,
        keep_stdin: bool,
    ) -> Started:
        """Start a monitor that creates the container from its bundle; returns when the runtime has done so.

        keep_stdin: the container's stdin stays open when an attached client closes its side.
        Raises CommandNotFound, CommandNotInvokable or InternalError with the runtime's words.
        """
        bundle = self.bundle(container_id)
        _discard(self.exits() / container_id)
        for stale in ("attach", "ctl", "winsz", "oom", "pid"):
            _discard(bundle / stale)
        argv = [
            self.path, "--api-version", "1", "--sync", "--full-attach", "--no-sync-log", "--no-new-keyring",
            "--cid", container_id, "--cuuid", container_id, "--name", container_id,
            "--runtime", runtime.program, "--bundle", str(bundle),
            "--container-pidfile", str(bundle / "pid"),
            "--exit-dir", str(self.exits()), "--log-level", "error",
            "--log-path", f"k8s-file:{log_path}" if log_path is not None else "none:",
            *(f"--runtime-arg={argument}" for argument in runtime.global_arguments()),
        ]  # fmt: skip
        if has_tty:
            argv.append("--terminal")
        if has_stdin:
            argv.append("--stdin")
            if keep_stdin:
                argv.append("--leave-stdin-open")
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        errors = os.memfd_create("conmon")
        try:
            try:
                # conmon makes its file `oom`, and the socket a terminal comes by, in the directory it is started in
                child = proc.start(
                    argv,
                    env={"_OCI_SYNCPIPE": str(write_end), "TMPDIR": "."},
                    pass_fds=[write_end],
                    stderr=errors,
                    cwd=bundle,
                )
            finally:
                os.close(write_end)
            said = bytearray()
            try:
                failpoints.hit("monitor.started")
                report = await _line(read_end, said)
            except BaseException:
                await tasks.settle(_abandon(child, read_end, said), name="end of a monitor")
                raise
            words = os.pread(errors, _SYNC_LIMIT, 0).decode("utf-8", "replace")
        finally:
            os.close(read_end)
            os.close(errors)
        if report is None or int(report.get("data", -1)) <= 0:
            await proc.wait(child)
            raise translate(str((report or {}).get("message") or words))
        return Started(pid=int(report["data"]), monitor=child)

    def exit_code(self, container_id: str) -> int | None:
        """The recorded exit status, None while there is none."""
        try:
            return int((self.exits() / container_id).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def was_oom_killed(self, container_id: str) -> bool:
        """Whether the kernel killed something in it for memory."""
        return (self.bundle(container_id) / "oom").exists()

    def resize(self, container_id: str, *, height: int, width: int) -> None:
        """Tell the terminal its size. Raises Conflict when nobody listens."""
        self._control(container_id, f"{_CTL_RESIZE} {height} {width}\n")

    def reopen_log(self, container_id: str) -> None:
        """After a rotation by rename: write to a new file of the old name."""
        self._control(container_id, f"{_CTL_REOPEN_LOG} 0 0\n")

    def _control(self, container_id: str, line: str) -> None:
        try:
            fd = os.open(self.bundle(container_id) / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENXIO):
                raise Conflict(f"container {container_id} is not running") from None
            raise InternalError(f"cannot reach the monitor of {container_id}: {error}") from error
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)

    def connect(self, container_id: str) -> Streams:
        """The container's stdio. The path goes through a descriptor: socket names are limited to 107 bytes."""
        try:
            directory = os.open(self.bundle(container_id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"container {container_id} has no monitor") from None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{directory}/attach")
        except OSError as error:
            sock.close()
            raise NotFound(f"container {container_id} has no monitor: {error}") from None
        finally:
            os.close(directory)
        return MonitorStreams(sock)


def _discard(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        pass


async def _abandon(child: subprocess.Popen[bytes], fd: int, said: bytearray) -> None:
    """End a monitor whose report nobody waits for any more, and the container it is just creating."""
    report = await _line(fd, said)
    pid = int(report.get("data", -1)) if report is not None else -1
    if pid > 0:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    await proc.wait(child)


async def _line(fd: int, text: bytearray) -> dict[str, int | str] | None:
    """One JSON line from a pipe, None when it is closed without one. text: what has been read of it."""
    os.set_blocking(fd, False)
    while not text.endswith(b"\n") and len(text) < _SYNC_LIMIT:
        await proc.readable(fd)
        piece = os.read(fd, 4096)
        if not piece:
            break
        text += piece
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


async def until_ended(pid: int) -> None:
    """Wait until a monitor that an earlier daemon started has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await proc.readable(pidfd)
    finally:
        os.close(pidfd)


def send_signal(pid: int, started: int, number: int) -> bool:
    """Signal a process, unless its pid now belongs to another (start time differs). False when it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def takes_signal(pid: int, number: int) -> bool:
    """Whether a process has said what it does with a signal: it catches, blocks or ignores it; also when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True
    masks = (line.split()[1] for line in status.splitlines() if line.startswith((b"SigBlk:", b"SigIgn:", b"SigCgt:")))
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none (or only its zombie)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def seconds_since(ticks: int) -> float:
    """How long ago a `start_time` was."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


@cache
def boot_id() -> str:
    """Names this boot of the kernel: a pid and start time mean nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
