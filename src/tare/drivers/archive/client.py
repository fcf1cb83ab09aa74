"""The daemon's side of the archive worker: jobs go to a warm, confined process, answers come back typed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from tare.aio import proc
from tare.aio.tasks import spawn
from tare.base.errors import InternalError, InvalidArgument, Unavailable
from tare.drivers.archive import worker
from tare.drivers.archive.pipeline import Options, Result

log = logging.getLogger(__name__)

_PIPE_BYTES = 1024 * 1024
MOST_JOBS = 128
_START_TIMEOUT_S = 20
_SO_SNDBUFFORCE = 32
_PROGRAM = str(Path(worker.__file__).resolve())


def _failure(answer: dict[str, Any]) -> Exception:
    text, kind = str(answer.get("error", "")), answer.get("class")
    if kind == "archive":
        return InvalidArgument(f"Error processing tar file: {text}")
    if kind == "full":
        return Unavailable("no space left on device", hint="remove images or containers, then repeat")
    return InternalError(f"archive worker: {text}")


class _Job:
    """One child: its channel and its pidfd."""

    def __init__(self, channel: socket.socket, pidfd: int) -> None:
        self._channel = channel
        self._pidfd = pidfd

    def send(self, request: dict[str, Any], fds: list[int]) -> None:
        socket.send_fds(self._channel, [json.dumps(request).encode()], fds)

    async def answer(self) -> dict[str, Any]:
        """The result. Raises InvalidArgument (wrong archive), Unavailable (disk full), InternalError."""
        await proc.readable(self._channel.fileno())
        data = self._channel.recv(worker.MAX_MESSAGE)
        if not data:
            raise InternalError("archive worker ended without an answer")
        answer: dict[str, Any] = json.loads(data)
        if "result" not in answer:
            raise _failure(answer)
        result: dict[str, Any] = answer["result"]
        return result

    async def end(self) -> None:
        """Kill the child if it still runs and wait until it is gone, so that its files can be removed."""
        self._channel.close()
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await proc.readable(self._pidfd)
        finally:
            os.close(self._pidfd)


class Archiver:
    """Unpacks and packs in child processes of a zygote. `start` before use, `close` at the end.

    most: jobs at once; clients that never send the rest of what they began would have a process each.
    """

    def __init__(self, *, most: int = MOST_JOBS) -> None:
        self._most, self._jobs = most, 0
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start the zygote if it does not run. Raises Unavailable when it cannot (namespaces forbidden)."""
        async with self._starting:
            if self._process is not None and self._process.poll() is None:
                return
            self._drop()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(  # noqa: ASYNC220 - our own file, once, before work begins
                    [sys.executable, "-I", _PROGRAM, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
                proc.own(self._process)
            ours.setblocking(False)
            self._control = ours
            try:
                await asyncio.wait_for(proc.readable(ours.fileno()), _START_TIMEOUT_S)
                if ours.recv(16) != b"up":
                    raise Unavailable("the archive worker did not start", hint="see the daemon's log")
            except BaseException:
                self._drop()
                raise

    def close(self) -> None:
        """Stop the zygote. Children end by themselves when their jobs' channels close."""
        self._drop()

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    @asynccontextmanager
    async def _job(self) -> AsyncIterator[_Job]:
        if self._jobs >= self._most:
            raise Unavailable(f"{self._jobs} archives are being read or written already", hint="repeat later")
        self._jobs += 1
        try:
            async with self._forked() as job:
                yield job
        finally:
            self._jobs -= 1

    @asynccontextmanager
    async def _forked(self) -> AsyncIterator[_Job]:
        await self.start()
        assert self._control is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            with theirs:
                with contextlib.suppress(OSError):  # an answer is one message: let a long one fit
                    theirs.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * worker.MAX_MESSAGE)
                socket.send_fds(self._control, [b"job"], [theirs.fileno()])
            await proc.readable(ours.fileno())
            data, fds, _, _ = socket.recv_fds(ours, 64, 1)
            if not data or not fds:
                raise InternalError("archive worker could not be forked")
        except BaseException:
            ours.close()
            raise
        job = _Job(ours, fds[0])
        try:
            yield job
        finally:
            await asyncio.shield(spawn(job.end(), name="end of archive worker"))

    async def unpack(
        self,
        source: AsyncIterator[bytes] | int,
        directory_fd: int,
        *,
        blob_fd: int | None = None,
        jail_fd: int | None = None,
        user_fd: int | None = None,
        options: Options | None = None,
    ) -> Result:
        """Extract a tar (plain, gzip, bzip2, xz, zstd) into the directory and hash it on the way.

        source: a byte stream, read with backpressure, or a descriptor the child reads by itself.
        blob_fd: where the compressed blob goes (with `options.blob == "write"`).
        jail_fd: with `options.merge`, the root of the container that the directory is in; no blob then.
        user_fd: the user namespace whose ids the archive speaks of.
        When it returns, everything written is on the disk. When it raises, the child is gone; what it wrote so far
        is still in the directory and the blob, for the caller to remove.
        Raises InvalidArgument (wrong archive), Unavailable (disk full), and whatever the stream raises.
        """
        options = options or Options()
        async with self._job() as job:
            request: dict[str, Any] = {"kind": "unpack", "options": asdict(options)}
            if options.merge != (jail_fd is not None) or (options.merge and blob_fd is not None):
                raise ValueError("merging needs a jail and makes no blob")
            rest = [fd for fd in (blob_fd, jail_fd, user_fd) if fd is not None]
            request["user_namespace"] = user_fd is not None
            if isinstance(source, int):
                job.send(request, [source, directory_fd, *rest])
                return Result(**await job.answer())
            reader, writer = socket.socketpair()
            with reader, writer:
                writer.setblocking(False)
                with contextlib.suppress(OSError):
                    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIPE_BYTES)
                job.send(request, [reader.fileno(), directory_fd, *rest])
                reader.close()
                return Result(**await _feed_and_wait(job, source, writer))

    async def verify(self, blob_fd: int, directory_fd: int) -> dict[str, Any]:
        """Whether a directory is what unpacking the layer `blob_fd` made of it: see `verify.verify`. Writes nothing.

        Raises InternalError when the directory cannot be read.
        """
        async with self._job() as job:
            job.send({"kind": "verify"}, [blob_fd, directory_fd])
            return await job.answer()

    async def spool(
        self,
        source: AsyncIterator[bytes] | int,
        directory_fd: int,
        *,
        data_fd: int,
        index_fd: int,
        is_own: bool = False,
    ) -> None:
        """Take a tar (any compression) apart: the bytes of its files one after the other, and an index of its members.

        directory_fd: an empty directory the child is shut into. The index is read by `spool.read_index`.
        is_own: it is a layer of the store, which may expand to any number of times its size.
        Raises InvalidArgument (wrong archive), Unavailable (disk full), and whatever the stream raises.
        """
        async with self._job() as job:
            request = {"kind": "spool", "is_own": is_own}
            rest = [directory_fd, data_fd, index_fd]
            if isinstance(source, int):
                job.send(request, [source, *rest])
                await job.answer()
                return
            reader, writer = socket.socketpair()
            with reader, writer:
                writer.setblocking(False)
                with contextlib.suppress(OSError):
                    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIPE_BYTES)
                job.send(request, [reader.fileno(), *rest])
                reader.close()
                await _feed_and_wait(job, source, writer)

    @asynccontextmanager
    async def compose(self, directory_fd: int, *, plan_fd: int, data_fds: Sequence[int]) -> AsyncIterator[int]:
        """Yield the reading end of a pipe with the tar that a plan (`spool.write_plan`) describes. See `pack`."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                _set_pipe_size(reader)
            async with self._job() as job:
                job.send({"kind": "compose"}, [writer, directory_fd, plan_fd, *data_fds])
                os.close(writer)
                writer = -1
                yield reader
                await job.answer()
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)

    @asynccontextmanager
    async def pack(
        self,
        directory_fd: int,
        *,
        overlay: bool = False,
        one_file_system: bool = False,
        name: str | None = None,
        member: str | None = None,
        hidden_devices: Sequence[int] = (),
        newest_ns: int | None = None,
        user_fd: int | None = None,
    ) -> AsyncIterator[int]:
        """Yield the reading end of a pipe with the tar of a directory tree; leaving the block early stops the child.

        overlay: the directory is the upper half of an overlay; write an image layer. name: the tar holds the directory
        itself under that name, or, if `member` is given, only that member of it. hidden_devices, newest_ns: see Packer.
        user_fd: the user namespace by whose ids owners are written. The reader sees the end of the
        pipe also when packing failed: leaving the block then raises, so whoever took the bytes must treat them as
        void. Raises InternalError.
        """
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                _set_pipe_size(reader)
            async with self._job() as job:
                request = {
                    "kind": "pack",
                    "overlay": overlay,
                    "one_file_system": one_file_system,
                    "name": name,
                    "member": member,
                    "hidden_devices": list(hidden_devices),
                    "newest_ns": newest_ns,
                    "user_namespace": user_fd is not None,
                }
                job.send(request, [writer, directory_fd, *([user_fd] if user_fd is not None else [])])
                os.close(writer)
                writer = -1
                yield reader
                await job.answer()
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)

    async def pack_chunks(
        self,
        directory_fd: int,
        *,
        one_file_system: bool = False,
        name: str | None = None,
        member: str | None = None,
        hidden_devices: Sequence[int] = (),
        user_fd: int | None = None,
    ) -> AsyncIterator[bytes]:
        """The same as an asynchronous stream of chunks of up to 1 MiB."""
        async with self.pack(
            directory_fd,
            one_file_system=one_file_system,
            name=name,
            member=member,
            hidden_devices=hidden_devices,
            user_fd=user_fd,
        ) as reader:
            os.set_blocking(reader, False)
            while True:
                try:
                    chunk = os.read(reader, _PIPE_BYTES)
                except BlockingIOError:
                    await proc.readable(reader)
                    continue
                if not chunk:
                    break
                yield chunk


def _set_pipe_size(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


async def _feed_and_wait(job: _Job, source: AsyncIterator[bytes], writer: socket.socket) -> dict[str, Any]:
    """Feed the child and wait for its answer; an answer that comes early (an error) stops the feeding."""
    feeding = asyncio.ensure_future(_feed(source, writer))
    answering = asyncio.ensure_future(job.answer())
    try:
        await asyncio.wait({feeding, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            await feeding
        return await answering
    finally:
        for task in (feeding, answering):
            task.cancel()
        await asyncio.gather(feeding, answering, return_exceptions=True)


async def _feed(source: AsyncIterator[bytes], writer: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    async for chunk in source:
        try:
            await loop.sock_sendall(writer, chunk)
        except (BrokenPipeError, ConnectionResetError):
            return  # the child gave up: its answer says why. The same error from the source is the caller's.
    with contextlib.suppress(OSError):
        writer.shutdown(socket.SHUT_WR)


__all__ = ["Archiver", "Options", "Result"]
