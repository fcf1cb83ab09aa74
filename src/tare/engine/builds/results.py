"""What a build made as a stream: its files as a tar, or the image as an archive (`--output`).

A build that is asked for outputs and gives its image no name makes an image nobody would miss: it is held here for those
who read it, and removed when the last of them is done, unless somebody has named or used it meanwhile. When the engine
ends before that it is an untagged image like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from tare.aio.tasks import finish
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
_held: Counter[Digest] = Counter()
"""Images that were made to be read, with how many builds wait for that."""


def hold(image: Image, *, is_new: bool) -> None:
    """A build made the image only to be read. is_new: it was not there before."""
    if is_new or image.id in _held:
        _held[image.id] += 1


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
    try:
        yield b""
        async with aclosing(pieces):  # type: ignore[type-var]
            async for piece in pieces:
                yield piece
    finally:
        if is_last:
            await finish(let_go(engine, image.id), name="let go of a build's result")


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


async def let_go(engine: Engine, image_id: Digest) -> None:
    """One who waited for the image is done. Idempotent for images that are not held."""
    if image_id not in _held:
        return
    _held[image_id] -= 1
    if _held[image_id] <= 0:
        del _held[image_id]
        await engine.images.remove_unnamed(image_id, uses=image_uses(engine))
        if engine.images.find(image_id) is None:
            provenance.forget(engine.settings.data_root, image_id)


__all__ = ["KINDS", "hold", "let_go", "result"]
