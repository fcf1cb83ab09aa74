"""`/volumes`: Docker's requests to the `Volumes` service and back."""

from __future__ import annotations

from tare.aio import tasks
from tare.api.handler import read_json
from tare.base.errors import Conflict, Unavailable
from tare.engine.df import volume_body
from tare.engine.engine import Engine
from tare.volumes.service import LIST_FILTERS, PRUNE_FILTERS
from tare.web.message import Answer, Request, json_response, no_content
from tare.wire.filters import flag, parse_filters
from tare.wire.volumes import VolumeCreate, VolumeList, VolumePruneReport

_PRUNES_ANONYMOUS = (1, 42)


async def list_volumes(engine: Engine, request: Request) -> Answer:
    """`GET /volumes`."""
    filters = parse_filters(request.query.text("filters"), LIST_FILTERS)
    return json_response(VolumeList(Volumes=[volume_body(engine, record) for record in engine.volumes.select(filters)]))


async def create_volume(engine: Engine, request: Request) -> Answer:
    """`POST /volumes/create`."""
    body = await read_json(request, VolumeCreate, required=True)
    record = await tasks.finish(
        engine.volumes.create(body.Name, driver=body.Driver, options=body.DriverOpts, labels=body.Labels),
        name="create volume",
    )
    return json_response(volume_body(engine, record), 201)


async def inspect_volume(engine: Engine, request: Request) -> Answer:
    """`GET /volumes/{name}`."""
    return json_response(volume_body(engine, engine.volumes.get(request.params["name"])))


async def update_volume(_: Engine, __: Request) -> Answer:
    """`PUT /volumes/{name}`: only cluster volumes can be updated."""
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def remove_volume(engine: Engine, request: Request) -> Answer:
    """`DELETE /volumes/{name}`."""
    await tasks.finish(
        engine.volumes.remove(request.params["name"], force=request.query.flag("force")), name="remove volume"
    )
    return no_content()


async def prune_volumes(engine: Engine, request: Request) -> Answer:
    """`POST /volumes/prune`: anonymous ones, since API 1.42 the others only when asked."""
    filters = parse_filters(request.query.text("filters"), PRUNE_FILTERS)
    include_named = request.version < _PRUNES_ANONYMOUS or flag(filters, "all") is True
    if "volumes" in engine.pruning:
        raise Conflict("a prune operation is already running")
    engine.pruning.add("volumes")
    try:
        deleted, reclaimed = await tasks.finish(
            engine.volumes.prune(filters, include_named=include_named), name="prune volumes"
        )
    finally:
        engine.pruning.discard("volumes")
    return json_response(VolumePruneReport(VolumesDeleted=deleted, SpaceReclaimed=reclaimed))
