"""The endpoints that talk to registries: pull, push, login, distribution inspect, search. Nothing is decided here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
from msgspec import UNSET

from tare.api.handler import read_json
from tare.base.digest import parse_digest
from tare.base.errors import Forbidden, InvalidArgument
from tare.base.reference import Reference, parse_reference
from tare.engine import platforms, registries
from tare.engine.df import artifacts_body
from tare.engine.engine import Engine
from tare.images.documents import parse_platform
from tare.images.pull import Progress
from tare.images.push import InsteadOfIndex, Pushed
from tare.oci.image import Descriptor, Platform
from tare.registry import search as searching
from tare.registry.credentials import Credentials, from_document, from_header
from tare.web.message import Answer, Query, Request, Stream, json_response
from tare.wire import registry as wire
from tare.wire.errors import text_of
from tare.wire.filters import parse_filters
from tare.wire.jsonmessage import failure, message

_SEARCH_FILTERS = frozenset({"is-official", "is-automated", "stars"})


def _credentials(request: Request) -> Credentials:
    return from_header(request.headers.get("x-registry-auth", ""))


def wanted_platforms(query: Query, key: str = "platform") -> list[Platform]:
    """W81: `platform` is JSON here. Raises InvalidArgument."""
    found = []
    for text in query.all(key):
        if not text:
            continue
        try:
            wanted = msgspec.json.decode(text.encode(), type=Platform)
        except (msgspec.MsgspecError, UnicodeEncodeError):
            raise InvalidArgument("failed to parse platform: invalid JSON") from None
        if not wanted.os or not wanted.architecture:
            raise InvalidArgument("both OS and Architecture must be provided")
        found.append(wanted)
    return found


def wanted_platform(query: Query) -> Platform | None:
    """The one platform a request is about, None for whatever the name shows."""
    found = wanted_platforms(query)
    if len(found) > 1:
        raise InvalidArgument("only one platform can be named here")
    return found[0] if found else None


async def pull_image(engine: Engine, request: Request) -> Answer:
    """POST /images/create?fromImage=…: W54 to W57. What the registry refuses is a status, what fails later a message."""
    query = request.query
    reference = pull_reference(query.text("fromImage"), query.text("tag"))
    platform = _platform(query.text("platform"))
    every = query.flag("all-platforms")
    if every and platform is not None:
        raise InvalidArgument("either one platform or all of them")
    steps = await engine.pulls.begin(
        reference,
        platform=platform,
        credentials=_credentials(request),
        every_platform=every,
        with_referrers=query.flag("referrers"),
    )
    return Stream(_messages(steps))


def pull_reference(name: str, tag: str) -> Reference:
    """What a client wants to pull (W57). Raises InvalidArgument, Forbidden."""
    reference = parse_reference(name.removesuffix(":"))
    if tag:
        if ":" in tag:
            reference = reference.with_digest(parse_digest(tag))
        else:
            reference = reference.with_tag(tag)
    if reference.digest:
        reference = reference.with_digest(reference.digest)
    if reference.familiar_name == "scratch":
        raise Forbidden("'scratch' is a reserved name")
    return reference


def _platform(text: str) -> Platform | None:
    chosen = parse_platform(text)
    return Platform(chosen[1], chosen[0], chosen[2]) if chosen else None


async def push_image(engine: Engine, request: Request) -> Answer:
    """POST /images/{name}/push: what goes wrong is a message in the stream."""
    reference = parse_reference(request.params["name"])
    tag = request.query.text("tag")
    if tag:
        reference = reference.with_tag(tag)
    platform = wanted_platform(request.query)
    for known in engine.images.all_references() if platform is not None else ():
        if known == reference or (not reference.tag and known.tag and known.name == reference.name):
            await platforms.resolve(engine, known.familiar(), platform)  # what is not here is a status
    steps = engine.pushes.begin(
        reference,
        credentials=_credentials(request),
        platform=platform,
        with_referrers=request.query.flag("referrers"),
    )
    return Stream(_messages(steps))


def _descriptor(found: Descriptor) -> wire.DescriptorBody:
    return wire.DescriptorBody(found.mediaType, found.digest, found.size)


async def _messages(
    steps: AsyncIterator[Progress | Pushed | InsteadOfIndex] | AsyncIterator[Progress],
) -> AsyncIterator[bytes]:
    async with aclosing(steps):  # type: ignore[type-var]
        try:
            async for step in steps:
                if isinstance(step, Pushed):
                    yield message(aux=wire.plain(wire.PushedBody(step.tag, step.digest, step.size)), progress=True)
                elif isinstance(step, InsteadOfIndex):
                    body = wire.InsteadOfIndexBody(_descriptor(step.index), _descriptor(step.manifest))
                    yield message(aux=wire.plain(body), progress=True)
                else:
                    yield message(
                        step.status, about=step.about, current=step.current, total=step.total, progress=step.is_layer
                    )
        except Exception as error:
            yield failure(text_of(error))


async def log_in(engine: Engine, request: Request) -> Answer:
    """POST /auth."""
    body = await read_json(request, wire.AuthBody, required=True)
    document = {
        "username": body.username,
        "password": body.password,
        "auth": body.auth,
        "serveraddress": body.serveraddress,
        "identitytoken": body.identitytoken,
        "registrytoken": body.registrytoken,
    }
    token = await registries.log_in(engine, from_document(document))
    return json_response(wire.AuthAnswer("Login Succeeded", token))


async def inspect_distribution(engine: Engine, request: Request) -> Answer:
    """GET /distribution/{name}/json."""
    reference = parse_reference(request.params["name"]).with_default_tag()
    found, platforms = await registries.look(engine, reference, _credentials(request))
    descriptor = wire.DescriptorBody(found.media_type, found.digest, len(found.raw))
    listed = [wire.PlatformBody(entry.architecture, entry.os, entry.variant or UNSET) for entry in platforms]
    return json_response(wire.DistributionInspect(descriptor, listed))


async def search_images(engine: Engine, request: Request) -> Answer:
    """GET /images/search."""
    query = request.query
    term = query.text("term")
    if not term:
        raise InvalidArgument("a term to search for is needed")
    filters = parse_filters(query.text("filters"), _SEARCH_FILTERS)
    limit = query.integer("limit")
    found = await searching.search(
        engine.transport,
        searching.parse_term(term),
        limit=searching.DEFAULT_LIMIT if limit is None else limit,
        credentials=_credentials(request),
    )
    return json_response(
        [
            wire.SearchResult(entry.star_count, entry.is_official, entry.name, False, entry.description or "")
            for entry in searching.choose(found, filters)
        ]
    )


async def list_artifacts(engine: Engine, _: Request) -> Answer:
    """GET /tare/v1/artifacts: what is here beside images."""
    return json_response(artifacts_body(engine))


async def remote_tags(engine: Engine, request: Request) -> Answer:
    """GET /tare/v1/tags/{name}: what tags the repository has at its registry."""
    reference = parse_reference(request.params["name"])
    tags = await registries.tags(engine, reference, _credentials(request))
    return json_response(wire.RepositoryTags(reference.familiar_name, tags))


__all__ = [
    "inspect_distribution",
    "list_artifacts",
    "log_in",
    "pull_image",
    "pull_reference",
    "push_image",
    "remote_tags",
    "search_images",
    "wanted_platform",
    "wanted_platforms",
]
