"""Children: what they inherit, how they end, and that none is left when the caller goes away."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tare.aio import proc


def test_output_and_status_are_kept_apart() -> None:
    done = asyncio.run(proc.run(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]))
    assert done == proc.Completed(3, "out\n", "err\n")


def test_a_signal_is_a_negative_status() -> None:
    assert asyncio.run(proc.run(["/bin/sh", "-c", "kill -9 $$"])).status == -signal.SIGKILL


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(proc.run(["/nonexistent/program"]))


def test_a_chatty_child_ends_and_its_words_are_cut() -> None:
    done = asyncio.run(proc.run(["/bin/sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x"]))
    assert (done.status, len(done.stdout)) == (0, 64 * 1024)


def test_the_environment_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    done = asyncio.run(proc.run(["/usr/bin/env"], env={"GIVEN": "1"}))
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert names - {"PWD", "SHLVL", "_"} == {"PATH", "LANG", "GIVEN"}


def test_only_the_listed_descriptors_are_handed_on() -> None:
    async def listed() -> set[str]:
        kept, other = os.memfd_create("kept"), os.memfd_create("other")
        os.set_inheritable(other, True)
        try:
            done = await proc.run(["/bin/ls", "-l", "/proc/self/fd"], pass_fds=[kept])
        finally:
            os.close(kept)
            os.close(other)
        return {line.split("->")[1].strip() for line in done.stdout.splitlines() if "memfd" in line}

    names = asyncio.run(listed())
    assert "/memfd:kept (deleted)" in names
    assert "/memfd:other (deleted)" not in names


def test_it_starts_where_it_is_told(tmp_path: Path) -> None:
    async def where() -> str:
        read_end, write_end = os.pipe()
        try:
            child = proc.start(["/bin/pwd"], stdout=write_end, cwd=tmp_path)
            assert await proc.wait(child) == 0
            return os.read(read_end, 4096).decode().strip()
        finally:
            os.close(read_end)
            os.close(write_end)

    assert asyncio.run(where()) == str(tmp_path)


def test_waiting_twice_gives_the_same_answer() -> None:
    async def twice() -> tuple[int, int]:
        child = proc.start(["/bin/sh", "-c", "exit 7"])
        return await proc.wait(child), await proc.wait(child)

    assert asyncio.run(twice()) == (7, 7)


def test_a_cancelled_run_ends_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    original = proc.start

    def remember(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        started.append(original(*args, **kwargs))  # type: ignore[arg-type]
        return started[-1]

    monkeypatch.setattr(proc, "start", remember)

    async def cancelled() -> None:
        task = asyncio.ensure_future(proc.run(["/bin/sleep", "1000"]))
        await asyncio.sleep(0)
        assert started
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert started[0].returncode == -signal.SIGKILL


def test_readable_can_be_cancelled_and_waited_for_again() -> None:
    async def twice() -> None:
        read_end, write_end = os.pipe()
        try:
            first = asyncio.ensure_future(proc.readable(read_end))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            os.write(write_end, b"x")
            await asyncio.wait_for(proc.readable(read_end), 5)
        finally:
            os.close(read_end)
            os.close(write_end)

    asyncio.run(twice())


def test_a_group_ends_as_a_whole() -> None:
    """What a cancelled child had started writes to nothing any more."""

    async def main() -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            words = ["/bin/sh", "-c", f"/bin/sleep 1000 & echo $! > /proc/self/fd/{writer}; wait"]
            running = asyncio.ensure_future(proc.run(words, pass_fds=[writer], has_group=True))
            await proc.readable(reader)
            grandchild = int(os.read(reader, 100))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            return grandchild
        finally:
            os.close(reader)
            os.close(writer)

    libc = ctypes.CDLL(None)
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER, as the daemon
    try:
        grandchild = asyncio.run(main())
    finally:
        libc.prctl(36, 0, 0, 0, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(grandchild, 0)


def test_an_orphan_is_collected_and_a_stranger_is_left_alone() -> None:
    """As after the end of a monitor: its child is ours now."""
    libc = ctypes.CDLL(None)
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER, as the daemon
    try:
        done = asyncio.run(proc.run(["/bin/sh", "-c", "/bin/sleep 1000 >&2 & echo $!"]))
        orphan = int(done.stdout)
        os.kill(orphan, signal.SIGKILL)
        asyncio.run(proc.collect(orphan))
    finally:
        libc.prctl(36, 0, 0, 0, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(orphan, 0)
    asyncio.run(proc.collect(orphan))
    asyncio.run(proc.collect(os.getppid()))


def test_end_kills_a_child_and_leaves_others_alone() -> None:
    child = proc.start(["/bin/sleep", "1000"])
    assert proc.is_claimed(child.pid)
    asyncio.run(proc.end(child.pid))
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    asyncio.run(proc.end(child.pid))
    asyncio.run(proc.end(os.getppid()))
    os.kill(os.getppid(), 0)
    child.wait()
    assert not proc.is_claimed(child.pid)


def test_claims_are_counted() -> None:
    with proc.claimed(7):
        with proc.claimed(7):
            assert proc.is_claimed(7)
        assert proc.is_claimed(7)
    assert not proc.is_claimed(7)
