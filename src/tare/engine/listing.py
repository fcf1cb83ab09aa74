"""Listing containers with Docker's filters.

Source: moby daemon/list.go (which filters match how: W43).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from msgspec import UNSET, Struct

from tare.aio.threads import in_thread
from tare.base import clock
from tare.base.errors import InvalidArgument, NotFound
from tare.containers.container import Container, State
from tare.containers.view import summary
from tare.engine import links
from tare.engine.engine import Engine
from tare.wire.containers import ContainerSummary
from tare.wire.filters import Filters, flag, labels_match

KNOWN = frozenset(
    {
        "ancestor", "annotation", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "label!",
        "name", "network", "publish", "since", "status", "volume",
    }
)  # fmt: skip
_HEALTH = frozenset({"none", "starting", "healthy", "unhealthy"})


class ListOptions(Struct, frozen=True, kw_only=True):
    """Parameters of the list. limit 0: no limit."""

    all: bool = False
    limit: int = 0
    size: bool = False
    shows_annotations: bool = True
    filters: Filters


def _regex_or_text(patterns: list[str], *texts: str) -> bool:
    for pattern in patterns:
        for text in texts:
            if pattern == text:
                return True
            try:
                if re.search(pattern, text):
                    return True
            except re.error:
                continue
    return False


def _tests(engine: Engine, filters: Filters) -> list[Callable[[Container], bool]]:
    """One predicate per filter. Raises InvalidArgument for a value that cannot be, NotFound for before/since."""
    tests: list[Callable[[Container], bool]] = []
    if "id" in filters:
        tests.append(
            lambda c: any(c.id.startswith(want) for want in filters["id"]) or _regex_or_text(filters["id"], c.id)
        )
    if "name" in filters:
        tests.append(lambda c: _regex_or_text(filters["name"], c.name, f"/{c.name}"))
    if "status" in filters:
        for value in filters["status"]:
            if value not in {state.value for state in State}:
                raise InvalidArgument(f"invalid filter 'status={value}'")
        tests.append(lambda c: c.state.value in filters["status"])
    if "exited" in filters:
        try:
            codes = {int(value) for value in filters["exited"]}
        except ValueError:
            raise InvalidArgument(f"invalid filter 'exited={filters['exited'][0]}'") from None
        tests.append(lambda c: c.started_at != 0 and not c.is_running and c.exit_code in codes)
    if "health" in filters:
        for value in filters["health"]:
            if value not in _HEALTH:
                raise InvalidArgument(f"invalid filter 'health={value}'")
        tests.append(lambda c: (c.health.status if c.health else "none") in filters["health"])
    if "before" in filters:
        before = engine.containers.find(filters["before"][0]).container.created_at
        tests.append(lambda c: c.created_at < before)
    if "since" in filters:
        since = engine.containers.find(filters["since"][0]).container.created_at
        tests.append(lambda c: c.created_at > since)
    if "ancestor" in filters:
        family = _family(engine, filters["ancestor"])
        tests.append(lambda c: c.image_id in family)
    if "network" in filters:
        tests.append(
            lambda c: any(
                want == name or (settings.NetworkID and settings.NetworkID.startswith(want))
                for want in filters["network"]
                for name, settings in c.endpoints.items()
            )
        )
    if "volume" in filters:
        tests.append(
            lambda c: any(
                want in (point.name, point.source, point.destination)
                for want in filters["volume"]
                for point in c.mounts
            )
        )
    if "publish" in filters:
        tests.append(lambda _: False)
    if "expose" in filters:
        wanted = {port for value in filters["expose"] for port in _ports(value)}
        tests.append(lambda c: bool(wanted & set(c.config.ExposedPorts or {})))
    if flag(filters, "is-task"):
        tests.append(lambda _: False)
    if "label" in filters or "label!" in filters:
        tests.append(lambda c: labels_match(filters, c.labels))
    return tests


def _ports(value: str) -> list[str]:
    """`80`, `80/udp`, `8000-8010/tcp` as the names of exposed ports."""
    span, _, protocol = value.partition("/")
    first, _, last = span.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        raise InvalidArgument(f"invalid port in filter: {value}") from None
    return [f"{port}/{protocol or 'tcp'}" for port in range(low, high + 1)]


def _family(engine: Engine, references: list[str]) -> set[str]:
    """Image ids of the ancestors named and of everything built on them."""
    found: set[str] = set()
    for reference in references:
        try:
            pending = [engine.images.resolve(reference).id]
        except NotFound:
            continue
        while pending:
            image_id = pending.pop()
            if image_id not in found:
                found.add(image_id)
                pending.extend(engine.images.children(image_id))
    return found


def select(engine: Engine, options: ListOptions) -> list[Container]:
    """The containers to show, newest first."""
    tests = _tests(engine, options.filters)
    shows_all = (
        options.all or options.limit > 0 or bool(options.filters.keys() & {"status", "exited", "before", "since"})
    )
    chosen: list[Container] = []
    for slot in engine.containers:
        container = slot.container
        if not shows_all and not container.is_running:
            continue
        if all(test(container) for test in tests):
            chosen.append(container)
            if options.limit > 0 and len(chosen) == options.limit:
                break
    return chosen


def image_shown(engine: Engine, container: Container) -> str:
    """The reference it was created by, or the image id when that reference names another image now."""
    try:
        if engine.images.resolve(container.image_reference).id == container.image_id:
            return container.image_reference
    except (NotFound, InvalidArgument):
        pass
    return container.image_id


async def list_json(engine: Engine, options: ListOptions) -> bytes:
    """The list as JSON text, mostly from texts kept per container."""
    chosen = select(engine, options)
    now = clock.now()
    aliases = links.names(engine)
    if not options.size:
        shown: dict[tuple[str, str], str] = {}
        entries: list[bytes] = []
        for container in chosen:
            key = (container.image_reference, container.image_id)
            image = shown.get(key)
            if image is None:
                image = shown[key] = image_shown(engine, container)
            if container.id in aliases or (container.host_config.Annotations and not options.shows_annotations):
                entries.append(msgspec.json.encode(_entry(container, options, now=now, image=image, aliases=aliases)))
            else:
                entries.append(engine.summaries.encode(container, now=now, image=image))
        return b"[" + b",".join(entries) + b"]\n"

    bodies = [
        _entry(c, options, now=now, image=image_shown(engine, c), aliases=aliases, sizes=await sizes_of(engine, c))
        for c in chosen
    ]
    return msgspec.json.encode(bodies) + b"\n"


def _entry(
    container: Container,
    options: ListOptions,
    *,
    now: int,
    image: str,
    aliases: dict[str, list[str]],
    sizes: tuple[int, int] | None = None,
) -> ContainerSummary:
    """One entry with the names others have for it."""
    entry = summary(container, now=now, image=image, sizes=sizes)
    if not options.shows_annotations:
        entry = msgspec.structs.replace(entry, HostConfig=msgspec.structs.replace(entry.HostConfig, Annotations=UNSET))
    return msgspec.structs.replace(entry, Names=[*entry.Names, *aliases.get(container.id, ())])


async def sizes_of(engine: Engine, container: Container) -> tuple[int, int]:
    """(bytes in the writable layer, bytes of the whole root file system)."""
    own = (await in_thread(engine.snapshots.usage, container.id)).size_bytes
    try:
        base = engine.images.get(container.image_id).size_bytes
    except NotFound:
        base = 0
    return own, own + base
