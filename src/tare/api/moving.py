"""Containers on their way over HTTP: packed, unpacked, and what of them need not be sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from tare.api.handler import read_json
from tare.engine import pack as pack_verb
from tare.engine import unpack as unpack_verb
from tare.engine.builds import cachemounts
from tare.engine.engine import Engine
from tare.web.message import Answer, Query, Request, Stream, json_response
from tare.wire.errors import text_of
from tare.wire.jsonmessage import failure, message
from tare.wire.moving import LayerBody, MissingAnswer, MissingBody, UnpackedAux

_TAR = "application/x-tar"


def _words(query: Query, name: str) -> list[str]:
    return [word for text in query.all(name) for word in text.split(",") if word]


def _volumes(query: Query) -> tuple[str, ...] | None:
    words = _words(query, "volumes") or ["all"]
    if words == ["all"]:
        return None
    return () if words == ["none"] else tuple(words)


async def pack(engine: Engine, request: Request) -> Answer:
    """`GET /tare/v1/containers/{id}/pack`: the container as a tar."""
    query = request.query
    wanted = pack_verb.Wanted(
        volumes=_volumes(query),
        logs=query.flag("logs"),
        stops=query.flag("stop"),
        without=frozenset(_words(query, "without")),
    )
    pieces = pack_verb.pack(engine, engine.containers.find(request.params["id"]), wanted)
    await anext(pieces)  # it is read, or this raises
    return Stream(pieces, content_type=_TAR)


async def layers(engine: Engine, request: Request) -> Answer:
    """`GET /tare/v1/containers/{id}/layers`: those of its image."""
    container = engine.containers.find(request.params["id"]).container
    found = pack_verb.layers_of(engine, container)
    return json_response(
        [LayerBody(Digest=layer.blob, Size=layer.blob_size, ChainID=layer.chain_id) for layer in found]
    )


async def missing(engine: Engine, request: Request) -> Answer:
    """`POST /tare/v1/missing`: which digests are of no layer here, which cache mounts of builds are not here."""
    body = await read_json(request, MissingBody, required=True)
    mounts = cachemounts.absent(engine.settings.data_root, body.CacheMounts)
    return json_response(MissingAnswer(Missing=pack_verb.lacking(engine, body.Digests), CacheMounts=mounts))


async def unpack(engine: Engine, request: Request) -> Answer:
    """`POST /tare/v1/containers/unpack`: errors are in the stream, as with load."""
    query = request.query
    wanted = unpack_verb.Wanted(
        name=query.text("name"),
        starts=query.flag("start", default=True),
        replaces=query.flag("replace"),
        replaces_volumes=query.flag("replacevolumes"),
    )
    steps = unpack_verb.unpack(engine, aiter(request.body), wanted)

    async def chunks() -> AsyncIterator[bytes]:
        async with aclosing(steps):  # type: ignore[type-var]
            try:
                async for step in steps:
                    if isinstance(step, unpack_verb.Unpacked):
                        yield message(aux=UnpackedAux(ID=step.id, Name=step.name, Running=step.is_running))
                    else:
                        yield message(step.status, about=step.about, current=step.current, total=step.total)
            except Exception as error:
                yield failure(text_of(error))

    return Stream(chunks())


__all__ = ["layers", "missing", "pack", "unpack"]
