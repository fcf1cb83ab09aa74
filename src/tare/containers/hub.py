"""Standard streams of one container, shared by any number of attached clients.

The hub exists before the container starts, so that a client attached early sees the first byte (W23). It holds one
connection to the monitor; each packet goes to every subscriber's bounded queue. While a queue is full the hub reads no
further and the container waits, as it does in Docker; a subscriber that takes nothing for `STALL_S` is cut off so
that one dead client cannot hold the others or the container for ever.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable

HIGH_BYTES = 1024 * 1024
STALL_S = 10.0
_BURST = 64
_PACKET = 8193
_STDIN_PIECE = 8192


class Subscriber:
    """One client's queue of (stream, data) packets; stream 1 is stdout, 2 stderr."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
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
        self._socket: socket.socket | None = None
        self._reading = False
        self._stall: asyncio.TimerHandle | None = None
        self._stdin_closed = False
        self._room: asyncio.Future[None] | None = None  # set when the monitor can take stdin again
        self._closed = asyncio.Event()
        self._opened = asyncio.Event()

    @property
    def is_wanted(self) -> bool:
        """Whether anyone is attached."""
        return bool(self._subscribers)

    @property
    def is_connected(self) -> bool:
        """Whether the connection to the monitor stands."""
        return self._socket is not None

    def subscribe(self) -> Subscriber:
        """Attach; packets from now on."""
        subscriber = Subscriber(self)
        self._subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Detach. The monitor's connection stays: closing it would close the container's stdin."""
        self._subscribers.discard(subscriber)
        subscriber.end()
        self.resume()

    def connect(self, connector: Callable[[], socket.socket]) -> None:
        """Open the connection to the monitor unless it stands already."""
        if self._socket is None:
            self._socket = connector()
            self._stdin_closed = False
            self._closed.clear()
            self._opened.set()
            self.resume()

    def finish(self) -> None:
        """The container ended or failed to start: end every subscriber's stream."""
        self._disconnect()
        for subscriber in self._subscribers:
            subscriber.end()
        self._subscribers.clear()

    def resume(self) -> None:
        """Read from the monitor again if every queue has room."""
        if self._socket is None or self._reading or any(s.full_since for s in self._subscribers):
            return
        self._reading = True
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def _pause(self) -> None:
        if self._reading and self._socket is not None:
            self._reading = False
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket.fileno())
            if self._stall is None:
                self._stall = loop.call_later(STALL_S, self._cut_stalled)

    def _cut_stalled(self) -> None:
        self._stall = None
        now = time.monotonic()
        for subscriber in [s for s in self._subscribers if s.full_since and now - s.full_since >= STALL_S]:
            self.unsubscribe(subscriber)
        if not self._reading and self._socket is not None:
            self.resume()
            if not self._reading:
                self._stall = asyncio.get_running_loop().call_later(STALL_S / 4, self._cut_stalled)

    def _readable(self) -> None:
        assert self._socket is not None
        for _ in range(_BURST):
            try:
                packet = self._socket.recv(_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._drained()
                return
            stream = packet[0] - 1  # conmon counts stdin 1, stdout 2, stderr 3
            if stream in (1, 2) and len(packet) > 1:
                data = packet[1:]
                for subscriber in self._subscribers:
                    subscriber.feed(stream, data)
        if any(s.full_since for s in self._subscribers):
            self._pause()

    def _drained(self) -> None:
        """The monitor closed its side: everything the container wrote has been handed on."""
        self.finish()

    def _disconnect(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._socket is not None:
            if self._room is not None:
                self._has_room()
            if self._reading:
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
                self._reading = False
            self._socket.close()
            self._socket = None
            self._closed.set()
            self._opened.clear()

    async def until_drained(self, limit_s: float) -> None:
        """Wait until the monitor's side is closed, at most `limit_s` (a daemonised grandchild may hold it open)."""
        if self._socket is not None:
            try:
                await asyncio.wait_for(self._closed.wait(), limit_s)
            except TimeoutError:
                pass

    async def write_stdin(self, data: bytes) -> None:
        """Pass bytes to the container's stdin, waiting for its start and while it is slow. Dropped once it is closed."""
        await self._opened.wait()
        sock = self._socket
        view = memoryview(data)
        while len(view) and sock is not None and self._socket is sock and not self._stdin_closed:
            try:
                sent = sock.send(view[:_STDIN_PIECE])
            except BlockingIOError:
                await self._until_room(sock)
                continue
            except (BrokenPipeError, ConnectionResetError, OSError):
                self._stdin_closed = True
                return
            view = view[sent:]

    async def _until_room(self, sock: socket.socket) -> None:
        """Wait until the monitor takes more, or the connection goes. Any number of clients may wait: a loop keeps only
        one callback for each descriptor, so they share it."""
        loop = asyncio.get_running_loop()
        if self._room is None:
            self._room = loop.create_future()
            loop.add_writer(sock.fileno(), self._has_room)
        await asyncio.shield(self._room)

    def _has_room(self) -> None:
        assert self._socket is not None
        assert self._room is not None
        asyncio.get_running_loop().remove_writer(self._socket.fileno())
        self._room.set_result(None)
        self._room = None

    async def close_stdin(self) -> None:
        """End of the container's stdin (only meaningful if the monitor was told not to keep it open)."""
        await self._opened.wait()
        if self._socket is not None and not self._stdin_closed:
            self._stdin_closed = True
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass
