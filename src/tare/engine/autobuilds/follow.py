"""Reading what a run said: its log from the file, as it grows, to the end."""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import AsyncIterator

from tare.build.autobuild import SUCCEEDED, Autobuild, Run
from tare.build.autobuilds import Live
from tare.engine.autobuilds import places
from tare.engine.engine import Engine
from tare.wire.jsonmessage import failure, message

_PIECE = 64 * 1024


async def text(engine: Engine, item: Autobuild, run: Run, *, follow: bool) -> AsyncIterator[bytes]:
    """The log of a run; while it goes on and `follow` is set, until it ends."""
    live = engine.autobuilds.live.get(item.id)
    if live is None or live.number != run.number or not follow:
        live = None
    try:
        fd = os.open(places.log_path(engine, item.id, run.number), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # removed with its history since
        return
    try:
        at = 0
        while True:
            is_over = live is None or live.is_over
            piece = os.pread(fd, _PIECE, at)
            at += len(piece)
            if piece:
                yield piece
            elif is_over:
                return
            elif live is not None:
                await live.news()
    finally:
        os.close(fd)


async def messages(engine: Engine, item: Autobuild, begun: asyncio.Future[Live]) -> AsyncIterator[bytes]:
    """The run that `begun` resolves with, as the messages of a build: text, and at the end what came of it."""
    if not begun.done() and engine.autobuilds.live:
        yield message(stream="Waiting for the runs before this one\n")
    try:
        live = await asyncio.shield(begun)
    except asyncio.CancelledError:
        if not begun.cancelled():
            raise
        yield failure(f"autobuild {item.name} was removed")
        return
    while live.run is None and not live.is_over:
        await live.news()
    if live.run is None:
        yield message(stream=f"{live.commit} is built already: nothing to do\n")
        yield message(aux={"Status": "unchanged", "Commit": live.commit})
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async for piece in text(engine, item, live.run, follow=True):
        if said := decoder.decode(piece):
            yield message(stream=said)
    while not live.is_over:
        await live.news()
    run = live.run
    if run.status != SUCCEEDED:
        yield failure(run.error, code=run.code)
        return
    yield message(aux={"Status": run.status, "Run": run.number, "Commit": run.commit, "ID": run.image})


__all__ = ["messages", "text"]
