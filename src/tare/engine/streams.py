"""A conversation between a client and standard streams, for attach and exec alike."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Coroutine
from typing import Any

from msgspec import Struct

from tare.aio import tasks
from tare.containers.hub import Hub, Subscriber
from tare.web.message import Peer
from tare.wire.detach import DetachFilter
from tare.wire.frames import STDERR, STDOUT, frame

_PARTING_S = 2.0


class End(enum.Enum):
    """Why a conversation ended."""

    OUTPUT = "the streams ended"
    GONE = "the client left"
    DETACHED = "the detach keys were typed"


class Terms(Struct, frozen=True, kw_only=True):
    """is_raw: bytes as they are, all on stdout; else frames. detach_keys: none if empty.

    stdin: pass the client's input on; closes_stdin: its end too.
    """

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    is_raw: bool = False
    detach_keys: bytes = b""
    closes_stdin: bool = False


async def converse(hub: Hub, subscriber: Subscriber, peer: Peer, terms: Terms) -> End:
    """Pass bytes both ways until the output ends, the client leaves or detaches. Half-close is not leaving (W25)."""
    return await talk(hub, _pump_out(subscriber, terms, peer), peer, terms, run=subscriber.run)


async def talk(hub: Hub, sending: Coroutine[Any, Any, None], peer: Peer, terms: Terms, *, run: int) -> End:
    """The same with `sending` for what goes to the client: it returns at the output's end. run: `Subscriber.run`."""
    output = tasks.spawn(sending, name="output", is_awaited=True)
    watch = tasks.spawn(peer.gone(), name="hang-up", is_awaited=True)
    incoming: asyncio.Task[bool] | None = None
    if terms.stdin:
        incoming = tasks.spawn(_pump_in(hub, terms, peer, run=run), name="input", is_awaited=True)
    try:
        while True:
            waiting: set[asyncio.Task[None] | asyncio.Task[bool]] = {output, watch}
            if incoming is not None:
                waiting.add(incoming)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if output.done():
                output.result()
                return End.OUTPUT
            if watch.done():
                # What it sent before it left still goes to the process, and then the end: `cat` must not wait for ever.
                incoming = None
                return End.GONE
            if incoming is not None and incoming.done():
                if incoming.result():
                    return End.DETACHED
                incoming = None
    finally:
        for task in (output, watch, incoming):
            if task is not None:
                task.cancel()


async def part(peer: Peer) -> None:
    """End our side and take what the client still sends, for a moment: a close with bytes unread resets the connection.

    A client that reads to the end then hangs up would otherwise see an error in the place of the last output.
    """
    peer.write_eof()

    async def rest() -> None:
        while await peer.read():
            pass

    try:
        await asyncio.wait_for(rest(), _PARTING_S)
    except TimeoutError:
        pass


async def _pump_out(subscriber: Subscriber, terms: Terms, peer: Peer) -> None:
    wanted = {STDOUT: terms.stdout, STDERR: terms.stderr}
    while packets := await subscriber.read():
        if terms.is_raw:
            data = b"".join(data for stream, data in packets if wanted.get(stream))
        else:
            data = b"".join(frame(stream, data) for stream, data in packets if wanted.get(stream))
        if data:
            await peer.write(data)


async def _pump_in(hub: Hub, terms: Terms, peer: Peer, *, run: int) -> bool:
    """Client to process. True when the detach sequence was typed, False at the end of the client's input."""
    keys = DetachFilter(terms.detach_keys) if terms.detach_keys else None
    while data := await peer.read():
        detached = False
        if keys is not None:
            data, detached = keys.feed(data)
        if data:
            await hub.write_stdin(data, run=run)
        if detached:
            return True
    if terms.closes_stdin:
        await hub.close_stdin(run=run)
    return False
