"""From a request to an answer: version, route, handler; from an exception to an error body."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Mapping
from functools import lru_cache
from itertools import count

from tare.api.handler import Handler
from tare.api.routes import ROUTES
from tare.base import version
from tare.base.counters import Timed
from tare.base.errors import InvalidArgument, NotFound
from tare.base.news import asked_by, request_id
from tare.engine.engine import Engine
from tare.web.message import Answer, Request, Response
from tare.web.router import Router, split_version, tidy
from tare.web.server import ServerOptions, error_response
from tare.wire.errors import status_of, text_of

log = logging.getLogger(__name__)

_LOOKS = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = {
    "Api-Version": version.text(version.API_NEWEST),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Docker/{version.ENGINE_VERSION} (linux)",
}


def server_options(engine: Engine) -> ServerOptions:
    """How to serve the Engine API for this engine."""
    router: Router[Handler] = Router(ROUTES)

    counters = engine.counters
    numbers = count(1)

    @lru_cache(maxsize=1024)
    def routed(method: str, path: str) -> tuple[tuple[int, int], Handler, Mapping[str, str], Timed]:
        asked, rest = split_version(path, newest=version.API_NEWEST, oldest=version.API_OLDEST)
        route, params = router.find(method, rest)
        if asked < route.since:
            raise InvalidArgument(f"{method} {route.pattern} requires minimum API version {version.text(route.since)}")
        return asked, route.handler, params, counters.of(method, route.pattern)

    def handle(request: Request) -> Response | Awaitable[Answer]:
        try:
            request.version, handler, request.params, timed = routed(request.method, request.path)
        except NotFound:
            if (better := tidy(request.path)) == request.path:
                raise
            return Response(
                status=301,
                content_type="",
                headers={"Location": better + (f"?{raw}" if (raw := request.query.raw) else "")},
            )
        timed.count += 1
        answer = handler(engine, request)
        return answer if isinstance(answer, Response) else finished(request, answer, timed)

    async def finished(request: Request, coming: Awaitable[Answer], timed: Timed) -> Answer:
        asked_by.set(request.user)
        request_id.set(f"{next(numbers):x}")
        begun = time.monotonic()
        try:
            answer = await coming
            if request.method not in _LOOKS:
                await engine.events.settled()
        finally:
            took = time.monotonic() - begun
            timed.waited += 1
            timed.seconds += took
            log.debug("%s %s by %s: %.1f ms", request.method, request.path, request.user or "nobody", took * 1000)
        return answer

    def failed(error: BaseException) -> Response:
        response = render_error(error)
        counters.errors[response.status] += 1
        return response

    return ServerOptions(handler=handle, error=failed, headers=HEADERS)


def render_error(error: BaseException) -> Response:
    """The error body clients parse."""
    return error_response(error, status=status_of(error), text=text_of(error))
