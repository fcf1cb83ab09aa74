"""A WebSocket as a `Peer`: what is read are the payloads of its messages, what is written are messages.

Only the server's side, no extensions: container output would not gain by compression what it costs.
Source: RFC 6455.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from tare.base.errors import ClientGone, InvalidArgument
from tare.web.message import Peer, Upgrade

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NORMAL = 1000


def accept_key(headers: Mapping[str, str]) -> str:
    """The answer to `Sec-WebSocket-Key`. Raises InvalidArgument for what is no handshake of version 13."""
    if headers.get("upgrade", "").lower() != "websocket":
        raise InvalidArgument("not a websocket handshake: the header Upgrade: websocket is missing")
    if headers.get("sec-websocket-version") != "13":
        raise InvalidArgument("unsupported websocket version: only 13 is served")
    key = headers.get("sec-websocket-key", "")
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise InvalidArgument("bad Sec-WebSocket-Key")
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def upgrade(
    headers: Mapping[str, str], run: Callable[[Peer], Awaitable[None]], *, is_text: bool, is_read: bool
) -> Upgrade:
    """Run `run` over a websocket. is_text: messages are text, what is no UTF-8 in them replaced; else binary.

    is_read: `run` reads; else what the client sends is passed over, and only its close noticed. Raises InvalidArgument.
    """

    async def over_messages(peer: Peer) -> None:
        socket = WebSocket(peer, is_text=is_text, is_read=is_read)
        try:
            await run(socket)
        finally:
            await socket.close()

    return Upgrade(over_messages, accept=accept_key(headers))


class WebSocket:
    """See `web.message.Peer`."""

    def __init__(self, peer: Peer, *, is_text: bool = False, is_read: bool = True) -> None:
        self._peer = peer
        self._protocol = Connection(ConnectionType.SERVER)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if is_text else None
        self._received: deque[bytes] = deque()
        self._has_ended = False
        self._is_read = is_read
        self._told = asyncio.Event()

    async def read(self) -> bytes:
        """The payload of the next message or part of one; b"" when the client has closed."""
        while not self._received:
            if self._has_ended:
                self._told.set()
                return b""
            data = await self._peer.read()
            self._protocol.receive_data(data or None)
            await self._take()
        return self._received.popleft()

    async def _take(self) -> None:
        for event in self._protocol.events():
            if isinstance(event, BytesMessage):
                self._received.append(bytes(event.data))
            elif isinstance(event, TextMessage):
                self._received.append(event.data.encode())
            elif isinstance(event, Ping):
                await self._peer.write(self._protocol.send(event.response()))
            elif isinstance(event, CloseConnection):
                self._has_ended = True
                if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                    await self._peer.write(self._protocol.send(event.response()))
                elif self._protocol.state is ConnectionState.OPEN:  # what it sent is no websocket: tell it, and end
                    await self._peer.write(self._protocol.send(CloseConnection(code=event.code, reason=event.reason)))
        if any(not piece for piece in self._received):
            self._received = deque(piece for piece in self._received if piece)

    async def write(self, data: bytes) -> None:
        """Send one message; nothing any more once either side has closed."""
        if self._protocol.state is not ConnectionState.OPEN:
            return
        if self._decoder is None:
            await self._peer.write(self._protocol.send(BytesMessage(data=data)))
        elif text := self._decoder.decode(data):
            await self._peer.write(self._protocol.send(TextMessage(data=text)))

    async def close(self) -> None:
        """Say that we are done, unless that has been said. Raises nothing when the client has left."""
        if self._protocol.state is not ConnectionState.OPEN:
            return
        try:
            await self._peer.write(self._protocol.send(CloseConnection(code=_NORMAL)))
        except (ClientGone, LocalProtocolError):
            return
        self._peer.write_eof()

    def write_eof(self) -> None:
        """A websocket has no half-close: `close` comes at the end of the conversation."""

    async def drained(self) -> None:
        """See Peer."""
        await self._peer.drained()

    async def gone(self) -> None:
        """Return when the client has closed, by a frame or the connection: there is no half-close to go on after."""
        if not self._is_read:
            while await self.read():
                pass
            return
        either = [asyncio.ensure_future(self._peer.gone()), asyncio.ensure_future(self._told.wait())]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in either:
                future.cancel()
