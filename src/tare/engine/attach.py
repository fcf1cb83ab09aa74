"""Attaching a client to a container's standard streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct

from tare.base.errors import Conflict, NotFound
from tare.containers.hub import Subscriber
from tare.containers.service import Slot
from tare.engine.engine import Engine
from tare.engine.logs import read_logs
from tare.engine.news import tell
from tare.engine.streams import End, Terms, converse, part, talk
from tare.web.message import Peer


class Streams(Struct, frozen=True, kw_only=True):
    """Which streams a client wants. replay: the log so far first. detach_keys: bytes that end the attachment.
    is_raw: without frames even where there is no terminal.
    """

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    stream: bool = True
    replay: bool = False
    is_raw: bool = False
    detach_keys: bytes = b""


def prepare(engine: Engine, slot: Slot, streams: Streams) -> Callable[[Peer], Awaitable[None]]:
    """Check and register now, so that no byte after this call is missed; run the result on the connection.

    Raises Conflict when the container is paused or restarting.
    """
    container = slot.container
    if container.is_paused:
        raise Conflict(f"container {container.id} is paused, unpause the container before attach")
    subscriber = slot.hub.subscribe() if streams.stream and not (streams.replay and _is_over(slot)) else None
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
    """Whether it ran and ended. Who wants its log gets that, and the end; who does not waits for the next run, as in
    Docker: `docker start -a` attaches first.
    """
    return not slot.container.is_running and slot.container.started_at != 0


async def _converse(engine: Engine, slot: Slot, streams: Streams, subscriber: Subscriber | None, peer: Peer) -> None:
    container, config = slot.container, slot.container.config
    replays = streams.replay and container.host_config.LogConfig.Type != "none"
    if subscriber is None:
        if replays:
            await _from_log(engine, slot, streams, peer, follow=False)
        return
    terms = Terms(
        stdin=streams.stdin and config.OpenStdin,
        stdout=streams.stdout,
        stderr=streams.stdout if config.Tty else streams.stderr,
        is_raw=config.Tty or streams.is_raw,
        detach_keys=streams.detach_keys if config.Tty else b"",
        closes_stdin=config.StdinOnce and not config.Tty,
    )
    if replays and container.is_running:
        # The monitor writes the log before it tells the hub: who goes on in the log misses nothing and has nothing twice.
        subscriber.mute()
        replay = _from_log(engine, slot, streams, peer, follow=True)
        end = await talk(slot.hub, replay, peer, terms, run=subscriber.run)
    else:
        end = await converse(slot.hub, subscriber, peer, terms)
    if end is End.DETACHED:
        tell(engine, slot.container, "detach")
    elif end is End.OUTPUT and terms.stdin:
        await part(peer)


async def _from_log(engine: Engine, slot: Slot, streams: Streams, peer: Peer, *, follow: bool) -> None:
    """Send the log so far, and if wanted what is added to it until the container ends."""
    pieces = read_logs(engine, slot, stdout=streams.stdout, stderr=streams.stderr, is_raw=streams.is_raw, follow=follow)
    try:
        async for piece in pieces:
            await peer.write(piece)
    finally:
        await pieces.aclose()
