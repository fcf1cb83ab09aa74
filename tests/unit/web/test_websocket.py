"""The handshake, and messages as a stream of bytes."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

from tare.base.errors import InvalidArgument
from tare.web.websocket import WebSocket, accept_key

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3
GOOD = {"upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": KEY}


class Raw:
    """A connection whose input is given and whose output is kept."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = deque([*pieces, b""])
        self.sent = b""
        self.has_ended = False

    async def read(self) -> bytes:
        return self._pieces.popleft()

    async def write(self, data: bytes) -> None:
        self.sent += data

    def write_eof(self) -> None:
        self.has_ended = True

    async def drained(self) -> None:
        return

    async def gone(self) -> None:
        await asyncio.Event().wait()


def client(*events: TextMessage | BytesMessage | Ping | CloseConnection) -> bytes:
    side = Connection(ConnectionType.CLIENT)
    return b"".join(side.send(event) for event in events)


def heard(data: bytes) -> list[Event]:
    side = Connection(ConnectionType.CLIENT)
    side.receive_data(data)
    return list(side.events())


async def read_all(socket: WebSocket) -> list[bytes]:
    found = []
    while data := await socket.read():
        found.append(data)
    return found


def test_the_handshake() -> None:
    assert accept_key(GOOD) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    for name, value in (
        ("upgrade", "tcp"), ("sec-websocket-version", "8"), ("sec-websocket-key", "x"), ("sec-websocket-key", "eA=="),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument):
            accept_key(GOOD | {name: value})


def test_messages_are_bytes_whatever_their_kind_and_however_cut() -> None:
    sent = client(BytesMessage(data=b"a\0b"), TextMessage(data="é"), BytesMessage(data=b""), BytesMessage(data=b"end"))
    for pieces in ((sent,), tuple(sent[index : index + 1] for index in range(len(sent)))):
        assert b"".join(asyncio.run(read_all(WebSocket(Raw(*pieces))))) == b"a\0b\xc3\xa9end"


def test_pings_are_answered_and_a_close_is_the_end() -> None:
    raw = Raw(client(Ping(payload=b"7"), BytesMessage(data=b"x"), CloseConnection(code=1000)))
    assert asyncio.run(read_all(WebSocket(raw))) == [b"x"]
    pong, close = heard(raw.sent)
    assert (type(pong).__name__, type(close).__name__) == ("Pong", "CloseConnection")


def test_what_is_no_websocket_ends_it() -> None:
    assert asyncio.run(read_all(WebSocket(Raw(b"\xff\xff\xff\xff\xff")))) == []


def test_a_close_is_leaving() -> None:
    async def main() -> None:
        sent = client(BytesMessage(data=b"x"), CloseConnection(code=1000))
        await asyncio.wait_for(WebSocket(Raw(sent), is_read=False).gone(), 5)
        socket = WebSocket(Raw(sent))
        watch = asyncio.ensure_future(socket.gone())
        assert await socket.read() == b"x"
        await asyncio.sleep(0)
        assert not watch.done(), "not before everything was read"
        assert await socket.read() == b""
        await asyncio.wait_for(watch, 5)

    asyncio.run(main())


def test_output_and_its_end() -> None:
    async def main(raw: Raw, *, is_text: bool) -> None:
        socket = WebSocket(raw, is_text=is_text)
        for piece in (b"caf\xc3", b"\xa9", b"\xff"):
            await socket.write(piece)
        await socket.close()
        await socket.close()
        await socket.write(b"too late")

    raw = Raw()
    asyncio.run(main(raw, is_text=False))
    *messages, close = heard(raw.sent)
    assert [bytes(event.data) for event in messages if isinstance(event, BytesMessage)] == [
        b"caf\xc3",
        b"\xa9",
        b"\xff",
    ]
    assert isinstance(close, CloseConnection)
    assert raw.has_ended
    raw = Raw()
    asyncio.run(main(raw, is_text=True))
    texts = [event.data for event in heard(raw.sent) if isinstance(event, TextMessage)]
    assert texts == ["caf", "é", "�"]
