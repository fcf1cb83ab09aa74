"""Children: started by argument list with a fixed environment, waited for by pidfd, never through a shell."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
OUTPUT_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Completed:
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


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child (vfork: under a millisecond). Every descriptor but the listed ones is closed in it."""
    return subprocess.Popen(
        list(argv),
        env={**ENVIRONMENT, **(env or {})},
        pass_fds=tuple(pass_fds),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        close_fds=True,
    )


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


async def run(argv: Sequence[str], *, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()) -> Completed:
    """Run to the end. Output goes to anonymous memory, so that a chatty child never waits for us."""
    out, err = os.memfd_create("stdout"), os.memfd_create("stderr")
    try:
        child = start(argv, env=env, pass_fds=pass_fds, stdout=out, stderr=err)
        try:
            status = await wait(child)
        except BaseException:
            child.kill()
            child.wait()
            raise
        return Completed(status, _text(out), _text(err))
    finally:
        os.close(out)
        os.close(err)


def _text(fd: int) -> str:
    return os.pread(fd, OUTPUT_LIMIT, 0).decode("utf-8", "replace")
