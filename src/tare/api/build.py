"""The build endpoints: Docker's query names to `Wanted` and back."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from tare.aio.threads import in_thread
from tare.api.handler import read_json
from tare.base import clock
from tare.base.errors import InvalidArgument, NotImplementedYet
from tare.base.reference import Reference, parse_reference
from tare.build.cache import FILTERS, Budget, refuse_unknown
from tare.build.cachedoc import Target, checked_mode, parse_source, parse_target
from tare.engine.builds import agents, cacheexport, provenance, results
from tare.engine.builds import build as building
from tare.engine.builds.prune import prune
from tare.engine.builds.request import Wanted
from tare.engine.engine import Engine
from tare.engine.prune import until_of
from tare.registry.credentials import ANONYMOUS, Credentials, from_document
from tare.web.message import Answer, Query, Request, Response, Stream, json_response, no_content
from tare.wire.config import HostConfig, Ulimit, Wire
from tare.wire.filters import parse_filters

T = TypeVar("T")

_HUB = "https://index.docker.io/v1/"
_LOCAL = "local:"
_PREFIX = re.compile(r"\.[A-Za-z0-9-]{1,100}\Z")  # a hidden directory at the top of the tar
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")
_MAX_SECRETS = 64 * 1024
_ENTITLEMENTS = frozenset({"network.host", "security.insecure"})


async def build_image(engine: Engine, request: Request) -> Answer:
    """POST /build: W45 to W50. What is wrong before the first step is a status, what fails later a message."""
    query = request.query
    remote = query.text("remote")
    if remote in ("client-session",) or query.text("version") == "2":
        raise NotImplementedYet(
            "builds over a session (BuildKit's client protocol) are not served",
            hint="use the classic endpoint: DOCKER_BUILDKIT=0; it takes the whole Dockerfile language",
        )
    wanted = wanted_of(query, request.headers)
    if wanted.agents and not request.user.startswith("uid="):
        raise InvalidArgument("ssh agents are served to clients of the engine's unix socket only")
    source = None if remote else aiter(request.body)
    if query.flag("check"):
        file = wanted.dockerfile or "Dockerfile"
        warned = await building.check(engine, wanted, source, remote=remote)
        return json_response(
            {
                "Warnings": [
                    {"Rule": found.rule, "Message": found.text, "URL": found.url, "File": file, "Line": found.line}
                    for found in warned
                ]
            }
        )
    stream = await building.begin(engine, wanted, source, remote=remote, client_id=query.text("buildid"))
    return Stream(stream)


def wanted_of(query: Query, headers: Mapping[str, str]) -> Wanted:
    """The request in our terms. Raises InvalidArgument."""
    arguments = {
        name: value for name, value in _json(query, "buildargs", dict[str, str | None]).items() if value is not None
    }
    epoch = arguments.get("SOURCE_DATE_EPOCH", "")
    if epoch and not epoch.isdecimal():
        raise InvalidArgument(f"invalid SOURCE_DATE_EPOCH: {epoch[:100]}")
    images, local, remote = _contexts(query)
    named = _texts(query, "cachefrom")
    tags: list[Reference] = []
    for text in query.all("t"):
        reference = parse_reference(text)
        if reference.digest:
            raise InvalidArgument("build tag cannot contain a digest")
        if reference.with_default_tag() not in tags:
            tags.append(reference.with_default_tag())
    return Wanted(
        dockerfile=query.text("dockerfile"),
        tags=tuple(tags),
        arguments=arguments,
        labels=_json(query, "labels", dict[str, str]),
        target=query.text("target"),
        platform=query.text("platform"),
        host=_host(query),
        quiet=query.flag("q"),
        pull=query.flag("pull"),
        no_cache=query.flag("nocache"),
        no_cache_stages=frozenset(name for text in query.all("nocachefilter") for name in text.split(",") if name),
        cache_from=tuple(name for name in named if parse_source(name) is None),
        cache_sources=tuple(source for name in named if (source := parse_source(name)) is not None),
        cache_targets=tuple(parse_target(text) for text in _texts(query, "cacheto")),
        epoch_ns=int(epoch) * 1_000_000_000 if epoch else None,
        secrets=_secrets(headers),
        contexts=images,
        local_contexts=local,
        remote_contexts=remote,
        agents=_agents(headers),
        squash=query.flag("squash"),
        tells_steps=_tells_steps(query),
        provenance=_provenance(query.text("provenance")),
        is_for_output=_outputs(query),
        allowed=_allowed(query),
        credentials=_credentials(headers),
    )


def _json(query: Query, name: str, kind: type[T]) -> T:
    text = query.text(name)
    if text in ("", "null"):  # Go's clients write what was not given as null
        text = "{}"
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogatepass"), type=kind)
    except (msgspec.MsgspecError, UnicodeError):
        raise InvalidArgument(f"invalid JSON in {name}") from None


def _texts(query: Query, name: str) -> tuple[str, ...]:
    """A list of texts; `null` and `[]` are none, as clients that always send the field write them."""
    try:
        return tuple(msgspec.json.decode((query.text(name) or "null").encode(), type=list[str] | None) or ())
    except (msgspec.MsgspecError, UnicodeError):
        raise InvalidArgument(f"invalid JSON in {name}") from None


class _Output(msgspec.Struct):
    """An entry of Docker's `outputs`."""

    Type: str


