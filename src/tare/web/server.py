"""HTTP/1.1 on asyncio protocols, with llhttp reading the heads.

One `Connection` per client, one request at a time on it. The connection reads a head, hands the body to the handler
as it comes (the socket is paused while nobody reads), writes the answer the handler returns, and either goes on or,
after an `Upgrade`, becomes a raw duplex stream.

Half-close is not disconnect (W25): docker closes its sending half at once when it has no stdin. A client is gone
when both directions are down; on unix sockets the kernel says so by EPOLLHUP, which is watched for after a half-close.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import select
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

import httptools
from msgspec import Struct, field

from tare.aio import tasks
from tare.base.errors import ClientGone, Forbidden, InvalidArgument, TareError, Unavailable
from tare.web.guard import Guard
from tare.web.heads import Head, HeadReader
from tare.web.message import JSON, Answer, Feed, Peer, Request, Response, Stream, Upgrade
from tare.web.tls import TlsLayer

log = logging.getLogger(__name__)

Handler = Callable[[Request], Response | Awaitable[Answer]]
"""What is known at once is answered at once; only what has to wait costs a task."""

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 30.0  # for one that is read whole before anything is done
IDLE_TIMEOUT_S = 75.0
_SWEEP_S = 5.0
_BODY_HIGH = 1024 * 1024
_BODY_LOW = 256 * 1024
_LINGER_S = 10.0  # for who still sends a request that was answered already
_WRITE_HIGH = 1024 * 1024
_FEED_HIGH = 64 * 1024  # a feed has its past elsewhere
_DRAIN_LIMIT_S = 0.05
_SIOCOUTQ = 0x5411
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_AT_ONCE = 64  # requests of one client answered before others have their turn
_KEPT_BACK = 64  # descriptors that are for the engine's own work, whoever wants to connect
_LAST_KEPT_BACK = 16  # those that nobody gets
_BRIEF = 48  # clients more than allowed, for one short request each: somebody has to be able to put things in order
_DROPPED_AT_ONCE = 64
_BACKLOG = 4096  # unix(7): a connect that does not wait fails at once when it is full


class _ChunkedBody:
    """Callbacks of a second llhttp parser that only takes a chunked body apart."""

    __slots__ = ("complete", "data", "feed")

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.complete = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.feed: Callable[[bytes], None] = parser.feed_data

    def on_body(self, data: bytes) -> None:
        self.data.append(data)

    def on_message_complete(self) -> None:
        self.complete = True


class _RequestBody:
    """The body of the request in progress, fed by the connection and read by the handler."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._complete = False
        self._broken: TareError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def complete(self) -> bool:
        return self._complete

    def feed(self, data: bytes) -> None:
        if data:
            self._chunks.append(data)
            self._size += len(data)
            if self._size > _BODY_HIGH:
                self._connection.pause_reading()
            self._wake()

    def finish(self) -> None:
        self._complete = True
        self._wake()

    def fail(self, error: TareError) -> None:
        self._broken = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> bytes:
        """The next piece, b"" at the end. Raises ClientGone or InvalidArgument when the rest never comes."""
        while not self._chunks:
            if self._broken is not None:
                raise self._broken
            if self._complete:
                return b""
            self._connection.want_body()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._chunks.popleft()
        self._size -= len(data)
        if self._size < _BODY_LOW:
            self._connection.resume_reading()
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.next():
            yield data

    async def read(self, limit: int) -> bytes:
        """All of it. Raises InvalidArgument when it is longer than `limit` or does not come."""
        if self._complete:
            return await self._read(limit)
        self._connection.waits_for_client(True)
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await self._read(limit)
        except TimeoutError:
            raise InvalidArgument(f"the request body did not come within {BODY_TIMEOUT_S:.0f} seconds") from None
        finally:
            self._connection.waits_for_client(False)

    async def _read(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while data := await self.next():
            size += len(data)
            if size > limit:
                raise InvalidArgument(f"request body is larger than {limit} bytes")
            pieces.append(data)
        return b"".join(pieces)


class _RawPeer:
    """The connection after an upgrade. `start` bytes came together with the request."""

    def __init__(self, connection: Connection, start: bytes) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque([start] if start else [])
        self._size = len(start)
        self._eof = False
        self._waiter: asyncio.Future[None] | None = None
        self._gone = asyncio.get_running_loop().create_future()
        self._fresh = True

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > _BODY_HIGH:
            self._connection.pause_reading()
        self._wake()

    def feed_eof(self) -> None:
        self._eof = True
        self._wake()

    def lost(self) -> None:
        self._eof = True
        self._wake()
        if not self._gone.done():
            self._gone.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> bytes:
        while not self._chunks:
            if self._eof:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._chunks.popleft()
        self._size -= len(data)
        if self._size < _BODY_LOW:
            self._connection.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        if self._fresh:
            self._fresh = False
            await self.drained()
        await self._connection.send(data)

    def write_eof(self) -> None:
        self._connection.send_eof()

    async def drained(self) -> None:
        """Wait until the client has read the headers: docker-py drops bytes that share a segment with them (W27)."""
        await self._connection.until_read(_DRAIN_LIMIT_S)

    async def gone(self) -> None:
        await asyncio.shield(self._gone)


class _FeedSink:
    """The body of a feed's answer, in chunks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def push(self, pieces: Sequence[bytes]) -> bool:
        return self._connection.push(b"".join(map(_chunk, pieces)))

    async def send(self, data: bytes) -> None:
        await self._connection.send(_chunk(data))


def _chunk(data: bytes) -> bytes:
    """A piece of a body framed. Source: RFC 9112 section 7.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ServerOptions(Struct, frozen=True):
    """How one server answers. `headers` go onto every response; `error` renders an exception."""

    handler: Handler
    error: Callable[[BaseException], Response]
    headers: dict[str, str] = field(default_factory=dict)
    max_connections: int = 4000
    max_tcp_connections: int = 1000


class Connection(asyncio.Protocol):
    """One client. States: reading a head, answering (body may still come), raw after an upgrade."""

    def __init__(self, server: Server, guard: Guard | None = None) -> None:
        self._server = server
        self._guard = guard
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._body: _RequestBody | None = None
        self._remaining = 0
        self._chunked: _ChunkedBody | None = None
        self._expect_continue = False
        self._peer: _RawPeer | None = None
        self._eof = False
        self._closing = False
        self._discarding = False  # the answer came before the request's end: the rest is read and dropped
        self._reading_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self._hup: select.epoll | None = None
        self._user = ""
        self._is_short_of_body = False
        self.is_brief = False  # it gets one answer, and no stream
        self.since = time.monotonic()  # start of the current wait, for the sweep

    # --- transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self._user = _who(transport)
        if not self._server.admit(self):
            transport.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._closing = True
        self._server.forget(self)
        self._unwatch()
        if self._body is not None and not self._body.complete:
            self._body.fail(ClientGone("the client left before its request was complete"))
        if self._peer is not None:
            self._peer.lost()
        if self._writable is not None and not self._writable.done():
            self._writable.set_exception(ClientGone("the client left"))
            self._writable.exception()
        if self._task is not None and self._peer is None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        if self._peer is not None:
            self._peer.feed(data)
        elif self._body is not None and not self._body.complete:
            self._feed_body(data)
        else:
            self._buffer += data
            if self._task is None:
                self._next_requests()
            elif len(self._buffer) > _BODY_HIGH:
                self.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        if self._discarding:
            self.close()
            return False
        if self._peer is not None:
            self._peer.feed_eof()
        elif self._body is not None and not self._body.complete:
            self._body.fail(ClientGone("the client left before its request was complete"))
        elif self._task is None:
            return False
        self._watch_hangup()
        return True

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # --- reading

    def pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None and not self._closing:
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None and not self._closing:
            self._reading_paused = False
            self._transport.resume_reading()

    def want_body(self) -> None:
        """The handler waits for the body: tell a client that asked first."""
        if self._expect_continue and self._transport is not None:
            self._expect_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _feed_body(self, data: bytes) -> None:
        body = self._body
        assert body is not None
        if self._chunked is None:
            take = data[: self._remaining]
            self._remaining -= len(take)
            body.feed(take)
            if self._remaining == 0:
                body.finish()
            self._buffer += data[len(take) :]
            return
        try:
            self._chunked.feed(data)
        except httptools.HttpParserError as error:
            if not self._chunked.complete:
                body.fail(InvalidArgument(f"malformed chunked request body: {error}"))
                self._eof = True  # what follows cannot be told apart: answer and close
                return
            self._eof = True
        pieces, self._chunked.data = self._chunked.data, []
        for piece in pieces:
            body.feed(piece)
        if self._chunked.complete:
            body.finish()

    def _next_requests(self) -> None:
        """Answer what lies complete in the buffer, until one of them has to wait; others have their turn now and then."""
        for _ in range(_AT_ONCE):
            if self._task is not None or self._closing or not self._next_request():
                return
        asyncio.get_running_loop().call_soon(self._next_requests)

    def _next_request(self) -> bool:
        """Take one request out of the buffer and begin to answer it. False when there is none."""
        if not self._buffer:
            return False
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES):
            self._refuse(431, "request headers are too large")
            return False
        if end < 0:
            if b"\n\n" in self._buffer:
                self._refuse(400, "malformed request: bare line feeds")
            return False
        raw = bytes(self._buffer[: end + 4])
        del self._buffer[: end + 4]
        try:
            head = self._server.heads.read(raw)
        except (InvalidArgument, ValueError) as error:
            self._refuse(400, f"malformed request: {error}")
            return False
        self._begin(head)
        return True

    def _begin(self, head: Head) -> None:
        body = self._body = _RequestBody(self)
        self._keep_alive = head.keeps_alive and not self.is_brief
        self._expect_continue = head.expects_continue
        self._remaining = head.length
        self._chunked = _ChunkedBody() if head.is_chunked else None
        if not head.is_chunked and head.length == 0:
            body.finish()
        elif self._buffer:
            early = bytes(self._buffer)
            self._buffer.clear()
            self._feed_body(early)
        if self._eof and not body.complete:
            body.fail(ClientGone("the client left before its request was complete"))
        request = Request(
            method=head.method, path=head.path, query=head.query, headers=head.headers, body=body, user=self._user
        )
        try:
            if self._guard is not None and (refusal := self._guard.refusal(head.method, head.headers)):
                self._keep_alive = False
                raise Forbidden(refusal)
            answer = self._server.options.handler(request)
        except Exception as error:
            answer = self._server.options.error(error)
        if not isinstance(answer, Response):
            self._task = tasks.spawn(self._answer(request, answer), name=f"{request.method} {request.path}")
            return
        self._write_response(answer, head_only=request.method == "HEAD")
        if self._write_paused:
            self._task = tasks.spawn(self._written(), name=f"writing the answer to {request.method} {request.path}")
        else:
            self._after_answer()

    def _refuse(self, status: int, text: str) -> None:
        self._buffer.clear()
        response = self._server.options.error(InvalidArgument(text))
        response.status = status
        self._keep_alive = False
        self._write_response(response, head_only=False)
        self.close()

    # --- answering

    async def _written(self) -> None:
        """A response is on its way to a slow client."""
        try:
            await self._drain()
        except ClientGone:
            self.close()
        else:
            self._after_task()

    async def _answer(self, request: Request, coming: Awaitable[Answer]) -> None:
        try:
            try:
                answer = await coming
            except asyncio.CancelledError:
                raise
            except ClientGone:
                self.close()
                return
            except Exception as error:
                answer = self._server.options.error(error)
            is_endless = isinstance(answer, Upgrade) or (isinstance(answer, Stream | Feed) and answer.is_endless)
            if self.is_brief and is_endless:
                answer = self._server.options.error(Unavailable("too many connections", hint="end some, then repeat"))
            if isinstance(answer, Response):
                self._write_response(answer, head_only=request.method == "HEAD")
                if self._write_paused:
                    await self._drain()
            elif isinstance(answer, Stream):
                await self._write_stream(answer, head_only=request.method == "HEAD")
            elif isinstance(answer, Feed):
                await self._write_feed(answer, head_only=request.method == "HEAD")
            else:
                await self._upgrade(answer, offered=request.wants_upgrade)
                return
            self._after_task()
        except asyncio.CancelledError:
            self.close()
            if not self._closing:
                raise
        except ClientGone:
            self.close()
        except Exception:
            log.exception("answering %s %s", request.method, request.path)
            if self._transport is not None:
                self._transport.abort()

    def _after_task(self) -> None:
        self._task = None
        self._after_answer()
        self._next_requests()

    def _after_answer(self) -> None:
        body, self._body = self._body, None
        if body is not None and not body.complete:
            self._keep_alive = False  # the rest of an unread body would be taken for the next request
            if not self._eof:
                self._linger()
                return
        if not self._keep_alive or self._eof:
            self.close()
            return
        self.since = time.monotonic()
        self.resume_reading()

    def _linger(self) -> None:
        """Close once the client has stopped sending: one that writes into a closed connection never reads the answer.

        Source: RFC 9112 section 9.6.
        """
        self._discarding = True
        self._buffer.clear()
        self.send_eof()
        self.resume_reading()
        asyncio.get_running_loop().call_later(_LINGER_S, self.close)

    def _head(self, status: int, headers: dict[str, str]) -> bytes:
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        if not self._keep_alive:
            lines.append("Connection: close\r\n")
        return b"%b%b\r\n" % (self._server.head_start(status), "".join(lines).encode("latin-1", "replace"))

    def _write_response(self, response: Response, *, head_only: bool) -> None:
        if self._body is not None and not self._body.complete:
            self._keep_alive = False  # see `_after_answer`: said in the head, so that the client stops sending
        headers = dict(response.headers)
        if response.content_type:
            headers["Content-Type"] = response.content_type
        if response.status not in (204, 304) and "Content-Length" not in headers:
            headers["Content-Length"] = str(len(response.body))
        head = self._head(response.status, headers)
        bodiless = head_only or response.status in (204, 304)
        if self._transport is not None and not self._closing:
            self._transport.write(head if bodiless else head + response.body)

    async def _write_stream(self, answer: Stream, *, head_only: bool) -> None:
        headers = dict(answer.headers)
        if answer.content_type:
            headers["Content-Type"] = answer.content_type
        headers["Transfer-Encoding"] = "chunked"
        chunks = answer.chunks
        try:
            await self.send(self._head(answer.status, headers))
            if head_only:
                return
            async for chunk in chunks:
                if chunk:
                    await self.send(_chunk(chunk))
            await self.send(b"0\r\n\r\n")
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    async def _write_feed(self, answer: Feed, *, head_only: bool) -> None:
        assert self._transport is not None
        headers = {"Content-Type": answer.content_type, "Transfer-Encoding": "chunked"}
        await self.send(self._head(200, headers))
        if head_only:
            return
        self._transport.set_write_buffer_limits(high=_FEED_HIGH)
        try:
            await answer.run(_FeedSink(self))
        except ClientGone:
            self.drop()
            raise
        await self.send(b"0\r\n\r\n")
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)

    async def _upgrade(self, answer: Upgrade, *, offered: bool) -> None:
        self._peer = _RawPeer(self, bytes(self._buffer))
        self._buffer.clear()
        if self._eof:
            self._peer.feed_eof()
        self._keep_alive = True
        if answer.accept:
            reply = (
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Accept: {answer.accept}\r\n"
            )
        elif offered:
            reply = (
                f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {answer.content_type}\r\n"
                "Connection: Upgrade\r\nUpgrade: tcp\r\n"
            )
        else:
            reply = f"HTTP/1.1 200 OK\r\nContent-Type: {answer.content_type}\r\n"
        extra = "".join(f"{name}: {value}\r\n" for name, value in self._server.options.headers.items())
        peer: Peer = self._peer
        try:
            await self.send((reply + extra + "\r\n").encode("latin-1"))
            self.resume_reading()
            await answer.run(peer)
        finally:
            self.send_eof()
            self.close()

    async def send(self, data: bytes) -> None:
        """Write, and wait while the client is slow. Raises ClientGone."""
        if self._closing or self._transport is None or self._transport.is_closing():
            raise ClientGone("the client left")
        self._transport.write(data)
        if self._write_paused:
            await self._drain()

    def push(self, data: bytes) -> bool:
        """Write, unless the client is slow or gone."""
        if self._write_paused or self._closing or self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(data)
        return True

    async def _drain(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()
        try:
            await self._writable
        finally:
            self._writable = None

    def send_eof(self) -> None:
        """Half-close our sending side, if the connection still stands."""
        if self._transport is not None and not self._closing and not self._transport.is_closing():
            try:
                self._transport.write_eof()
            except (OSError, RuntimeError, NotImplementedError):
                pass

    async def until_read(self, limit_s: float) -> None:
        """Wait until the peer has taken everything written so far out of its socket, at most `limit_s`."""
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        deadline = time.monotonic() + limit_s
        pause = 0.0002
        while not self._closing and time.monotonic() < deadline:
            try:
                raw = fcntl.ioctl(sock.fileno(), _SIOCOUTQ, b"\0\0\0\0")
            except OSError:
                return
            if struct.unpack("i", raw)[0] == 0 and self._transport.get_write_buffer_size() == 0:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.005)

    def close(self) -> None:
        """Close after what is written is out."""
        if self._transport is not None and not self._closing:
            self._transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request (or for the rest of a head)."""
        return self._task is None

    @property
    def is_waiting_for_client(self) -> bool:
        """Whether nothing goes on for it but waiting for what its client has to send."""
        return self._task is None or self._is_short_of_body

    def waits_for_client(self, waits: bool) -> None:
        """Said by the body while somebody needs all of it."""
        self._is_short_of_body = waits
        self.since = time.monotonic()

    def drop(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def descriptor(self) -> int:
        """The number of its socket's descriptor: the kernel gives the lowest that is free, so at least as many are in use."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return sock.fileno() if sock is not None else -1

    @property
    def is_tcp(self) -> bool:
        """Whether it came over the network."""
        return self._guard is not None

    @property
    def has_partial_head(self) -> bool:
        """Whether a head has begun to arrive."""
        return bool(self._buffer)

    # --- noticing that a half-closed client has gone for good

    def _watch_hangup(self) -> None:
        if self._hup is not None or self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return
        self._hup = select.epoll()
        self._hup.register(sock.fileno(), 0)  # EPOLLHUP and EPOLLERR are always reported
        asyncio.get_running_loop().add_reader(self._hup.fileno(), self._hung_up)

    def _hung_up(self) -> None:
        self._unwatch()
        if self._transport is not None:
            self._transport.abort()

    def _unwatch(self) -> None:
        if self._hup is not None:
            asyncio.get_running_loop().remove_reader(self._hup.fileno())
            self._hup.close()
            self._hup = None

    _keep_alive = True


