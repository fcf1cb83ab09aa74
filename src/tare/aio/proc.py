"""Children: started by argument list with a fixed environment, waited for by pidfd, never through a shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
OUTPUT_LIMIT = 64 * 1024
_children: weakref.WeakValueDictionary[int, subprocess.Popen[bytes]] = weakref.WeakValueDictionary()
_claims: Counter[int] = Counter()


class Completed(Struct, frozen=True):
    """How a child ended: its exit status (negative: signal), and what it wrote, cut at 64 KiB each."""

    status: int
    stdout: str
    stderr: str


async def readable(fd: int) -> None:
    """Wait until `fd` can be read; for a pidfd that means the process has ended."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def done() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, done)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def writable(fd: int) -> None:
    """Wait until `fd` takes something, or nobody will read it any more."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def done() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(fd, done)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    cwd: Path | None = None,
    has_group: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a child (vfork: under a millisecond). Every descriptor but the listed ones is closed in it.

    has_group: it leads a process group of its own, so that its own children can be found.
    """
    child = subprocess.Popen(
        list(argv),
        env={**ENVIRONMENT, **(env or {})},
        pass_fds=tuple(pass_fds),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        close_fds=True,
        process_group=0 if has_group else None,
    )
    own(child)
    return child


def own(child: subprocess.Popen[bytes]) -> None:
    """Whoever holds this child waits for it: it is no orphan."""
    _children[child.pid] = child


@contextlib.contextmanager
def claimed(pid: int) -> Iterator[None]:
    """An orphan that somebody waits for, as long as this is open."""
    _claims[pid] += 1
    try:
        yield
    finally:
        _claims[pid] -= 1
        if not _claims[pid]:
            del _claims[pid]


def is_claimed(pid: int) -> bool:
    """Whether somebody waits, or will wait, for the end of this child."""
    child = _children.get(pid)
    return pid in _claims or (child is not None and child.returncode is None)


async def wait(child: subprocess.Popen[bytes]) -> int:
    """The exit status of a child; negative for a signal."""
    if child.returncode is not None:
        return child.returncode
    pidfd = os.pidfd_open(child.pid)
    try:
        await readable(pidfd)
    finally:
        os.close(pidfd)
    return child.wait()


async def collect(pid: int) -> None:
    """Wait for the end of an orphan that came to us as its subreaper. Returns at once when it is no child of ours."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with claimed(pid):
            if os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is None:
                await readable(pidfd)
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        pass
    finally:
        os.close(pidfd)


async def end(pid: int) -> None:
    """Kill a child or an orphan of ours and wait for its end. Another's process, or one that is gone, is left alone."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    os.kill(pid, signal.SIGKILL)  # nobody but us frees the number
    await collect(pid)


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    has_group: bool = False,
) -> Completed:
    """Run to the end. Output goes to anonymous memory, so that a chatty child never waits for us.

    has_group: when we are cancelled, what the child has started ends with it, before that is told.
    """
    out, err = os.memfd_create("stdout"), os.memfd_create("stderr")
    try:
        child = start(argv, env=env, pass_fds=pass_fds, stdout=out, stderr=err, has_group=has_group)
        try:
            status = await wait(child)
        except BaseException:
            if has_group:
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
            child.wait()
            if has_group:
                _reap(child.pid)
            raise
        return Completed(status, _text(out), _text(err))
    finally:
        os.close(out)
        os.close(err)


def _reap(group: int) -> None:
    """Wait for the rest of a group that was killed. Orphans are ours where we are the subreaper, as the daemon is."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-group, 0)


def _text(fd: int) -> str:
    return os.pread(fd, OUTPUT_LIMIT, 0).decode("utf-8", "replace")
