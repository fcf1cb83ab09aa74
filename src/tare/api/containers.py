"""Containers over HTTP: parse, call the verb, answer in Docker's shape."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable

import msgspec

from tare.aio import tasks
from tare.aio.threads import in_thread
from tare.api.handler import read_json, seconds_to_nanos
from tare.base.errors import Conflict, InvalidArgument, NotImplementedYet
from tare.containers.container import Container, State
from tare.containers.logoptions import is_readable
from tare.containers.service import Outcome
from tare.engine import attach as attach_verb
from tare.engine import commit as commit_verb
from tare.engine import create as create_verb
from tare.engine import export as export_verb
from tare.engine import inspect as inspect_verb
from tare.engine import links, listing, logs, prune, remove, rename, rotation, start, stop
from tare.engine import restart as restart_verb
from tare.engine.engine import Engine
from tare.images.naming import time_ns
from tare.web.message import Answer, Query, Request, Response, Stream, Upgrade, json_response, no_content
from tare.wire.config import ContainerConfig, CreateBody
from tare.wire.containers import Change, CreateResponse, WaitError, WaitResponse
from tare.wire.detach import parse_keys
from tare.wire.filters import parse_filters

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_RENAMED_STREAM = (1, 42)
_BINARY_MESSAGES = (1, 28)
_LISTS_ANNOTATIONS = (1, 46)


def stream_type(request: Request, *, has_tty: bool) -> str:
    """W21: the multiplexed type is named since API 1.42."""
    return MULTIPLEXED if not has_tty and request.version >= _RENAMED_STREAM else RAW


async def list_(engine: Engine, request: Request) -> Answer:
    """`GET /containers/json`."""
    limit = request.query.integer("limit", 0) or 0
    options = listing.ListOptions(
        all=request.query.flag("all"),
        limit=max(0, limit),
        size=request.query.flag("size"),
        shows_annotations=request.version >= _LISTS_ANNOTATIONS,
        filters=parse_filters(request.query.text("filters"), listing.KNOWN),
    )
    return Response(body=await listing.list_json(engine, options))


async def create(engine: Engine, request: Request) -> Answer:
    """`POST /containers/create`."""
    body = await read_json(request, CreateBody, required=True)
    query = request.query
    made = create_verb.create(
        engine, body, name=query.text("name"), version=request.version, platform=query.text("platform")
    )
    container, warnings = await tasks.finish(made, name="create")
    return json_response(CreateResponse(Id=container.id, Warnings=warnings), 201)


def inspect(engine: Engine, request: Request) -> Response | Awaitable[Answer]:
    """`GET /containers/{id}/json`."""
    container = engine.containers.find(request.params["id"]).container
    if request.query.flag("size"):
        return _inspect_with_sizes(engine, container)
    return Response(body=inspect_verb.inspect_json(engine, container))


async def _inspect_with_sizes(engine: Engine, container: Container) -> Answer:
    return Response(body=await inspect_verb.inspect_json_with_sizes(engine, container))


async def start_(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/start`."""
    if request.headers.get("content-length", "0").isdigit() and int(request.headers.get("content-length", "0")) > 7:
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    if request.query.text("checkpoint"):
        raise NotImplementedYet("checkpoints are not served by this version")
    slot = engine.containers.find(request.params["id"])
    await tasks.finish(start.start(engine, slot), name="start")
    return no_content()


