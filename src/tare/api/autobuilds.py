"""The endpoints of automated builds. Nothing secret is ever answered but the hook's secret, once."""

from __future__ import annotations

from tare.api.handler import read_json
from tare.base.clock import NEVER, rfc3339nano
from tare.base.errors import InvalidArgument
from tare.base.reference import parse_reference
from tare.build.autobuild import DEFAULT_TIMEOUT_S, Autobuild, Run, next_at
from tare.engine.autobuilds import follow, manage
from tare.engine.engine import Engine
from tare.registry.credentials import from_header
from tare.web.message import MAX_JSON_BODY_BYTES, Answer, Request, Response, Stream, json_response, no_content
from tare.wire import autobuilds as wire


async def add(engine: Engine, request: Request) -> Answer:
    """POST /tare/v1/autobuilds: make one; X-Registry-Auth is who pushes."""
    body = await read_json(request, wire.AutobuildCreate, required=True)
    wanted = Autobuild(
        id="",
        name=body.Name,
        git=body.Git,
        branch=body.Branch,
        context=body.Context,
        dockerfile=body.Dockerfile,
        schedule=body.Schedule,
        tags=tuple(body.Tags or ()),
        arguments=body.BuildArgs or {},
        pushes=body.Push,
        timeout_s=body.Timeout or DEFAULT_TIMEOUT_S,
    )
    item, secret = await manage.add(engine, wanted, from_header(request.headers.get("x-registry-auth", "")))
    return json_response(wire.AutobuildCreated(Name=item.name, Id=item.id, Secret=secret), 201)


def list_(engine: Engine, request: Request) -> Response:
    """GET /tare/v1/autobuilds: all, by name."""
    del request
    return json_response([_body(engine, item) for item in engine.autobuilds.items()])


def inspect(engine: Engine, request: Request) -> Response:
    """GET /tare/v1/autobuilds/{name}: everything about one that is no secret."""
    return json_response(_body(engine, engine.autobuilds.find(request.params["name"])))


async def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /tare/v1/autobuilds/{name}: forget it and its history."""
    await manage.remove(engine, request.params["name"])
    return no_content()


async def run(engine: Engine, request: Request) -> Answer:
    """POST /tare/v1/autobuilds/{name}/run: run it now, and with the messages of a build follow that."""
    query = request.query
    item, begun = await manage.ask(engine, request.params["name"], is_forced=query.flag("force"))
    if query.flag("detach"):
        begun.cancel()
        return no_content(202)
    return Stream(follow.messages(engine, item, begun))


async def stop(engine: Engine, request: Request) -> Answer:
    """POST /tare/v1/autobuilds/{name}/stop: end the run that goes on."""
    await manage.stop(engine, request.params["name"])
    return no_content()


async def hook(engine: Engine, request: Request) -> Answer:
    """POST /tare/v1/autobuilds/{name}/hook: a signed request that says that there is something new."""
    body = await request.body.read(MAX_JSON_BODY_BYTES)
    await manage.hook(engine, request.params["name"], body, request.headers.get("x-hub-signature-256", ""))
    return no_content(202)


async def pause(engine: Engine, request: Request) -> Answer:
    """POST /tare/v1/autobuilds/{name}/pause: schedule and hooks rest."""
    await manage.pause(engine, request.params["name"], is_paused=True)
    return no_content()


async def resume(engine: Engine, request: Request) -> Answer:
    """POST /tare/v1/autobuilds/{name}/resume: they go on from now."""
    await manage.pause(engine, request.params["name"], is_paused=False)
    return no_content()


def runs(engine: Engine, request: Request) -> Response:
    """GET /tare/v1/autobuilds/{name}/runs: its history, newest first."""
    item = engine.autobuilds.find(request.params["name"])
    return json_response([_run(found) for found in engine.autobuilds.runs(item)])


async def logs(engine: Engine, request: Request) -> Answer:
    """GET /tare/v1/autobuilds/{name}/logs: what a run said, as text."""
    item = engine.autobuilds.find(request.params["name"])
    number = request.query.integer("run", 0) or 0
    if number < 0:
        raise InvalidArgument(f"invalid number of a run: {number}")
    found = engine.autobuilds.run(item, number)
    pieces = follow.text(engine, item, found, follow=request.query.flag("follow"))
    return Stream(pieces, content_type="text/plain; charset=utf-8")


def _body(engine: Engine, item: Autobuild) -> wire.AutobuildBody:
    table = engine.autobuilds
    history = table.runs(item)
    is_running = item.id in table.live
    return wire.AutobuildBody(
        Name=item.name,
        Id=item.id,
        Git=item.git,
        Branch=item.branch,
        Context=item.context,
        Dockerfile=item.dockerfile,
        Schedule=item.schedule,
        Tags=[parse_reference(text).familiar() for text in item.tags],
        BuildArgs=dict(item.arguments),
        Push=item.pushes,
        HasCredentials=item.has_credentials,
        Timeout=item.timeout_s,
        Paused=item.is_paused,
        Running=is_running,
        CreatedAt=rfc3339nano(item.created_at),
        CheckedAt=rfc3339nano(item.checked_at),
        NextRun=rfc3339nano(NEVER if is_running else next_at(item)),
        Built=item.built,
        LastRun=_run(history[0]) if history else None,
    )


def _run(found: Run) -> wire.RunBody:
    return wire.RunBody(
        Number=found.number,
        Status=found.status,
        Cause=found.cause,
        Commit=found.commit,
        Image=found.image,
        ExitCode=found.code,
        Error=found.error,
        Pushed=list(found.pushed),
        LogBytes=found.log_bytes,
        StartedAt=rfc3339nano(found.began_at),
        FinishedAt=rfc3339nano(found.ended_at),
    )


__all__ = ["add", "hook", "inspect", "list_", "logs", "pause", "remove", "resume", "run", "runs", "stop"]
