"""A further process in a running container: started by the runtime, which then leaves, and held by this daemon.

    <exec-root>/execs/<exec id>/     log  pid  console (socket); only while it is being started

The process is orphaned when the runtime ends and becomes a child of ours, since we are a subreaper: its exit status is
ours to collect. Its pipes or its terminal are held here and nowhere else, so it outlives a daemon that is killed but
not its streams (ADR 0024).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tare.aio import failpoints, proc, tasks
from tare.base.errors import Conflict, InternalError, InvalidArgument
from tare.drivers.runtime.oci import OciRuntime
from tare.drivers.runtime.streams import PipeStreams, Streams, TerminalStreams, wide_pipe

log = logging.getLogger(__name__)

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


class Asked(Struct, frozen=True, kw_only=True):
    """Where something is to be executed, and which streams it gets: what the runtime is told by its arguments.

    is_attached: the output is wanted; has_stdin: there is input; a terminal has both at any rate.
    """

    container_id: str
    runtime: OciRuntime
    has_terminal: bool
    is_attached: bool
    has_stdin: bool


class Sessions:
    """Starts them. `exec_root` is the daemon's own."""

    def __init__(self, *, exec_root: Path) -> None:
        self._root = exec_root / "execs"

    def clear(self) -> None:
        """Remove what an earlier daemon left: its execs cannot be found again."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(mode=0o700, parents=True)

    @asynccontextmanager
    async def opening(self, exec_id: str, asked: Asked) -> AsyncIterator[Opening]:
        """Start the runtime, which loads itself and the container's configuration while the caller finds out what
        process it shall execute. Left without `execute`, nothing has happened.

        Raises OSError when it cannot be started.
        """
        failpoints.hit("exec.start")
        opening = Opening(f"{self._root}/{exec_id}", asked)
        try:
            yield opening
        except BaseException:
            await tasks.settle(opening.abandon(), name="end of an exec")
            raise
        finally:
            opening.close()


class Opening:
    """A runtime that runs already and learns by a pipe what to execute."""

    def __init__(self, directory: str, asked: Asked) -> None:
        self.asked = asked
        self._directory = directory
        self._ends = [-1, -1, -1]  # our ends of its pipes, until a session takes them
        self._process = -1  # where to say it
        self._listener: socket.socket | None = None
        self._ours = ExitStack()
        os.mkdir(directory, 0o700)
        self._ours.callback(shutil.rmtree, directory, ignore_errors=True)
        self._ours.callback(self._close_pipes)
        try:
            with ExitStack() as theirs:
                self._child = self._start(theirs)
        except BaseException:
            self._ours.close()
            raise

    def _start(self, theirs: ExitStack) -> subprocess.Popen[bytes]:
        """`theirs` is closed once the runtime has its ends."""
        asked = self.asked
        options: tuple[str, ...] = ()
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        theirs.callback(os.close, nothing)
        given = [nothing, nothing, nothing]
        if asked.has_terminal:
            self._listener = self._ours.enter_context(_listening(self._directory))
            options = ("--console-socket", "console")
        else:
            for number in range(3):
                if asked.has_stdin if number == 0 else asked.is_attached:
                    ends = wide_pipe()
                    self._ends[number], given[number] = ends if number else reversed(ends)
                    theirs.callback(os.close, given[number])
        source, self._process = os.pipe2(os.O_CLOEXEC)
        theirs.callback(os.close, source)
        argv = [
            asked.runtime.program, "--log", "log", "--log-format", "json", *asked.runtime.global_arguments(),
            "exec", "--detach", "--process", f"/proc/self/fd/{source}", "--pid-file", "pid", *options,
            asked.container_id,
        ]  # fmt: skip
        return proc.start(
            argv, stdin=given[0], stdout=given[1], stderr=given[2], cwd=Path(self._directory), pass_fds=(source,)
        )

    async def execute(self, process: Mapping[str, Any], *, owner: tuple[int, int] | None = None) -> Session:
        """Execute `process`, an OCI process object. Once. It may run although this fails or is cancelled: `opening` kills
        it then.

        owner: (uid, gid) on the host that the pipes are given to, so that it may open /dev/stdout anew.
        Raises CannotExec with the words a client sees.
        """
        if owner is not None:
            for end in self._ends:
                if end >= 0:
                    os.fchown(end, *owner)
        if self.asked.has_terminal:
            _prefer(self._child.pid)
        # Born below the daemon it would be spared like the daemon when memory is short; crun sets this at create only.
        _write(f"/proc/{self._child.pid}/oom_score_adj", b"%d" % process.get("oomScoreAdj", 0))
        await self._say(msgspec.json.encode(process))
        status = await proc.wait(self._child)
        if status != 0:
            raise translate(_text(f"{self._directory}/log"))
        failpoints.hit("exec.started")
        return await self._held(_pid(self._directory))

    async def _say(self, text: bytes) -> None:
        """The pipe takes all of it at once, unless there are thousands of variables."""
        os.set_blocking(self._process, False)
        rest = memoryview(text)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._process, rest) :]
                except BlockingIOError:
                    await proc.writable(self._process)
        except BrokenPipeError:
            pass  # it has ended, and its log says why
        self._end_process()

    def _end_process(self) -> None:
        if self._process >= 0:
            os.close(self._process)
            self._process = -1

    async def _held(self, pid: int) -> Session:
        """What cannot be held does not go on."""
        streams: Streams | None = None
        try:
            if self._listener is not None:
                streams = TerminalStreams(_terminal(self._listener))
            elif self.asked.is_attached or self.asked.has_stdin:
                streams = PipeStreams(stdin=self._ends[0], stdout=self._ends[1], stderr=self._ends[2])
                self._ends = [-1, -1, -1]
            return Session(pid=pid, streams=streams)
        except (OSError, InternalError):
            if streams is not None:
                streams.close()
            await proc.end(pid)
            raise

    async def abandon(self) -> None:
        """End what nobody will hold. A runtime that has not learned what to execute ends by itself."""
        self._end_process()
        await _abandon(self._child, self._directory)

    def close(self) -> None:
        """Give back what no session has taken."""
        self._ours.close()

    def _close_pipes(self) -> None:
        self._end_process()
        for end in self._ends:
            if end >= 0:
                os.close(end)
        self._ends = [-1, -1, -1]


def _prefer(pid: int) -> None:
    """Let a runtime run as soon as it can, but not what it makes: crun sets the size of a terminal from outside, when the
    process has it already, and on a busy machine half the programs were there first. Where this is not allowed they are.
    """
    try:
        os.sched_setscheduler(pid, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError as error:
        log.debug("no preference for %d: %s", pid, error)


async def _abandon(child: subprocess.Popen[bytes], directory: str) -> None:
    """End what nobody will hold. The runtime gets the time to say what it has made: killed before, it leaves a process
    behind that nobody knows, and that may still become the program."""
    try:
        await asyncio.wait_for(proc.wait(child), _PATIENCE_S)
    except TimeoutError:
        child.kill()
        await proc.wait(child)
    if _text(f"{directory}/pid"):
        await proc.end(_pid(directory))


def _pid(directory: str) -> int:
    """What the runtime made. Raises InternalError if it did not say."""
    text = _text(f"{directory}/pid")
    try:
        return int(text)
    except ValueError:
        raise InternalError(f"the runtime wrote {text[:40]!r} for a pid") from None


def _text(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, _LIMIT).decode("utf-8", "replace")
    finally:
        os.close(fd)


def _write(path: str, data: bytes) -> None:
    """By descriptor: file objects and paths are a tenth of what an exec costs the daemon."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


@contextmanager
def _listening(directory: str) -> Iterator[socket.socket]:
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