def _outputs(query: Query) -> bool:
    """Whether the result is to be read, which `GET /tare/v1/builds/{id}/result` does. Raises InvalidArgument."""
    try:
        found = msgspec.json.decode((query.text("outputs") or "null").encode(), type=list[_Output] | None) or []
    except (msgspec.MsgspecError, UnicodeError):
        raise InvalidArgument("invalid JSON in outputs") from None
    for output in found:
        if output.Type not in results.KINDS:
            raise InvalidArgument(
                f"unknown type of output {output.Type[:100]!r}: use one of {', '.join(results.KINDS)}"
            )
    return bool(found)


def _tells_steps(query: Query) -> bool:
    text = query.text("progress")
    if text not in ("", "steps"):
        raise InvalidArgument(f"unknown kind of progress {text[:100]!r}: use steps, or none for Docker's")
    return text == "steps"


def _provenance(text: str) -> str:
    if text and text not in provenance.MODES:
        raise InvalidArgument(f"unknown mode of provenance {text[:100]!r}: use {' or '.join(provenance.MODES)}")
    return text


async def read_provenance(engine: Engine, request: Request) -> Answer:
    """GET /tare/v1/builds/{id}/provenance: what is known of how an image was built."""
    image = engine.images.resolve(request.params["id"])
    return Response(body=await in_thread(provenance.read, engine.settings.data_root, image.id))


async def result(engine: Engine, request: Request) -> Answer:
    """GET /tare/v1/builds/{id}/result: what a build made, as a tar."""
    query = request.query
    names = [parse_reference(text).with_default_tag() for text in query.all("name")]
    pieces = results.result(engine, request.params["id"], query.text("type"), names=names, is_last=query.flag("last"))
    await anext(pieces)
    return Stream(pieces, content_type="application/x-tar")


class CacheWanted(Wire, kw_only=True, frozen=True):
    """The body of a request for the cache of a build: mode, whether with cache mounts, and digests that are there."""

    Mode: str = "min"
    Mounts: bool = True
    Have: list[str] = msgspec.field(default_factory=list)


async def cache(engine: Engine, request: Request) -> Answer:
    """POST /tare/v1/builds/{id}/cache: the cache of a build with `cacheto` of type local, as the tar of an OCI layout."""
    body = await read_json(request, CacheWanted)
    target = Target(mode=checked_mode(body.Mode), mounts=body.Mounts)
    pieces = cacheexport.export(engine, request.params["id"], target, have=frozenset(body.Have))
    await anext(pieces)
    return Stream(pieces, content_type="application/x-tar")


def _allowed(query: Query) -> frozenset[str]:
    """The entitlements given. Raises InvalidArgument for one there is not."""
    found = frozenset(query.all("allow"))
    for name in found - _ENTITLEMENTS:
        raise InvalidArgument(f"unknown entitlement {name[:100]!r}: use one of {', '.join(sorted(_ENTITLEMENTS))}")
    return found


def _contexts(query: Query) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Further contexts: images, directories of the build's own tar, and what is fetched. Raises InvalidArgument."""
    images: dict[str, str] = {}
    local: dict[str, str] = {}
    remote: dict[str, str] = {}
    for name, text in _json(query, "contexts", dict[str, str]).items():
        if text.startswith(_LOCAL):
            if not _PREFIX.match(text.removeprefix(_LOCAL)):
                raise InvalidArgument(f"invalid place of the context {name[:100]!r} in the tar")
            local[name] = text.removeprefix(_LOCAL)
        elif text.startswith("oci-layout://"):
            raise InvalidArgument(f"context {name[:100]!r}: an OCI layout is not served: load it and name the image")
        elif text.startswith(_REMOTE):
            remote[name] = text
        else:
            images[name] = text.removeprefix("docker-image://")
    return images, local, remote


