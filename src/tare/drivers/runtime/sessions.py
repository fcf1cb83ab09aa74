"""A further process in a running container, held by a conmon of its own.

    <exec-root>/execs/<exec id>/     process.json  pid  attach (socket)  ctl  winsz (fifos)

The directory lives as long as the session. conmon waits with `--exec-attach` until we are connected to its socket, so
that no byte is lost; its synchronisation pipe brings the pid of the process and, when that ended, the exit status.
Facts: containers/conmon 2.1, src/conmon.c (`_OCI_STARTPIPE`, `_OCI_ATTACHPIPE`, `_OCI_SYNCPIPE`).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from tare.aio import proc
from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound
from tare.drivers.runtime.oci import OciRuntime

_LIMIT = 64 * 1024
_CTL_RESIZE = 1
_PREFIX = "OCI runtime exec failed: exec failed: unable to start container process: "
NOT_FOUND, NOT_INVOKABLE = 127, 126

Connector = Callable[[], socket.socket]


class CannotExec(InvalidArgument):
    """The process could not be started; `exit_code` is what inspect shows (126 or 127)."""

    def __init__(self, message: str, *, exit_code: int = NOT_INVOKABLE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Report:
    """One line of conmon's synchronisation pipe: a number and perhaps words."""

    __slots__ = ("message", "number")

    def __init__(self, line: bytes) -> None:
        try:
            value = msgspec.json.decode(line)
            self.number = int(value["data"])
            self.message = str(value.get("message") or "")
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError):
            self.number = -1
            self.message = line.decode("utf-8", "replace")


class _Lines:
    """Lines of a pipe, whatever pieces they come in. Owns the descriptor."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._text = b""

    async def next(self) -> bytes | None:
        """The next line without its end; None when the other side is closed."""
        while b"\n" not in self._text and len(self._text) < _LIMIT:
            await proc.readable(self._fd)
            piece = os.read(self._fd, 4096)
            if not piece:
                return None
            self._text += piece
        line, _, self._text = self._text.partition(b"\n")
        return line

    def close(self) -> None:
        os.close(self._fd)


class Session:
    """A started process. `ended` must be awaited once; it cleans up."""

    def __init__(self, *, pid: int, directory: Path, monitor: subprocess.Popen[bytes], lines: _Lines) -> None:
        self.pid = pid
        self._directory = directory
        self._monitor = monitor
        self._lines = lines

    def resize(self, *, height: int, width: int) -> None:
        """Tell the terminal its size. Raises Conflict when the process has ended."""
        stopped = Conflict("cannot resize a stopped process")
        try:
            fd = os.open(self._directory / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENXIO):
                raise stopped from None
            raise InternalError(f"cannot reach the monitor of an exec: {error}") from error
        try:
            os.write(fd, f"{_CTL_RESIZE} {height} {width}\n".encode())
        except BrokenPipeError:  # it went between the two calls
            raise stopped from None
        finally:
            os.close(fd)

    async def ended(self) -> int | None:
        """Wait for the exit status; None when the monitor was killed and nobody knows it."""
        try:
            line = await self._lines.next()
            return _Report(line).number if line is not None else None
        finally:
            self._lines.close()

    async def cleaned(self) -> None:
        """Wait until the monitor is gone as well, and remove the session's files."""
        await proc.wait(self._monitor)
        shutil.rmtree(self._directory, ignore_errors=True)


class Waiting:
    """A monitor that was started and does nothing yet: it waits at its start pipe. Given to `Sessions.start`, or discarded."""

    def __init__(self, *, directory: Path, is_attached: bool, child: subprocess.Popen[bytes], errors: int, go: int,
                 lines: _Lines, attach: _Lines) -> None:  # fmt: skip
        self.is_attached = is_attached
        self.directory = directory
        self.child = child
        self.lines = lines
        self._errors, self._go, self._attach = errors, go, attach

    async def run(self, process: Mapping[str, Any], connected: Callable[[Connector], None] | None) -> Session:
        """Let it execute `process`; see `Sessions.start`. A failure leaves nothing."""
        try:
            (self.directory / "process.json").write_bytes(msgspec.json.encode(process))
            os.write(self._go, b"0")  # its first wait is for a parent that wants to place it: it may go on
            if connected is not None and await self._attach.next() is not None:
                connected(lambda: connect(self.directory))
                os.write(self._go, b"1")
            report = _Report(await self.lines.next() or b"")
            if report.number <= 0:
                await proc.wait(self.child)
                raise translate(report.message or os.pread(self._errors, _LIMIT, 0).decode("utf-8", "replace"))
        except BaseException:
            self.discard()
            raise
        self._close()
        return Session(pid=report.number, directory=self.directory, monitor=self.child, lines=self.lines)

    def discard(self) -> None:
        """End it. Not by closing the pipe, which it would take for leave to go on."""
        self.child.kill()
        self.child.wait()
        self._close()
        self.lines.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _close(self) -> None:
        os.close(self._errors)
        os.close(self._go)
        self._attach.close()


