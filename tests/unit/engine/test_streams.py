"""Half-close is not leaving; detach keys end the conversation; output ends it otherwise."""

from __future__ import annotations

import asyncio
from collections import deque

from tare.containers.hub import Hub
from tare.engine.streams import End, Terms, converse
from tare.wire.frames import STDERR, STDOUT, frame


class Client:
    """A peer whose input is given and whose output is kept."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = deque([*pieces, b""])
        self.left = asyncio.Event()
        self.got = b""

    async def read(self) -> bytes:
        return self._pieces.popleft()

    async def write(self, data: bytes) -> None:
        self.got += data

    def write_eof(self) -> None:
        return

    async def drained(self) -> None:
        return

    async def gone(self) -> None:
        await self.left.wait()


def test_output_is_framed_and_only_what_is_wanted_passes() -> None:
    async def scene(terms: Terms) -> tuple[bytes, End]:
        hub, client = Hub(), Client()
        subscriber = hub.subscribe()
        subscriber.feed(STDOUT, b"out")
        subscriber.feed(STDERR, b"err")
        subscriber.end()
        end = await converse(hub, subscriber, client, terms)
        return client.got, end

    assert asyncio.run(scene(Terms())) == (frame(STDOUT, b"out") + frame(STDERR, b"err"), End.OUTPUT)
    assert asyncio.run(scene(Terms(stdout=False))) == (frame(STDERR, b"err"), End.OUTPUT)
    assert asyncio.run(scene(Terms(is_raw=True))) == (b"outerr", End.OUTPUT)


def test_the_end_of_input_does_not_end_the_output() -> None:
    async def scene() -> End:
        hub, client = Hub(), Client()
        subscriber = hub.subscribe()
        talk = asyncio.ensure_future(converse(hub, subscriber, client, Terms(stdin=True)))
        done, _ = await asyncio.wait({talk}, timeout=0.05)
        assert not done
        subscriber.end()
        return await talk

    assert asyncio.run(scene()) is End.OUTPUT


def test_who_leaves_has_sent_the_end_of_input() -> None:
    class Process(Hub):
        """Takes stdin."""

        def __init__(self) -> None:
            super().__init__()
            self.taken = b""
            self.ended = asyncio.Event()

        async def write_stdin(self, data: bytes, *, run: int | None = None) -> None:
            assert run == 0
            self.taken += data

        async def close_stdin(self, *, run: int | None = None) -> None:
            assert run == 0
            self.ended.set()

    async def scene() -> tuple[End, bytes]:
        hub, client = Process(), Client(b"last words")
        client.left.set()
        end = await converse(hub, hub.subscribe(), client, Terms(stdin=True, closes_stdin=True))
        await asyncio.wait_for(hub.ended.wait(), 5)
        return end, hub.taken

    assert asyncio.run(scene()) == (End.GONE, b"last words")


def test_detach_keys_and_leaving() -> None:
    async def detaches() -> End:
        hub = Hub()
        return await converse(hub, hub.subscribe(), Client(b"\x10\x11"), Terms(stdin=True, detach_keys=b"\x10\x11"))

    async def leaves() -> End:
        hub, client = Hub(), Client()
        client.left.set()
        return await converse(hub, hub.subscribe(), client, Terms())

    assert asyncio.run(detaches()) is End.DETACHED
    assert asyncio.run(leaves()) is End.GONE
