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


class Sessions:
    """Starts them. `exec_root` is the daemon's own."""

    def __init__(self, *, monitor_path: str, exec_root: Path) -> None:
        self._path = monitor_path
        self._root = exec_root / "execs"

    def clear(self) -> None:
        """Remove what an earlier daemon left: its execs cannot be found again, their monitors end with them."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(mode=0o700, parents=True)

    async def start(
        self,
        exec_id: str,
        *,
        container_id: str,
        runtime: OciRuntime,
        process: Mapping[str, Any],
        has_stdin: bool,
        connected: Callable[[Connector], None] | None,
    ) -> Session:
        """Execute `process` (an OCI process object) in the running container.

        connected: called with a function that connects to the streams when they are ready and before the program runs;
        None lets the output go nowhere. Raises CannotExec with the words a client sees.
        """
        directory = self._root / exec_id
        directory.mkdir(mode=0o700)
        try:
            return await self._start(
                directory,
                exec_id,
                container_id=container_id,
                runtime=runtime,
                process=process,
                has_stdin=has_stdin,
                connected=connected,
            )
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    async def _start(
        self,
        directory: Path,
        exec_id: str,
        *,
        container_id: str,
        runtime: OciRuntime,
        process: Mapping[str, Any],
        has_stdin: bool,
        connected: Callable[[Connector], None] | None,
    ) -> Session:
        specification = directory / "process.json"
        specification.write_bytes(msgspec.json.encode(process))
        argv = [
            self._path, "--api-version", "1", "--sync", "--full-attach", "--no-sync-log", "--no-new-keyring",
            "--exec", "--exec-process-spec", str(specification),
            "--cid", container_id, "--cuuid", exec_id, "--name", exec_id,
            "--runtime", runtime.path, "--bundle", str(directory), "--container-pidfile", str(directory / "pid"),
            "--log-level", "error", "--log-path", "none:",
            *(f"--runtime-arg={argument}" for argument in runtime.global_arguments()),
        ]  # fmt: skip
        if process.get("terminal"):
            argv.append("--terminal")
        if has_stdin:
            argv.append("--stdin")
        if connected is not None:
            argv.append("--exec-attach")
        with ExitStack() as stack:
            sync_read, sync_write = os.pipe2(os.O_CLOEXEC)
            lines = _Lines(sync_read)
            undo = stack.enter_context(ExitStack())
            undo.callback(lines.close)
            theirs = ExitStack()
            theirs.callback(os.close, sync_write)
            environment = {"_OCI_SYNCPIPE": str(sync_write)}
            passed = [sync_write]
            attach: _Lines | None = None
            go = -1
            with theirs:
                if connected is not None:
                    attach_read, attach_write = os.pipe2(os.O_CLOEXEC)
                    attach = _Lines(attach_read)
                    stack.callback(attach.close)
                    theirs.callback(os.close, attach_write)
                    start_read, go = os.pipe2(os.O_CLOEXEC)
                    stack.callback(os.close, go)
                    theirs.callback(os.close, start_read)
                    environment |= {"_OCI_ATTACHPIPE": str(attach_write), "_OCI_STARTPIPE": str(start_read)}
                    passed += [attach_write, start_read]
                    os.write(go, b"0")  # the first wait of conmon is for its parent to place it: it may go on
                errors = os.memfd_create("conmon")
                stack.callback(os.close, errors)
                child = proc.start(argv, env=environment, pass_fds=passed, stderr=errors)
            try:
                if connected is not None and attach is not None and await attach.next() is not None:
                    connected(lambda: connect(directory))
                    os.write(go, b"1")
                line = await lines.next()
            except BaseException:
                child.kill()
                await proc.wait(child)
                raise
            report = _Report(line or b"")
            if report.number <= 0:
                await proc.wait(child)
                words = report.message or os.pread(errors, _LIMIT, 0).decode("utf-8", "replace")
                raise translate(words)
            undo.pop_all()
        return Session(pid=report.number, directory=directory, monitor=child, lines=lines)


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
