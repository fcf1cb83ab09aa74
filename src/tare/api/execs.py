"""Execs over HTTP: parse, call the verb, answer in Docker's shape."""

from __future__ import annotations

import base64

from msgspec import UNSET

from tare.aio import tasks
from tare.api.containers import size_of, stream_type
from tare.api.handler import read_json
from tare.engine import exec as exec_verb
from tare.engine.engine import Engine
from tare.web.message import Answer, Request, Response, Upgrade, json_response
from tare.wire.exec import ExecBody, ExecCreateBody, ExecStartBody, ProcessConfigBody

_HAS_CONSOLE_SIZE = (1, 42)


async def create(engine: Engine, request: Request) -> Answer:
    """`POST /containers/{id}/exec`."""
    body = await read_json(request, ExecCreateBody)
    name = request.params["id"]
    exec_ = exec_verb.create(engine, engine.containers.find(name), body, name=name)
    return json_response({"Id": exec_.id}, 201)


async def start(engine: Engine, request: Request) -> Answer:
    """`POST /exec/{id}/start`: detached 200 when it runs, else the raw connection (W28)."""
    body = await read_json(request, ExecStartBody)
    exec_ = exec_verb.find_startable(engine, request.params["id"])
    size = (0, 0)
    if body.Tty and request.version >= _HAS_CONSOLE_SIZE:
        size = exec_verb.size_of(body.ConsoleSize)
    if body.Detach:
        await tasks.finish(exec_verb.start(engine, exec_, attached=False, size=size), name="exec")
        return Response(content_type="")
    run = exec_verb.conversation(engine, exec_, is_raw=body.Tty, size=size)
    return Upgrade(run, content_type=stream_type(request, has_tty=body.Tty))


async def resize(engine: Engine, request: Request) -> Answer:
    """`POST /exec/{id}/resize`."""
    exec_ = engine.execs.find(request.params["id"])
    height, width = size_of(request)
    exec_verb.require_running(engine.containers.find(exec_.container_id).container)
    await exec_verb.resize(exec_, height=height, width=width)
    return Response(content_type="")


async def inspect(engine: Engine, request: Request) -> Answer:
    """`GET /exec/{id}/json`."""
    exec_ = engine.execs.find(request.params["id"])
    wish = exec_.wish
    return json_response(
        ExecBody(
            ID=exec_.id,
            Running=exec_.is_running,
            ExitCode=exec_.exit_code,
            ProcessConfig=ProcessConfigBody(
                tty=wish.has_tty,
                entrypoint=wish.argv[0],
                arguments=list(wish.argv[1:]),
                privileged=wish.is_privileged,
                user=wish.user or UNSET,
            ),
            OpenStdin=wish.stdin,
            OpenStderr=wish.stderr,
            OpenStdout=wish.stdout,
            CanRemove=False,
            ContainerID=exec_.container_id,
            DetachKeys=base64.b64encode(wish.detach_keys).decode(),
            Pid=exec_.pid,
        )
    )
