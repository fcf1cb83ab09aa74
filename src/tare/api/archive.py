"""Files of a container over HTTP (W59 to W63)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from isal import isal_zlib

from tare.aio import tasks
from tare.aio.threads import in_thread
from tare.base.errors import InternalError, InvalidArgument
from tare.engine import copy
from tare.engine.engine import Engine
from tare.web.message import Answer, Request, Response, Stream
from tare.wire.encoding import IDENTITY, negotiate
from tare.wire.paths import HEADER, PathStat, header_value

_WINDOW = {"gzip": 31, "deflate": -15}  # dockerd's deflate is the raw stream, without zlib's header
_LEVEL = 1


def _path(request: Request) -> str:
    path = request.query.text("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidArgument("bad parameter: path contains a NUL byte")
    return path


async def head(engine: Engine, request: Request) -> Answer:
    """`HEAD /containers/{id}/archive`: the stat, in a header only."""
    name = request.params["id"]
    found = await copy.stat(engine, engine.containers.find(name), _path(request), name=name)
    return Response(content_type="", headers={HEADER: header_value(found)})


async def get(engine: Engine, request: Request) -> Answer:
    """`GET /containers/{id}/archive`: the stat in a header, the tar as body, packed if the client takes that."""
    name = request.params["id"]
    pieces = copy.read(engine, engine.containers.find(name), _path(request), name=name)
    found = await anext(pieces)
    if not isinstance(found, PathStat):
        raise InternalError("an archive began without its stat")

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            async for piece in pieces:
                assert isinstance(piece, bytes)
                yield piece
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    headers = {HEADER: header_value(found)}
    coding = negotiate(request.headers.get("accept-encoding", ""), tuple(_WINDOW))
    if coding == IDENTITY:
        return Stream(body(), content_type="application/x-tar", headers=headers)
    headers["Content-Encoding"] = coding
    return Stream(_compressed(body(), _WINDOW[coding]), content_type="application/x-tar", headers=headers)


async def _compressed(pieces: AsyncGenerator[bytes, None], window: int) -> AsyncIterator[bytes]:
    """The same bytes packed; big pieces off the loop's thread."""
    packer = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, window)
    async with aclosing(pieces):
        async for piece in pieces:
            if packed := await in_thread(packer.compress, piece):
                yield packed
    yield packer.flush()


async def put(engine: Engine, request: Request) -> Answer:
    """`PUT /containers/{id}/archive`."""
    name = request.params["id"]
    slot = engine.containers.find(name)
    rules = copy.Rules(
        keeps_kinds=request.query.flag("noOverwriteDirNonDir"), owned_by_user=request.query.flag("copyUIDGID")
    )
    source = aiter(request.body)
    await tasks.finish(copy.write(engine, slot, _path(request), source, rules, name=name), name="extract")
    return Response(content_type="")