class Sessions:
    """Starts them. `exec_root` is the daemon's own."""

    def __init__(self, *, monitor_path: str, exec_root: Path) -> None:
        self._path = monitor_path
        self._root = exec_root / "execs"

    def clear(self) -> None:
        """Remove what an earlier daemon left: its execs cannot be found again, their monitors end with them."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(mode=0o700, parents=True)

    def prepare(
        self, exec_id: str, *, container_id: str, runtime: OciRuntime, has_tty: bool, has_stdin: bool, is_attached: bool
    ) -> Waiting:
        """Start the monitor of an exec that is going to be started: it takes a moment to load. Touches no container."""
        directory = self._root / exec_id
        directory.mkdir(mode=0o700)
        argv = [
            self._path, "--api-version", "1", "--sync", "--full-attach", "--no-sync-log", "--no-new-keyring",
            "--exec", "--exec-process-spec", str(directory / "process.json"),
            "--cid", container_id, "--cuuid", exec_id, "--name", exec_id,
            "--runtime", runtime.program, "--bundle", str(directory), "--container-pidfile", str(directory / "pid"),
            "--log-level", "error", "--log-path", "none:",
            *(f"--runtime-arg={argument}" for argument in runtime.global_arguments()),
        ]  # fmt: skip
        if has_tty:
            argv.append("--terminal")
        if has_stdin:
            argv.append("--stdin")
        if is_attached:
            argv.append("--exec-attach")
        with ExitStack() as undo, ExitStack() as theirs:
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            sync, sync_write = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, sync_write)
            lines = _Lines(sync)
            undo.callback(lines.close)
            attach_read, attach_write = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, attach_write)
            attach = _Lines(attach_read)
            undo.callback(attach.close)
            start_read, go = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, start_read)
            undo.callback(os.close, go)
            errors = os.memfd_create("conmon")
            undo.callback(os.close, errors)
            passed = {"_OCI_SYNCPIPE": sync_write, "_OCI_STARTPIPE": start_read}
            if is_attached:
                passed["_OCI_ATTACHPIPE"] = attach_write
            child = proc.start(
                argv,
                env={"TMPDIR": ".", **{name: str(fd) for name, fd in passed.items()}},
                pass_fds=list(passed.values()),
                stderr=errors,
                cwd=directory,
            )
            undo.pop_all()
        return Waiting(
            directory=directory,
            is_attached=is_attached,
            child=child,
            errors=errors,
            go=go,
            lines=lines,
            attach=attach,
        )

    async def start(
        self,
        exec_id: str,
        *,
        container_id: str,
        runtime: OciRuntime,
        process: Mapping[str, Any],
        has_stdin: bool,
        connected: Callable[[Connector], None] | None,
        waiting: Waiting | None = None,
    ) -> Session:
        """Execute `process` (an OCI process object) in the running container.

        connected: called with a function that connects to the streams when they are ready and before the program runs;
        None lets the output go nowhere. waiting: a monitor prepared for it; used if it fits, else discarded.
        Raises CannotExec with the words a client sees.
        """
        is_attached = connected is not None
        if waiting is not None and waiting.is_attached is not is_attached:
            waiting.discard()
            waiting = None
        if waiting is None:
            waiting = self.prepare(
                exec_id,
                container_id=container_id,
                runtime=runtime,
                has_tty=bool(process.get("terminal")),
                has_stdin=has_stdin,
                is_attached=is_attached,
            )
        return await waiting.run(process, connected)


def connect(directory: Path) -> socket.socket:
    """A non-blocking connection to a session's stdio. The path goes through a descriptor: it may be too long."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{fd}/attach")
    except OSError as error:
        sock.close()
        raise NotFound(f"the exec has no monitor: {error}") from None
    finally:
        os.close(fd)
    return sock


_MISSING = re.compile(r"executable file .*not found|no such file or directory", re.IGNORECASE)


def translate(text: str) -> CannotExec:
    """A runtime's complaint as Docker words it, with the exit status it stands for."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "the runtime gave no reason"
    last = re.sub(r"^\d{4}-\d\d-\d\dT\S+Z?:? ", "", last)
    if last.startswith("{"):
        try:
            last = str(msgspec.json.decode(last.encode()).get("msg", last))
        except (msgspec.DecodeError, AttributeError):
            pass
    last = last.removeprefix("exec failed: unable to start container process: ")
    code = NOT_FOUND if _MISSING.search(last) else NOT_INVOKABLE
    return CannotExec(f"{_PREFIX}{last}", exit_code=code)
