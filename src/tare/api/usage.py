"""What containers use and may use, over HTTP: top, stats, update."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from tare.aio import tasks
from tare.api.handler import read_json
from tare.base.errors import InvalidArgument
from tare.containers.view import ports_map
from tare.engine import edit, ports, stats
from tare.engine.engine import Engine
from tare.web.message import Answer, Request, Stream, json_response
from tare.wire.config import PortsBody, PortsChanged, UpdateBody

_HAS_ONE_SHOT = (1, 41)

_UPDATES_PIDS = (1, 40)


async def top(engine: Engine, request: Request) -> Answer:
    """`GET /containers/{id}/top`."""
    slot = engine.containers.find(request.params["id"])
    titles, rows = await stats.top(engine, slot, (request.query.text("ps_args") or "-ef").split())
    return json_response({"Processes": rows, "Titles": titles})


async def stats_(engine: Engine, request: Request) -> Answer:
    """`GET /containers/{id}/stats`."""
    slot = engine.containers.find(request.params["id"])
    if not request.query.flag("stream", default=True):
        is_one_shot = request.version >= _HAS_ONE_SHOT and request.query.flag("one-shot")
        return json_response(await stats.once(engine, slot, with_delta=not is_one_shot))

    async def lines() -> AsyncIterator[bytes]:
        async for sample in stats.stream(engine, slot):
            yield msgspec.json.encode(sample) + b"\n"

    return Stream(lines(), is_endless=True)


async def change_ports(engine: Engine, request: Request) -> Answer:
    """`POST /tare/v1/containers/{id}/ports`: not in Docker."""
    slot = engine.containers.find(request.params["id"])
    body = await read_json(request, PortsBody, required=True)
    if not body.Add and not body.Remove:
        raise InvalidArgument("nothing to add and nothing to remove")
    await tasks.finish(ports.change(engine, slot, add=body.Add or {}, remove=body.Remove or {}), name="change ports")
    return json_response(PortsChanged(Ports=ports_map(slot.container)))


async def update_(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/update`."""
    wanted = await read_json(request, UpdateBody)
    if request.version < _UPDATES_PIDS:
        wanted = msgspec.structs.replace(wanted, PidsLimit=None)
    slot = engine.containers.find(request.params["id"])
    warnings = await tasks.finish(edit.edit(engine, slot, wanted), name="update")
    return json_response({"Warnings": warnings})
