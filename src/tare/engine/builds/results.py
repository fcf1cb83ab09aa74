"""What a build made as a stream: its files as a tar, or the image as an archive (`--output`).

A build that is asked for outputs and gives its image no name makes an image nobody would miss: it is held here for those
who read it, and removed when the last of them is done, unless somebody has named or used it meanwhile. When the engine
ends before that it is an untagged image like any other. A result that nobody comes for goes after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

from msgspec import Struct

from tare.aio.tasks import finish, spawn
from tare.base.digest import Digest
from tare.base.errors import InvalidArgument, NotFound
from tare.base.reference import Reference
from tare.drivers.archive import tar
from tare.engine.builds import provenance
from tare.engine.checkout import checkout
from tare.engine.engine import Engine, image_uses
from tare.images.records import Image
from tare.images.save import plan, stream

KINDS = ("local", "tar", "oci", "docker")
Forget = Callable[[Digest], Awaitable[None]]
PATIENCE_S = 30.0
"""How long a result waits for its next reader: who asked may have ended between the build and the reading."""


class _Waiting(Struct):
    """An image that was made to be read: how many builds wait for that, and how many read now."""

    forget: Forget
    builds: int = 0
    readers: int = 0
    timer: asyncio.TimerHandle | None = None


class Held:
    """The images that are kept until they have been read."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._waiting: dict[Digest, _Waiting] = {}

    def __contains__(self, image_id: Digest) -> bool:
        return image_id in self._waiting

    def hold(self, image_id: Digest, forget: Forget) -> None:
        """A build has made the image, or is about to, only to be read. forget: removes it unless somebody uses it."""
        waiting = self._waiting.setdefault(image_id, _Waiting(forget))
        waiting.builds += 1
        self._watch(image_id, waiting)

    def begin(self, image_id: Digest) -> None:
        """Somebody begins to read it."""
        waiting = self._waiting.get(image_id)
        if waiting is not None:
            waiting.readers += 1
            self._watch(image_id, waiting)

    async def end(self, image_id: Digest, *, is_last: bool) -> None:
        """Somebody has read it, or given up. is_last: nobody of the same build will read it again."""
        waiting = self._waiting.get(image_id)
        if waiting is not None:
            waiting.readers = max(waiting.readers - 1, 0)
            self._watch(image_id, waiting)
        if is_last:
            await self.let_go(image_id)

    async def let_go(self, image_id: Digest) -> None:
        """One who waited for the image is done. Idempotent for images that are not held."""
        waiting = self._waiting.get(image_id)
        if waiting is None:
            return
        waiting.builds -= 1
        if waiting.builds > 0:
            return
        del self._waiting[image_id]
        if waiting.timer is not None:
            waiting.timer.cancel()
        await waiting.forget(image_id)

    def _watch(self, image_id: Digest, waiting: _Waiting) -> None:
        """Patience begins anew; it is endless while somebody reads."""
        if waiting.timer is not None:
            waiting.timer.cancel()
            waiting.timer = None
        if not waiting.readers:
            loop = asyncio.get_running_loop()
            waiting.timer = loop.call_later(self._patience_s, self._expire, image_id, waiting)

    def _expire(self, image_id: Digest, waiting: _Waiting) -> None:
        if self._waiting.get(image_id) is waiting:
            waiting.builds = 1
            spawn(self.let_go(image_id), name="let go of a build's result")


held = Held()


async def forget(engine: Engine, image_id: Digest) -> None:
    """Remove an image that nobody has named or used, and what is told of it."""
    await engine.images.remove_unnamed(image_id, uses=image_uses(engine))
    if engine.images.find(image_id) is None:
        provenance.forget(engine.settings.data_root, image_id)


async def result(
    engine: Engine, image_id: str, kind: str, *, names: Sequence[Reference] = (), is_last: bool
) -> AsyncIterator[bytes]:
    """The stream. names: written beside the image in an archive. is_last: nobody will read it again.

    Raises InvalidArgument, NotFound before the first piece, which is empty.
    """
    if kind not in KINDS:
        raise InvalidArgument(f"unknown type of output {kind[:100]!r}: use one of {', '.join(KINDS)}")
    image = engine.images.get(image_id)
    pieces = _files(engine, image) if kind in ("local", "tar") else _archive(engine, image, names, kind)
    held.begin(image.id)
    try:
        yield b""
        async with aclosing(pieces):  # type: ignore[type-var]
            async for piece in pieces:
                yield piece
    finally:
        await finish(held.end(image.id, is_last=is_last), name="let go of a build's result")


async def _files(engine: Engine, image: Image) -> AsyncIterator[bytes]:
    if not image.layers:
        yield tar.TRAILER
        return
    pieces = checkout(engine, image.id, "")
    async with aclosing(pieces):  # type: ignore[type-var]
        async for piece in pieces:
            yield piece


async def _archive(engine: Engine, image: Image, names: Sequence[Reference], kind: str) -> AsyncIterator[bytes]:
    images = engine.images
    members = plan([(image, list(names))])
    if kind == "oci":
        members = [member for member in members if member.name != "manifest.json"]
    async with images.lease() as lease:
        for layer in image.layers:
            if images.layers.find(lease, layer.chain_id) is None:
                raise NotFound(f"No such image: {image.id}")
        async for piece in stream(members, images.blobs):
            yield piece


__all__ = ["KINDS", "Held", "forget", "held", "result"]
