"""ssh mounts: a socket for one step that leads to the agent of who asked for the build.

The agent's own socket is not mounted: it has one owner, and stays behind when the step is over. Keys never pass here; an
agent signs what it is asked to sign.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tare.aio.tasks import finish, spawn
from tare.base.errors import InvalidArgument, Unavailable

_READ = 64 * 1024
_MAX_OPEN = 64  # connections of one step


def check_socket(name: str, path: str) -> None:
    """Raise InvalidArgument for what is no socket of this host."""
    try:
        is_socket = os.path.isabs(path) and stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        is_socket = False
    if not is_socket:
        raise InvalidArgument(
            f"ssh agent {name}: {path[:200]} is no socket on the engine's host",
            hint="agents are not forwarded over the network",
        )


@asynccontextmanager
async def leading(path: Path, agent: str) -> AsyncIterator[None]:
    """Inside the block connections to the new socket `path` lead to the socket `agent`. Raises Unavailable."""
    tasks: set[asyncio.Task[None]] = set()
    try:
        listener = _bound(path)
    except OSError as error:
        raise Unavailable(f"cannot make a socket for the ssh agent: {error.strerror or error}") from None

    async def serve() -> None:
        # Not asyncio's server: one that is closed forgets a connection it has just accepted, which then stays open.
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            if len(tasks) >= _MAX_OPEN:
                connection.close()
                continue
            task = spawn(_lead(connection, agent), name="ssh agent", is_awaited=True)
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            task.add_done_callback(lambda _, done=connection: done.close())  # type: ignore[misc]

    serving = spawn(serve(), name="ssh agents", is_awaited=True)
    try:
        yield
    finally:
        serving.cancel()
        await finish(_ended([serving]), name="end of ssh agents")
        listener.close()
        for task in list(tasks):
            task.cancel()
        await finish(_ended(list(tasks)), name="end of ssh agent")
        path.unlink(missing_ok=True)


def _bound(path: Path) -> socket.socket:
    """A socket at `path`, which may be longer than the 107 bytes an address can have."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        made.bind(f"/proc/self/fd/{directory}/{path.name}")
        made.setblocking(False)
        made.listen(_MAX_OPEN)
    except BaseException:
        made.close()
        raise
    finally:
        os.close(directory)
    return made


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def _lead(connection: socket.socket, agent: str) -> None:
    writers: list[asyncio.StreamWriter] = []
    try:
        reader, writer = await asyncio.open_connection(sock=connection)
        writers.append(writer)
        answers, other = await asyncio.open_unix_connection(agent)
        writers.append(other)
        back = spawn(_copy(answers, writer), name="ssh agent answers", is_awaited=True)
        try:
            await _copy(reader, other)
            await back
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
    except OSError:
        return  # either end is gone, and the other is closed
    finally:
        for end in writers:
            end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_READ):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        return


__all__ = ["check_socket", "leading"]
