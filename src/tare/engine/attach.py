"""Attaching a client to a container's standard streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from tare.aio import tasks
from tare.base.errors import Conflict, NotFound
from tare.containers.hub import Subscriber
from tare.containers.service import Slot
from tare.engine.engine import Engine
from tare.engine.logs import read_logs
from tare.engine.news import tell
from tare.web.message import Peer
from tare.wire.detach import DetachFilter
from tare.wire.frames import STDERR, STDOUT, frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Which streams a client wants. replay: the log so far first. detach_keys: bytes that end the attachment."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    stream: bool = True
    replay: bool = False
    detach_keys: bytes = b""


def prepare(engine: Engine, slot: Slot, streams: Streams) -> Callable[[Peer], Awaitable[None]]:
    """Check and register now, so that no byte after this call is missed; run the result on the connection.

    Raises Conflict when the container is paused or restarting.
    """
    container = slot.container
    if container.is_paused:
        raise Conflict(f"container {container.id} is paused, unpause the container before attach")
    subscriber = slot.hub.subscribe() if streams.stream and not _is_over(slot) else None
    if subscriber is not None and container.is_running:
        try:
            slot.hub.connect(lambda: engine.monitor.connect(container.id))
        except NotFound:
            slot.hub.unsubscribe(subscriber)
            subscriber = None
    tell(engine, container, "attach")

    async def run(peer: Peer) -> None:
        try:
            await _converse(engine, slot, streams, subscriber, peer)
        finally:
            if subscriber is not None:
                slot.hub.unsubscribe(subscriber)

    return run


def _is_over(slot: Slot) -> bool:
    """Whether it ran and ended: attaching then gives the end at once, as in Docker."""
    return not slot.container.is_running and slot.container.started_at != 0


async def _converse(engine: Engine, slot: Slot, streams: Streams, subscriber: Subscriber | None, peer: Peer) -> None:
    has_tty = slot.container.config.Tty
    if streams.replay:
        async for piece in _replay(engine, slot, streams):
            await peer.write(piece)
    if subscriber is None:
        return
    output = tasks.spawn(_pump_out(subscriber, streams, peer, has_tty=has_tty), name="attach output")
    watch = tasks.spawn(peer.gone(), name="attach hang-up")
    ends: set[asyncio.Task[None]] = {output, watch}
    incoming: asyncio.Task[bool] | None = None
    if streams.stdin and slot.container.config.OpenStdin:
        incoming = tasks.spawn(_pump_in(slot, streams, peer), name="attach input")
    try:
        while True:
            waiting: set[asyncio.Task[None] | asyncio.Task[bool]] = {*ends}
            if incoming is not None:
                waiting.add(incoming)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if output.done() or watch.done():
                return
            if incoming is not None and incoming.done():
                if incoming.result():
                    tell(engine, slot.container, "detach")
                    return
                incoming = None
    finally:
        for task in (output, watch, incoming):
            if task is not None:
                task.cancel()


async def _pump_out(subscriber: Subscriber, streams: Streams, peer: Peer, *, has_tty: bool) -> None:
    wanted = {STDOUT: streams.stdout, STDERR: streams.stderr}
    while packets := await subscriber.read():
        if has_tty:
            data = b"".join(data for _, data in packets) if streams.stdout else b""
        else:
            data = b"".join(frame(stream, data) for stream, data in packets if wanted.get(stream))
        if data:
            await peer.write(data)


async def _pump_in(slot: Slot, streams: Streams, peer: Peer) -> bool:
    """Client to container. True when the detach sequence was typed, False at the end of the client's input."""
    config = slot.container.config
    keys = DetachFilter(streams.detach_keys) if config.Tty and streams.detach_keys else None
    while data := await peer.read():
        detached = False
        if keys is not None:
            data, detached = keys.feed(data)
        if data:
            await slot.hub.write_stdin(data)
        if detached:
            return True
    if config.StdinOnce and not config.Tty:
        await slot.hub.close_stdin()
    return False


async def _replay(engine: Engine, slot: Slot, streams: Streams) -> AsyncIterator[bytes]:
    async for piece in read_logs(engine, slot, stdout=streams.stdout, stderr=streams.stderr):
        yield piece
