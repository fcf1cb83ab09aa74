"""The engine about itself: ping, version, info, events."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import msgspec

import tare
from tare import __version__
from tare.api.handler import seconds_to_nanos
from tare.base import version
from tare.base.clock import rfc3339nano
from tare.base.errors import InvalidArgument
from tare.engine import df as df_verb
from tare.engine import info as info_verb
from tare.engine import metrics as metrics_verb
from tare.engine.engine import Engine
from tare.engine.events import Event, matches
from tare.web.message import Answer, Feed, Request, Response, Sink, json_response
from tare.wire.filters import parse_filters
from tare.wire.metrics import CONTENT_TYPE, render

_PING = {
    "Builder-Version": "1",
    "Swarm": "inactive",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}
_HAS_FIREWALL = (1, 49)
_EVENT_FILTERS = frozenset(
    {
        "config",
        "container",
        "daemon",
        "event",
        "image",
        "label",
        "network",
        "node",
        "plugin",
        "scope",
        "secret",
        "service",
        "type",
        "volume",
    }
)


@cache
def _built() -> str:
    """When this checkout's package was written: the nearest thing to a build that Python has."""
    return rfc3339nano(Path(tare.__file__).stat().st_mtime_ns // 1_000_000_000 * 1_000_000_000)


def ping(_: Engine, __: Request) -> Response:
    """`GET /_ping`."""
    return Response(body=b"OK", content_type="text/plain; charset=utf-8", headers=_PING)


def ping_head(_: Engine, __: Request) -> Response:
    """`HEAD /_ping`."""
    return Response(content_type="text/plain; charset=utf-8", headers={**_PING, "Content-Length": "0"})


async def version_(engine: Engine, __: Request) -> Answer:
    """`GET /version`."""
    kernel = platform.release()
    oldest, newest = version.text(version.API_OLDEST), version.text(version.API_NEWEST)
    runtime = engine.runtimes.get(engine.settings.default_runtime)
    details = {
        "ApiVersion": newest,
        "Arch": info_verb.architecture(),
        "BuildTime": _built(),
        "Experimental": "false",
        "GitCommit": __version__,
        "GoVersion": f"python{platform.python_version()}",
        "KernelVersion": kernel,
        "MinAPIVersion": oldest,
        "Os": "linux",
    }
    components: list[dict[str, Any]] = [{"Name": "Engine", "Version": version.ENGINE_VERSION, "Details": details}]
    if runtime is not None:
        name, _, number = runtime.version.partition(" version ")
        components.append({"Name": name, "Version": number or runtime.version, "Details": {"GitCommit": ""}})
    return json_response(
        {
            "Platform": {"Name": f"tare {__version__}"},
            "Components": components,
            "Version": version.ENGINE_VERSION,
            "ApiVersion": newest,
            "MinAPIVersion": oldest,
            "GitCommit": __version__,
            "GoVersion": f"python{platform.python_version()}",
            "Os": "linux",
            "Arch": info_verb.architecture(),
            "KernelVersion": kernel,
            "BuildTime": _built(),
        }
    )


async def info(engine: Engine, request: Request) -> Answer:
    """`GET /info`."""
    body = info_verb.describe(engine)
    if request.version < (1, 50):  # gone since then; before, dockerd 28 says that no such module is in use
        body |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
    if request.version < _HAS_FIREWALL:
        body.pop("FirewallBackend", None)
    return json_response(body)


async def events(engine: Engine, request: Request) -> Answer:
    """`GET /events`: headers at once, one JSON object a line (W39)."""
    return _events(engine, request, _line)


async def metrics(engine: Engine, _: Request) -> Answer:
    """`GET /metrics`, for Prometheus: dockerd has its own on a port of its own."""
    return Response(body=render(await metrics_verb.collect(engine)), content_type=CONTENT_TYPE)


async def audit(engine: Engine, request: Request) -> Answer:
    """`GET /tare/v1/events`: the same with `User`, who asked for what happened. Not in Docker."""
    return _events(engine, request, _audited_line)


@lru_cache(maxsize=32)
def _line(event: Event) -> bytes:
    """Made once for however many readers."""
    return msgspec.json.encode(event_body(event)) + b"\n"


@lru_cache(maxsize=32)
def _audited_line(event: Event) -> bytes:
    return msgspec.json.encode(event_body(event) | {"User": event.user}) + b"\n"


def _events(engine: Engine, request: Request, line: Callable[[Event], bytes]) -> Answer:
    filters = parse_filters(request.query.text("filters"), _EVENT_FILTERS)
    since, until = seconds_to_nanos(request.query.text("since")), seconds_to_nanos(request.query.text("until"))
    if request.query.text("since"):
        since = max(1, since)  # 0 is a time too: everything there is
    if since and until and until < since:
        raise InvalidArgument(f"`since` time ({since}) cannot be after `until` time ({until})")
    prefix = b""
    content_type = "application/json"
    accept = request.headers.get("accept", "")
    if "application/json-seq" in accept:
        content_type, prefix = "application/json-seq", b"\x1e"
    elif "application/x-ndjson" in accept:
        content_type = "application/x-ndjson"

    def shown(event: Event) -> bytes:
        return prefix + line(event) if not filters or matches(event.news, filters) else b""

    async def run(sink: Sink) -> None:
        await engine.events.follow(sink, shown, since=since, until=until)

    return Feed(run, content_type=content_type, is_endless=not until)


def event_body(event: Event) -> dict[str, Any]:
    """Docker's JSON of an event, with the legacy members clients before API 1.52 need (W40)."""
    news = event.news
    body: dict[str, Any] = {}
    if news.type in ("container", "image"):
        body |= {"status": news.action, "id": news.id}
        if news.type == "container":
            body["from"] = news.attributes.get("image", "")
    return body | {
        "Type": news.type,
        "Action": news.action,
        "Actor": {"ID": news.id, "Attributes": news.attributes},
        "scope": "local",
        "time": event.at // 1_000_000_000,
        "timeNano": event.at,
    }


async def df(engine: Engine, request: Request) -> Answer:
    """`GET /system/df`."""
    return json_response(await df_verb.disk_usage(engine, request.query.all("type")))


async def options(_: Engine, __: Request) -> Answer:
    """`OPTIONS /…`."""
    return Response(content_type="", headers={"Content-Length": "0"})
