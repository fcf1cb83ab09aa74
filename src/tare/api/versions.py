"""Versions of file systems over HTTP: differences, logs, blame, checkouts, the graph of layers, mounted images."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec
from msgspec import UNSET

from tare.aio import tasks
from tare.api.handler import read_json
from tare.base.clock import rfc3339nano
from tare.base.errors import InvalidArgument
from tare.engine import blame, checkout, difference, imagemount
from tare.engine.engine import Engine
from tare.images import graph
from tare.images.lineage import Origin
from tare.images.mounted import ImageMount
from tare.oci.changeset import Change, Entry
from tare.web.message import Answer, Request, Stream, json_response
from tare.wire import versions as wire
from tare.wire.paths import go_mode

_LINES = "application/x-ndjson"
_PATCH = "text/x-diff"
_TAR = "application/x-tar"


def _needed(request: Request, name: str) -> str:
    found = request.query.text(name)
    if not found:
        raise InvalidArgument(f"bad parameter: {name} is needed")
    return found


async def diff(engine: Engine, request: Request) -> Answer:
    """`GET /tare/v1/diff`: a line of JSON for each path, or with `patch` what git would write."""
    query = request.query
    patches = query.flag("patch")
    wanted = difference.Wanted(
        old=_needed(request, "from"),
        new=_needed(request, "to"),
        below=query.all("path"),
        times=query.flag("times"),
        patches=patches,
    )
    pieces = difference.compare(engine, wanted)
    await anext(pieces)  # the names are right, or this raises

    async def body() -> AsyncGenerator[bytes, None]:
        async with aclosing(pieces):  # type: ignore[type-var]
            async for batch in pieces:
                if patches:
                    yield b"".join(text for _, text in batch)
                else:
                    yield b"".join(msgspec.json.encode(difference_of(change)) + b"\n" for change, _ in batch)

    return Stream(body(), content_type=_PATCH if patches else _LINES)


def file_state(entry: Entry) -> wire.FileState:
    """An entry as JSON says it."""
    return wire.FileState(
        Mode=go_mode(entry.mode),
        Uid=entry.uid,
        Gid=entry.gid,
        Size=entry.size,
        Modified=entry.mtime_ns,
        Target=wire.shown(entry.target)[0] if entry.target else UNSET,
        Device=f"{os.major(entry.rdev)}:{os.minor(entry.rdev)}" if entry.rdev else UNSET,
    )


def difference_of(change: Change) -> wire.Difference:
    """A change as JSON says it."""
    path, raw = wire.shown(change.path)
    return wire.Difference(
        Path=path,
        RawPath=raw,
        Kind=wire.KINDS[change.kind],
        What=list(change.what) or UNSET,
        Old=file_state(change.old) if change.old else None,
        New=file_state(change.new) if change.new else None,
    )


def _origin(origin: Origin) -> wire.LayerOrigin:
    return wire.LayerOrigin(
        Layer=origin.number,
        DiffID=origin.diff_id,
        Size=origin.size_bytes,
        Created=origin.created,
        CreatedBy=origin.created_by,
        Comment=origin.comment,
        Author=origin.author,
    )


async def log_(engine: Engine, request: Request) -> Answer:
    """`GET /tare/v1/log`: which layers changed a path."""
    path, touches = await blame.log(engine, _needed(request, "of"), _needed(request, "path"))
    entries = [
        wire.LogEntry(
            Kind=wire.KINDS[touch.kind],
            File=file_state(touch.entry) if touch.entry is not None else None,
            Origin=_origin(touch.origin),
        )
        for touch in touches
    ]
    return json_response(wire.LogBody(Path=wire.shown(path)[0], Entries=entries))


async def blame_(engine: Engine, request: Request) -> Answer:
    """`GET /tare/v1/blame`: which layer each line of a file, or each member of a directory, comes from."""
    found = await blame.blame(engine, _needed(request, "of"), _needed(request, "path"))
    parts = []
    origins: dict[int, Origin] = {}
    for part in found.parts:
        origins[part.origin.number] = part.origin
        text, raw = wire.shown(part.text)
        parts.append(wire.BlamePart(Layer=part.origin.number, Text=text, RawText=raw))
    body = wire.BlameBody(
        Path=wire.shown(found.path)[0],
        IsDirectory=found.is_directory,
        Parts=parts,
        Origins=[_origin(origins[number]) for number in sorted(origins)],
    )
    return json_response(body)


async def tree(engine: Engine, request: Request) -> Answer:
    """`GET /tare/v1/tree`: the files as a tar."""
    pieces: AsyncIterator[bytes] = checkout.checkout(engine, _needed(request, "of"), request.query.text("path"))
    await anext(pieces)
    return Stream(pieces, content_type=_TAR)


async def graph_(engine: Engine, request: Request) -> Answer:
    """`GET /tare/v1/graph`: the layers of all images, or of those that share the lowest layer of one."""
    images = engine.images
    every = images.list_images({}, include_all=True)
    named = [(image, [reference.familiar() for reference in images.references(image.id)]) for image in every]
    nodes = graph.forest(named)
    if of := request.query.text("of"):
        nodes = graph.family(nodes, images.resolve(of).chain_id or "")
    return json_response(
        [
            wire.GraphLayer(
                ChainID=node.chain,
                Parent=node.parent,
                Origin=_origin(node.origin),
                Images=[wire.GraphImage(Id=image_id, Names=list(names)) for image_id, names in node.images],
            )
            for node in nodes
        ]
    )


def _mounted(record: ImageMount) -> wire.ImageMountBody:
    return wire.ImageMountBody(
        Image=record.name, ImageID=record.image_id, Target=record.target, MountedAt=rfc3339nano(record.at_ns)
    )


async def list_mounts(engine: Engine, _: Request) -> Answer:
    """`GET /tare/v1/mounts`: the images mounted on the host."""
    return json_response([_mounted(record) for _, record in sorted(engine.image_mounts.items())])


async def mount_image(engine: Engine, request: Request) -> Answer:
    """`POST /tare/v1/mounts`: mount an image on the host, read-only."""
    body = await read_json(request, wire.ImageMountRequest, required=True)
    if not body.Image:
        raise InvalidArgument("bad parameter: Image is needed")
    record = await tasks.finish(imagemount.mount(engine, body.Image, body.Target), name="mount image")
    return json_response(_mounted(record), 201)


async def unmount_image(engine: Engine, request: Request) -> Answer:
    """`DELETE /tare/v1/mounts`: unmount by directory, or an image everywhere."""
    name, force = _needed(request, "of"), request.query.flag("force")
    done = await tasks.finish(imagemount.unmount(engine, name, force=force), name="unmount image")
    return json_response([_mounted(record) for record in done])