async def stop_(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/stop`."""
    slot = engine.containers.find(request.params["id"])
    await tasks.finish(
        stop.stop(engine, slot, timeout_s=request.query.integer("t"), signal_text=request.query.text("signal")),
        name="stop",
    )
    return no_content()


async def restart(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/restart`."""
    slot = engine.containers.find(request.params["id"])
    await tasks.finish(
        restart_verb.restart(
            engine, slot, timeout_s=request.query.integer("t"), signal_text=request.query.text("signal")
        ),
        name="restart",
    )
    return no_content()


async def kill(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/kill`."""
    slot = engine.containers.find(request.params["id"])
    await tasks.finish(stop.kill(engine, slot, request.query.text("signal")), name="kill")
    return no_content()


async def pause(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/pause`."""
    stop.pause(engine, engine.containers.find(request.params["id"]))
    return no_content()


async def unpause(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/unpause`."""
    stop.unpause(engine, engine.containers.find(request.params["id"]))
    return no_content()


async def delete(engine: Engine, request: Request) -> Answer:
    """`DELETE /containers/{id}`."""
    if request.query.flag("link"):
        await tasks.finish(links.remove(engine, request.params["id"]), name="remove link")
        return no_content()
    name, query = request.params["id"], request.query
    slot = engine.containers.find(name)
    removing = remove.remove(engine, slot, force=query.flag("force"), volumes=query.flag("v"), called=name)
    await tasks.finish(removing, name="remove")
    return no_content()


async def rename_(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/rename`."""
    slot = engine.containers.find(request.params["id"])
    await tasks.finish(rename.rename(engine, slot, request.query.text("name")), name="rename")
    return no_content()


async def wait(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/wait`: the headers at once, the body when it happens (W35)."""
    slot = engine.containers.find(request.params["id"])
    future = slot.wait(request.query.text("condition") or "not-running")

    async def body() -> AsyncIterator[bytes]:
        try:
            yield _outcome(await future)
        finally:
            future.cancel()

    return Stream(body())


def _outcome(outcome: Outcome) -> bytes:
    answer = WaitResponse(StatusCode=outcome.exit_code)
    if outcome.error:
        answer = WaitResponse(StatusCode=outcome.exit_code, Error=WaitError(Message=outcome.error))
    return msgspec.json.encode(answer) + b"\n"


async def logs_(engine: Engine, request: Request) -> Answer:
    """`GET /containers/{id}/logs`."""
    slot = engine.containers.find(request.params["id"])
    query = request.query
    stdout, stderr = query.flag("stdout"), query.flag("stderr")
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    container = slot.container
    if not is_readable(container.host_config.LogConfig):
        raise InvalidArgument("configured logging driver does not support reading")
    if container.state is State.DEAD or slot.is_being_removed:
        raise Conflict("can not get logs from container which is dead or marked for removal")
    tail = query.text("tail")
    chunks = logs.read_logs(
        engine,
        slot,
        stdout=stdout,
        stderr=stderr,
        since=seconds_to_nanos(query.text("since")),
        until=seconds_to_nanos(query.text("until")),
        tail=int(tail) if tail.isascii() and tail.isdigit() else None,
        timestamps=query.flag("timestamps"),
        details=query.flag("details"),
        follow=query.flag("follow"),
    )
    content_type = stream_type(request, has_tty=container.config.Tty)
    return Stream(chunks, content_type=content_type, is_endless=query.flag("follow"))


async def clear_logs(engine: Engine, request: Request) -> Answer:
    """`DELETE /tare/v1/containers/{id}/logs`: not in Docker."""
    slot = engine.containers.find(request.params["id"])
    if slot.container.host_config.LogConfig.Type == "none":
        raise InvalidArgument("configured logging driver does not support reading")
    await tasks.finish(rotation.clear(engine, slot), name="clear logs")
    return no_content()


def _streams(query: Query, *, is_raw: bool = False) -> attach_verb.Streams:
    return attach_verb.Streams(
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        stream=query.flag("stream"),
        replay=query.flag("logs"),
        is_raw=is_raw,
        detach_keys=parse_keys(query.text("detachKeys")),
    )


async def attach_websocket(engine: Engine, request: Request) -> Answer:
    """`GET /containers/{id}/attach/ws` (W34)."""
    from tare.web import websocket  # few ask for it

    slot = engine.containers.find(request.params["id"])
    websocket.accept_key(request.headers)  # before anything is registered for it
    streams = _streams(request.query, is_raw=True)
    run = attach_verb.prepare(engine, slot, streams)
    is_read = streams.stdin and slot.container.config.OpenStdin
    return websocket.upgrade(request.headers, run, is_text=request.version < _BINARY_MESSAGES, is_read=is_read)


async def attach(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/attach`."""
    slot = engine.containers.find(request.params["id"])
    run = attach_verb.prepare(engine, slot, _streams(request.query))
    return Upgrade(run, content_type=stream_type(request, has_tty=slot.container.config.Tty))


async def resize(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/resize`."""
    slot = engine.containers.find(request.params["id"])
    height, width = size_of(request)
    slot.size = (height, width)
    if not slot.container.is_running:
        raise Conflict(f"container {slot.container.id} is not running")
    engine.monitor.resize(slot.container.id, height=height, width=width)
    return Response(content_type="")


def size_of(request: Request) -> tuple[int, int]:
    """Height and width of a terminal from the query. Raises InvalidArgument."""
    return _characters(request, "h", "height"), _characters(request, "w", "width")


def _characters(request: Request, name: str, side: str) -> int:
    text = request.query.text(name)
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidArgument(f'invalid resize {side} "{text}": invalid syntax')
    if not 0 <= (number := int(text)) < 65536:  # the kernel keeps sixteen bits
        raise InvalidArgument(f'invalid resize {side} "{text}": value out of range')
    return number


async def changes(engine: Engine, request: Request) -> Answer:
    """`GET /containers/{id}/changes`."""
    slot = engine.containers.find(request.params["id"])
    found = await in_thread(engine.snapshots.changes, slot.container.id)
    return json_response([Change(Path=change.path, Kind=change.kind) for change in found] or None)


async def export(engine: Engine, request: Request) -> Answer:
    """`GET /containers/{id}/export`."""
    slot = engine.containers.find(request.params["id"])
    return Stream(export_verb.export(engine, slot), content_type="application/octet-stream")


async def prune_(engine: Engine, request: Request) -> Answer:
    """`POST /containers/prune`."""
    filters = parse_filters(request.query.text("filters"), prune.KNOWN)
    deleted, reclaimed = await tasks.finish(prune.prune(engine, filters), name="prune")
    return json_response({"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed})


def created_at(text: str) -> int | None:
    """`timestamp` of a commit: RFC 3339, or seconds since the epoch. Raises InvalidArgument."""
    if not text:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= 11:
        return int(text) * 1_000_000_000
    if found := time_ns(text):
        return found
    raise InvalidArgument(f"{text[:80]!r} is neither a time (RFC 3339) nor seconds since 1970")


async def commit(engine: Engine, request: Request) -> Answer:
    """`POST /commit`."""
    query = request.query
    body = await read_json(request, ContainerConfig)
    slot = engine.containers.find(query.text("container"))
    given = body if body != ContainerConfig() else None
    image_id = await tasks.finish(
        commit_verb.commit(
            engine,
            slot,
            repository=query.text("repo"),
            tag=query.text("tag"),
            comment=query.text("comment"),
            author=query.text("author"),
            changes=[line for change in query.all("changes") for line in change.splitlines()],
            pauses=query.flag("pause", default=True),
            config=given,
            created_ns=created_at(query.text("timestamp")),
        ),
        name="commit",
    )
    return json_response({"Id": image_id}, 201)