def _agents(headers: Mapping[str, str]) -> dict[str, str]:
    """Sockets of agents by id. Raises InvalidArgument for what is none."""
    text = headers.get("x-tare-ssh", "")
    if not text:
        return {}
    try:
        found = {str(name): str(path) for name, path in dict(_decoded(text)).items()}
    except (ValueError, TypeError):
        raise InvalidArgument("the ssh agents of the build cannot be read") from None
    for name, path in found.items():
        agents.check_socket(name, path)
    return found


def _host(query: Query) -> HostConfig:
    """Limits and network for RUN steps."""
    limits: list[Ulimit] = []
    if query.text("ulimits"):
        try:
            limits = msgspec.json.decode(query.text("ulimits").encode(), type=list[Ulimit] | None) or []
        except msgspec.MsgspecError:
            raise InvalidArgument("invalid JSON in ulimits") from None
    security = query.all("securityopt")
    return HostConfig(
        Memory=query.integer("memory", 0) or 0,
        MemorySwap=query.integer("memswap", 0) or 0,
        CpuShares=query.integer("cpushares", 0) or 0,
        CpuPeriod=query.integer("cpuperiod", 0) or 0,
        CpuQuota=query.integer("cpuquota", 0) or 0,
        CpusetCpus=query.text("cpusetcpus"),
        CpusetMems=query.text("cpusetmems"),
        CgroupParent=query.text("cgroupparent"),
        ShmSize=query.integer("shmsize", 0) or 0,
        PidsLimit=query.integer("pidslimit"),
        NetworkMode=query.text("networkmode") or "default",
        ExtraHosts=query.all("extrahosts") or None,
        Ulimits=limits or None,
        SecurityOpt=security or None,
    )


def _decoded(text: str) -> Any:
    """Base64 in either alphabet, padded or not, around JSON (W49). Raises ValueError."""
    packed = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return msgspec.json.decode(base64.b64decode(packed + "=" * (-len(packed) % 4)))
    except (binascii.Error, msgspec.MsgspecError) as error:
        raise ValueError(str(error)) from None


def _secrets(headers: Mapping[str, str]) -> dict[str, bytes]:
    text = headers.get("x-tare-secrets", "")
    if not text:
        return {}
    if len(text) > _MAX_SECRETS:
        raise InvalidArgument("the secrets of a build may have 48 KiB together")
    try:
        found = _decoded(text)
        return {str(name): base64.b64decode(str(value)) for name, value in dict(found).items()}
    except (ValueError, TypeError, binascii.Error):
        raise InvalidArgument("the secrets of the build cannot be read") from None


def _credentials(headers: Mapping[str, str]) -> Callable[[Reference], Credentials]:
    """Credentials by registry, from the client's X-Registry-Config; what cannot be read is nobody (W49)."""
    try:
        known = _decoded(headers.get("x-registry-config", "") or "e30")
    except ValueError:
        known = {}

    def of(reference: Reference) -> Credentials:
        if not isinstance(known, dict):
            return ANONYMOUS
        names = (_HUB, "docker.io") if reference.domain == "docker.io" else (reference.domain,)
        return next((from_document(known[name]) for name in names if name in known), ANONYMOUS)

    return of


async def cancel(engine: Engine, request: Request) -> Answer:
    """POST /build/cancel."""
    del engine
    client_id = request.query.text("id")
    if not client_id:
        raise InvalidArgument("build ID not provided")
    building.cancel(client_id)
    return no_content(200)


async def prune_cache(engine: Engine, request: Request) -> Answer:
    """POST /build/prune."""
    query = request.query
    filters = parse_filters(query.text("filters"), FILTERS)
    refuse_unknown(filters)
    if filters.get("label"):  # `system prune` asks everybody the same, and no step of a build has a label
        return json_response({"CachesDeleted": None, "SpaceReclaimed": 0})
    until = until_of({"until": filters["until"]}, clock.now()) if filters.get("until") else 0
    budget = Budget(
        everything=query.flag("all"),
        reserved_bytes=query.integer("reserved-space", query.integer("keep-storage", 0)) or 0,
        max_bytes=query.integer("max-used-space", 0) or 0,
        older_ns=until or None,
        ids=tuple(filters.get("id", ())),
        kinds=tuple(filters.get("type", ())),
    )
    deleted, freed = await prune(engine, budget)
    return json_response({"CachesDeleted": deleted or None, "SpaceReclaimed": freed})
