"""Carrying connections by hand where the kernel cannot translate: from ::1, and from one family to the other.

One task of the engine per connection, no process. It is the exception: what a container has an address of the same
family for is translated by the packet filter, ::1 alone apart (the kernel drops answers to it that come by a bridge).
Connections carried here end with the engine, and the container sees the host's address instead of the client's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from msgspec import Struct

from tare.aio.tasks import spawn

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 16
_CONNECT_S = 10.0
_UDP_IDLE_S = 90.0
_MAX_PEERS = 1024

Address = tuple[Any, ...]


class Target(Struct, frozen=True):
    """Where it goes: an address and port of a container."""

    host: str
    port: int


class Relay:
    """Carries what comes to one socket until `close`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._server: asyncio.Server | None = None
        self._datagrams: _Datagrams | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    async def open(self, listening: socket.socket) -> None:
        """Serve this socket (TCP or UDP), which is ours from now on."""
        if listening.type == socket.SOCK_DGRAM:
            loop = asyncio.get_running_loop()
            _, self._datagrams = await loop.create_datagram_endpoint(lambda: _Datagrams(self.target), sock=listening)
        else:
            self._server = await asyncio.start_server(self._carry, sock=listening, limit=_CHUNK_BYTES)

    def close(self) -> None:
        """Take no more and end what is under way. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None
        for task in list(self._connections):
            task.cancel()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(_CONNECT_S):
                answers, there = await asyncio.open_connection(self.target.host, self.target.port)
            await asyncio.gather(_pump(reader, there), _pump(answers, writer))
        except (OSError, TimeoutError) as error:
            log.debug("relay to %s port %s: %s", self.target.host, self.target.port, error)
        finally:
            self._connections.discard(task)
            for each in (writer, there):
                if each is not None:
                    each.transport.abort() if each.transport.get_write_buffer_size() == 0 else each.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(_CHUNK_BYTES):
        sink.write(chunk)
        await sink.drain()
    sink.write_eof()


class _Datagrams(asyncio.DatagramProtocol):
    """One socket towards the container for each sender, closed when it has been silent."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._transport: asyncio.DatagramTransport | None = None
        self._peers: dict[Address, _Peer] = {}

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        peer = self._peers.get(addr)
        if peer is None:
            if len(self._peers) >= _MAX_PEERS:
                return
            peer = self._peers[addr] = _Peer(self, addr)
            spawn(peer.open(self._target), name="relay of datagrams")
        peer.send(data)

    def answer(self, data: bytes, addr: Address) -> None:
        """What a container says goes back to whom it belongs."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, addr)

    def forget(self, addr: Address) -> None:
        """A sender has been silent for long, or its socket failed."""
        if (peer := self._peers.pop(addr, None)) is not None:
            peer.close()

    def close(self) -> None:
        """Close everything."""
        for addr in list(self._peers):
            self.forget(addr)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


class _Peer(asyncio.DatagramProtocol):
    def __init__(self, owner: _Datagrams, addr: Address) -> None:
        self._owner, self._addr = owner, addr
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def open(self, target: Target) -> None:
        """Make the socket towards the container and send what waited for it."""
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_datagram_endpoint(lambda: self, remote_addr=(target.host, target.port))
        except OSError as error:
            log.debug("relay to %s port %s: %s", target.host, target.port, error)
            self._owner.forget(self._addr)
            return
        if self._is_closed:
            transport.abort()
            return
        self._transport = transport
        for data in self._waiting:
            transport.sendto(data)
        self._waiting.clear()
        self._again()

    def send(self, data: bytes) -> None:
        """Towards the container."""
        if self._transport is None:
            if len(self._waiting) < 64:
                self._waiting.append(data)
            return
        self._transport.sendto(data)
        self._again()

    def datagram_received(self, data: bytes, _addr: Address) -> None:
        self._owner.answer(data, self._addr)
        self._again()

    def error_received(self, exc: Exception) -> None:
        log.debug("relay of datagrams: %s", exc)

    def _again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_UDP_IDLE_S, self._owner.forget, self._addr)

    def close(self) -> None:
        """Close the socket towards the container."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