def _who(transport: asyncio.Transport) -> str:
    """Who is at the other end: of a unix socket as the kernel recorded it at connect, else by certificate or address."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        where = transport.get_extra_info("peername") or ("", "")
        return str(transport.get_extra_info("user") or f"from={where[0]}:{where[1]}")
    try:
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except OSError:
        return ""
    return f"uid={uid} pid={pid}"


class Server:
    """Listens on any number of sockets and keeps count of its connections."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self._connections: set[Connection] = set()
        self._tcp = 0  # of them
        self._most = options.max_connections + _BRIEF
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._secured: set[TlsLayer] = set()
        self.heads = HeadReader()
        self._now = 0
        self._starts: dict[int, bytes] = {}

    async def listen(
        self, sock: socket.socket, *, guard: Guard | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Serve on a bound socket (listening is done here). A TCP socket needs a guard."""
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            server = await loop.create_unix_server(lambda: Connection(self), sock=sock, backlog=_BACKLOG)
        else:
            assert guard is not None

            def plain() -> asyncio.Protocol:
                return Connection(self, guard)

            def secured() -> asyncio.Protocol:
                assert tls is not None
                return TlsLayer(tls, plain, others=self._secured, limit=self.options.max_tcp_connections)

            server = await loop.create_server(plain if tls is None else secured, sock=sock, backlog=_BACKLOG)
        self._servers.append(server)
        if self._sweeper is None:
            self._sweeper = loop.call_later(_SWEEP_S, self._sweep)

    def stop_listening(self) -> None:
        """Take no new connections."""
        for server in self._servers:
            server.close()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self.stop_listening()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._connections):
            if connection._transport is not None:
                connection._transport.abort()

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; False when there are too many, or when descriptors run out.

        Before that those are dropped that have waited longest without a request, and then clients get one short answer.
        """
        descriptor = connection.descriptor
        has_room = (
            len(self._connections) < self.options.max_connections
            and descriptor < self._descriptors - _KEPT_BACK
            and (not connection.is_tcp or self._tcp < self.options.max_tcp_connections)
        )
        if not has_room and not self._drop_idle(connection.is_tcp):
            is_last = descriptor >= self._descriptors - _LAST_KEPT_BACK or len(self._connections) >= self._most
            if is_last or connection.is_tcp:
                return False
            connection.is_brief = True
        self._connections.add(connection)
        self._tcp += connection.is_tcp
        return True

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._tcp -= connection.is_tcp

    def _drop_idle(self, is_tcp: bool) -> int:
        """Drop some that wait for their clients, the longest first. How many; over TCP only such are dropped for such."""
        waiting = [
            connection
            for connection in self._connections
            if connection.is_waiting_for_client and (connection.is_tcp or not is_tcp)
        ]
        waiting.sort(key=lambda connection: connection.since)
        dropped = waiting[: min(_DROPPED_AT_ONCE, len(waiting) // 2 + 1)]
        for connection in dropped:
            connection.drop()
            self.forget(connection)
        return len(dropped)

    def head_start(self, status: int) -> bytes:
        """The status line and the headers that every answer has; made once a second for each status."""
        now = int(time.time())
        if now != self._now:
            self._now = now
            self._starts.clear()
        start = self._starts.get(status)
        if start is None:
            lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
            lines += [f"{name}: {value}" for name, value in self.options.headers.items()]
            lines.append(f"Date: {formatdate(now, usegmt=True)}\r\n")
            start = self._starts[status] = "\r\n".join(lines).encode("latin-1", "replace")
        return start

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections):
            if connection.is_idle:
                limit = HEAD_TIMEOUT_S if connection.has_partial_head else IDLE_TIMEOUT_S
                if now - connection.since > limit:
                    connection.close()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)


def error_response(error: BaseException, *, status: int, text: str) -> Response:
    """An error as Docker's clients parse it: `{"message": …}` with exactly `application/json` (W6)."""
    import msgspec

    if status >= 500:
        log.error("%s", text, exc_info=error if not isinstance(error, TareError) else None)
    if status in (204, 304):
        return Response(status=status, content_type="")
    return Response(status=status, body=msgspec.json.encode({"message": text}) + b"\n", content_type=JSON)


def unix_socket(path: str, *, group: int | None) -> socket.socket:
    """A bound unix socket, 0660 root:group, made under umask 0177 so that it is never open to others.

    A stale socket file is replaced; a live one (somebody answers) raises OSError(EADDRINUSE).
    """
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    else:
        raise OSError(98, f"another process is listening on {path}")
    finally:
        probe.close()
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(old)
    if group is not None:
        os.chown(path, 0, group)
    os.chmod(path, 0o660)
    return sock
