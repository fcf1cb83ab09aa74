"""A further process in a running container: started by the runtime, which then leaves, and held by this daemon.

    <exec-root>/execs/<exec id>/     process.json  log  pid  console (socket); only while it is being started

The process is orphaned when the runtime ends and becomes a child of ours, since we are a subreaper: its exit status is
ours to collect. Its pipes or its terminal are held here and nowhere else, so it outlives a daemon that is killed but
not its streams (ADR 0024).
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tare.aio import failpoints, proc, tasks
from tare.base.errors import Conflict, InternalError, InvalidArgument
from tare.drivers.runtime.oci import OciRuntime
from tare.drivers.runtime.streams import PipeStreams, Streams, TerminalStreams, wide_pipe

_LIMIT = 64 * 1024
_PATIENCE_S = 2.0
_PREFIX = "OCI runtime exec failed: exec failed: unable to start container process: "
NOT_FOUND, NOT_INVOKABLE = 127, 126


class CannotExec(InvalidArgument):
    """The process could not be started; `exit_code` is what inspect shows (126 or 127)."""

    def __init__(self, message: str, *, exit_code: int = NOT_INVOKABLE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Session:
    """A started process. `ended` must be awaited once. `streams` belong to the caller; None when they go nowhere."""

    def __init__(self, *, pid: int, streams: Streams | None) -> None:
        """`pid` is a child of this process, or was made by a runtime that puts another parent in between.

        Raises OSError when no descriptor is left.
        """
        self.pid = pid
        self.streams = streams
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended, and somebody else has collected it
            self._pidfd = -1
        self._claim = ExitStack()
        self._claim.enter_context(proc.claimed(pid))

    def kill(self) -> None:
        """SIGKILL, to this process and to no other that has its number by now. One that has ended is left alone."""
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def resize(self, *, height: int, width: int) -> None:
        """Tell the terminal its size. Raises Conflict when the process has ended or has no terminal."""
        try:
            if isinstance(self.streams, TerminalStreams):
                self.streams.resize(height=height, width=width)
                return
        except OSError:
            pass
        raise Conflict("cannot resize a stopped process")

    async def ended(self) -> int | None:
        """Wait for the exit status, 128 and the signal for a killed one; None when it is not ours to know."""
        with self._claim:
            if self._pidfd < 0:
                return None
            try:
                await proc.readable(self._pidfd)
                try:
                    found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
                except ChildProcessError:
                    return None
            finally:
                os.close(self._pidfd)
                self._pidfd = -1
        assert found is not None
        return found.si_status if found.si_code == os.CLD_EXITED else 128 + found.si_status


class Sessions:
    """Starts them. `exec_root` is the daemon's own."""

    def __init__(self, *, exec_root: Path) -> None:
        self._root = exec_root / "execs"

    def clear(self) -> None:
        """Remove what an earlier daemon left: its execs cannot be found again."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(mode=0o700, parents=True)

    async def start(
        self,
        exec_id: str,
        *,
        container_id: str,
        runtime: OciRuntime,
        process: Mapping[str, Any],
        is_attached: bool,
        has_stdin: bool,
        owner: tuple[int, int] | None = None,
    ) -> Session:
        """Execute `process` (an OCI process object) in the running container.

        is_attached: its output is wanted, has_stdin: it gets input; a terminal has both at any rate.
        owner: (uid, gid) on the host that the pipes are given to, so that it may open /dev/stdout anew.
        Raises CannotExec with the words a client sees.
        """
        directory = self._root / exec_id
        directory.mkdir(mode=0o700)
        try:
            (directory / "process.json").write_bytes(msgspec.json.encode(process))
            if process.get("terminal"):
                return await _with_terminal(directory, container_id, runtime, process)
            return await _with_pipes(
                directory, container_id, runtime, process, is_attached=is_attached, has_stdin=has_stdin, owner=owner
            )
        finally:
            shutil.rmtree(directory, ignore_errors=True)


async def _with_pipes(
    directory: Path,
    container_id: str,
    runtime: OciRuntime,
    process: Mapping[str, Any],
    *,
    is_attached: bool,
    has_stdin: bool,
    owner: tuple[int, int] | None,
) -> Session:
    with ExitStack() as ours, ExitStack() as theirs:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        theirs.callback(os.close, nothing)
        given, held = [nothing, nothing, nothing], [-1, -1, -1]
        for number in range(3):
            if has_stdin if number == 0 else is_attached:
                ends = wide_pipe()
                held[number], given[number] = ends if number else reversed(ends)
                ours.callback(os.close, held[number])
                theirs.callback(os.close, given[number])
                if owner is not None:
                    os.fchown(given[number], *owner)
        pid = await _run(directory, container_id, runtime, process, given=given, theirs=theirs)
        streams = PipeStreams(stdin=held[0], stdout=held[1], stderr=held[2]) if is_attached or has_stdin else None
        session = await _held(pid, streams)
        ours.pop_all()
        return session


async def _with_terminal(
    directory: Path, container_id: str, runtime: OciRuntime, process: Mapping[str, Any]
) -> Session:
    with _listening(directory) as listener, ExitStack() as theirs:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        theirs.callback(os.close, nothing)
        options = ("--console-socket", "console")
        pid = await _run(directory, container_id, runtime, process, *options, given=[nothing] * 3, theirs=theirs)
        try:
            terminal = TerminalStreams(_terminal(listener))
        except InternalError:
            await proc.end(pid)
            raise
        try:
            return await _held(pid, terminal)
        except OSError:
            terminal.close()
            raise


async def _held(pid: int, streams: Streams | None) -> Session:
    """What cannot be held does not go on."""
    try:
        return Session(pid=pid, streams=streams)
    except OSError:
        await proc.end(pid)
        raise


async def _run(
    directory: Path,
    container_id: str,
    runtime: OciRuntime,
    process: Mapping[str, Any],
    *options: str,
    given: list[int],
    theirs: ExitStack,
) -> int:
    """Let the runtime start it; returns its pid. `theirs` is closed once the runtime has them.

    What was asked to be executed may run although this fails or is cancelled: then it is killed.
    """
    argv = [
        runtime.program, "--log", "log", "--log-format", "json", *runtime.global_arguments(),
        "exec", "--detach", "--process", "process.json", "--pid-file", "pid", *options, container_id,
    ]  # fmt: skip
    failpoints.hit("exec.start")
    with theirs:
        child = proc.start(argv, stdin=given[0], stdout=given[1], stderr=given[2], cwd=directory)
    try:
        # Born below the daemon it would be spared like the daemon when memory is short; crun sets this at create only.
        Path(f"/proc/{child.pid}/oom_score_adj").write_text(str(process.get("oomScoreAdj", 0)))
        status = await proc.wait(child)
        if status != 0:
            raise translate(_text(directory / "log"))
        failpoints.hit("exec.started")
        return _pid(directory)
    except BaseException:
        await tasks.settle(_abandon(child, directory), name="end of an exec")
        raise


async def _abandon(child: subprocess.Popen[bytes], directory: Path) -> None:
    """End what nobody will hold. The runtime gets the time to say what it has made: killed before, it leaves a process
    behind that nobody knows, and that may still become the program."""
    try:
        await asyncio.wait_for(proc.wait(child), _PATIENCE_S)
    except TimeoutError:
        child.kill()
        await proc.wait(child)
    if _text(directory / "pid"):
        await proc.end(_pid(directory))


def _pid(directory: Path) -> int:
    """What the runtime made. Raises InternalError if it did not say."""
    text = _text(directory / "pid")
    try:
        return int(text)
    except ValueError:
        raise InternalError(f"the runtime wrote {text[:40]!r} for a pid") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


@contextmanager
def _listening(directory: Path) -> Iterator[socket.socket]:
    """At `console` in it. The name goes through a descriptor: socket names are limited to 107 bytes."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as listener:
            listener.bind(f"/proc/self/fd/{fd}/console")
            listener.listen(1)
            yield listener
    finally:
        os.close(fd)


def _terminal(listener: socket.socket) -> int:
    """The descriptor the runtime sent before it ended. Raises InternalError if it sent none."""
    try:
        connection, _ = listener.accept()
        with connection:
            connection.setblocking(False)
            _, found, _, _ = socket.recv_fds(connection, 4096, 1, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise InternalError(f"the runtime sent no terminal: {error}") from error
    if not found:
        raise InternalError("the runtime sent no terminal")
    return found[0]


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
