"""Standard streams of one container, shared by any number of attached clients.

The hub exists before the container starts, so that a client attached early sees the first byte (W23). It holds the
streams; each piece that is read goes to every subscriber's bounded queue. While a queue is full the hub reads no
further and the container waits, as it does in Docker; a subscriber that takes nothing for `STALL_S` is cut off so
that one dead client cannot hold the others or the container for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from tare.drivers.runtime.streams import Streams

HIGH_BYTES = 1024 * 1024
STALL_S = 10.0
_LEAST_PAUSE_S = 0.05
_BURST_BYTES = 512 * 1024


class Subscriber:
    """One client's queue of (stream, data) packets; stream 1 is stdout, 2 stderr. What it types is for `run` only."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.run = hub.run
        self._packets: deque[tuple[int, bytes]] = deque()
        self.size_bytes = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self.full_since = 0.0
        self._is_mute = False

    def mute(self) -> None:
        """Take nothing any more, what is queued aside too; still somebody who is attached."""
        self._is_mute = True
        self._packets.clear()
        self.size_bytes = 0
        self.full_since = 0.0
        self._hub.resume()

    def feed(self, stream: int, data: bytes) -> None:
        """Called by the hub."""
        if self._is_mute:
            return
        self._packets.append((stream, data))
        self.size_bytes += len(data)
        if self.size_bytes > HIGH_BYTES and not self.full_since:
            self.full_since = time.monotonic()
        self._wake()

    def end(self) -> None:
        """No more packets will come."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> list[tuple[int, bytes]]:
        """Everything queued; an empty list means the streams have ended."""
        while not self._packets:
            if self._ended:
                return []
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        taken = list(self._packets)
        self._packets.clear()
        self.size_bytes = 0
        self.full_since = 0.0
        self._hub.resume()
        return taken


class Hub:
    """The meeting point of one container's streams and its clients."""

    def __init__(self) -> None:
        self._subscribers: set[Subscriber] = set()
        self._streams: Streams | None = None
        self._open: set[int] = set()  # sources that have not ended
        self._reading = False
        self._stall: asyncio.TimerHandle | None = None
        self._stdin_closed = False
        self._room: asyncio.Future[None] | None = None  # set when stdin can be taken again
        self._closed = asyncio.Event()
        self._run = 0
        self._next: asyncio.Future[None] | None = None  # done when streams are connected, or the run is over
        self._read_s = 0.0  # how long it has read, with pauses left out
        self._read_since = 0.0

    @property
    def run(self) -> int:
        """The number of the run there is, or that comes next: `finish` ends one."""
        return self._run

    @property
    def is_wanted(self) -> bool:
        """Whether anyone is attached."""
        return bool(self._subscribers)

    @property
    def is_connected(self) -> bool:
        """Whether it holds the streams."""
        return self._streams is not None

    def subscribe(self) -> Subscriber:
        """Attach; packets from now on."""
        subscriber = Subscriber(self)
        self._subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Detach. The streams stay: closing them would close the container's stdin."""
        self._subscribers.discard(subscriber)
        subscriber.end()
        self.resume()

    def connect(self, connector: Callable[[], Streams]) -> None:
        """Take hold of the streams unless it has."""
        if self._streams is None:
            self._streams = connector()
            self._open = set(self._streams.sources)
            self._stdin_closed = False
            self._closed.clear()
            self._answer_next()
            self.resume()

    def finish(self) -> None:
        """The container ended or failed to start: end every subscriber's stream."""
        self._disconnect()
        self._run += 1
        self._answer_next()
        for subscriber in self._subscribers:
            subscriber.end()
        self._subscribers.clear()

    def _answer_next(self) -> None:
        if self._next is not None:
            self._next.set_result(None)
            self._next = None

    def resume(self) -> None:
        """Read again if every queue has room."""
        if self._streams is None or self._reading or any(s.full_since for s in self._subscribers):
            return
        self._reading = True
        self._read_since = time.monotonic()
        loop = asyncio.get_running_loop()
        for fd in self._open:
            loop.add_reader(fd, self._readable, fd)

    def _rest(self) -> None:
        if self._reading:
            self._reading = False
            self._read_s += time.monotonic() - self._read_since
            loop = asyncio.get_running_loop()
            for fd in self._open:
                loop.remove_reader(fd)

    def _pause(self) -> None:
        if self._reading:
            self._rest()
            if self._stall is None:
                self._stall = asyncio.get_running_loop().call_later(STALL_S, self._cut_stalled)

    def _cut_stalled(self) -> None:
        self._stall = None
        now = time.monotonic()
        for subscriber in [s for s in self._subscribers if s.full_since and now - s.full_since >= STALL_S]:
            self.unsubscribe(subscriber)
        if not self._reading and self._streams is not None:
            self.resume()
            if not self._reading:
                self._stall = asyncio.get_running_loop().call_later(STALL_S / 4, self._cut_stalled)

    def _readable(self, fd: int) -> None:
        assert self._streams is not None
        taken = 0
        while taken < _BURST_BYTES:
            try:
                piece = self._streams.read(fd)
            except BlockingIOError:
                break
            if piece is None:
                self._ended(fd)
                return
            stream, data = piece
            taken += len(data) + 1
            if stream in (1, 2) and data:
                for subscriber in self._subscribers:
                    subscriber.feed(stream, data)
        if any(s.full_since for s in self._subscribers):
            self._pause()

    def _ended(self, fd: int) -> None:
        """One source is at its end. After the last of them everything that was written has been handed on."""
        asyncio.get_running_loop().remove_reader(fd)
        self._open.discard(fd)
        if not self._open:
            self.finish()

    def _disconnect(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._streams is not None:
            if self._room is not None:
                self._has_room()
            self._rest()
            self._open.clear()
            self._streams.close()
            self._streams = None
            self._closed.set()

    async def until_drained(self, limit_s: float) -> None:
        """Wait until the other side is closed and what it wrote is handed on, for at most `limit_s` of reading: a
        daemonised grandchild may hold it open. The time in which a slow client holds it up does not count.
        """
        end = self._reading_s() + limit_s
        while self._streams is not None and (left := end - self._reading_s()) > 0:
            try:
                await asyncio.wait_for(self._closed.wait(), max(left, _LEAST_PAUSE_S))
            except TimeoutError:
                continue

    def _reading_s(self) -> float:
        return self._read_s + (time.monotonic() - self._read_since if self._reading else 0.0)

    async def write_stdin(self, data: bytes, *, run: int | None = None) -> None:
        """Pass bytes to the container's stdin, waiting for its start and while it is slow. Dropped once it is closed.

        run: for which one they are meant (`Subscriber.run`), or else for the one there is or that comes next.
        """
        run = await self._until_open(run)
        streams = self._streams
        view = memoryview(data)
        while len(view) and streams is not None and self._run == run and not self._stdin_closed:
            try:
                taken = streams.write(view)
            except BlockingIOError:
                await self._until_room(streams)
                continue
            except OSError:
                self._stdin_closed = True
                return
            view = view[taken:]

    async def _until_room(self, streams: Streams) -> None:
        """Wait until more is taken, or the streams go. Any number of clients may wait: a loop keeps only one callback
        for each descriptor, so they share it."""
        if self._room is None:
            loop = asyncio.get_running_loop()
            self._room = loop.create_future()
            loop.add_writer(streams.sink, self._has_room)
        await asyncio.shield(self._room)

    def _has_room(self) -> None:
        assert self._streams is not None
        assert self._room is not None
        asyncio.get_running_loop().remove_writer(self._streams.sink)
        self._room.set_result(None)
        self._room = None

    async def _until_open(self, run: int | None) -> int:
        """Wait for the streams of this run, or for its end. Returns its number."""
        run = self._run if run is None else run
        if self._streams is None and self._run == run:
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._next)
        return run

    async def close_stdin(self, *, run: int | None = None) -> None:
        """End of the container's stdin (only meaningful if the monitor was told not to keep it open)."""
        run = await self._until_open(run)
        if self._streams is not None and self._run == run and not self._stdin_closed:
            self._stdin_closed = True
            if self._room is not None:
                self._has_room()
            self._streams.end_input()
