"""Finding repositories: the index protocol `GET /v1/search`, or the catalog of a registry that is no index.

Source: ENGINE-API 5.3, "docker search"; moby daemon/pkg/registry/search_session.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from tare.base.errors import InvalidArgument, NotFound, Unauthorized, Unavailable
from tare.base.reference import DEFAULT_DOMAIN
from tare.registry import hosts
from tare.registry.challenge import Refusal
from tare.registry.credentials import ANONYMOUS, Credentials
from tare.registry.remote import Remote
from tare.registry.transport import Transport, Unreachable

DEFAULT_LIMIT = 25
MAX_LIMIT = 100
_CATALOG = 10_000


class Found(msgspec.Struct):
    """One repository an index knows."""

    name: str = ""
    description: str | None = None
    star_count: int = 0
    is_official: bool = False


class _Page(msgspec.Struct):
    results: list[Found] = []


class Term(Struct, frozen=True):
    """What to look for and where: the domain of the index, and the words."""

    domain: str
    words: str


def parse_term(text: str) -> Term:
    """`words`, or `host[:port]/words`. Raises InvalidArgument."""
    if "://" in text:
        raise InvalidArgument(f"invalid repository name: repository name ({text[:200]}) should not have a scheme")
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        words = rest.removeprefix("library/") if hosts.domain_of(first) == DEFAULT_DOMAIN else rest
        return Term(hosts.domain_of(first), words)
    return Term(DEFAULT_DOMAIN, text.removeprefix("library/"))


def choose(found: Sequence[Found], filters: Mapping[str, Sequence[str]]) -> list[Found]:
    """Those that pass the filters is-official, is-automated and stars. Raises InvalidArgument for wrong values."""
    kept = list(found)
    for value in filters.get("is-official", ()):
        kept = [entry for entry in kept if entry.is_official == _truth(value, "is-official")]
    for value in filters.get("is-automated", ()):
        if _truth(value, "is-automated"):  # indexes do not tell any more: none is
            kept = []
    for value in filters.get("stars", ()):
        if not value.isdigit():
            raise InvalidArgument(f"invalid filter 'stars={value[:80]}'")
        kept = [entry for entry in kept if entry.star_count >= int(value)]
    return kept


def _truth(value: str, key: str) -> bool:
    if value.lower() in ("true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise InvalidArgument(f"invalid filter '{key}={value[:80]}'")


async def search(
    transport: Transport,
    term: Term,
    *,
    limit: int = DEFAULT_LIMIT,
    credentials: Credentials = ANONYMOUS,
) -> list[Found]:
    """What the index knows, at most `limit`. A registry without an index is asked for its catalog.

    Raises InvalidArgument, NotFound (it has neither), Unauthorized, Unavailable.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {MAX_LIMIT}]")
    domain = hosts.HUB_INDEX if term.domain == DEFAULT_DOMAIN else term.domain
    remote = Remote(transport, domain=domain, path="", credentials=credentials)
    try:
        _, body = await remote.fetch(
            "GET",
            f"/v1/search?{urlencode({'q': term.words, 'n': limit})}",
            headers={"X-Docker-Token": "true"},
            scope="registry:catalog:search",
        )
        return msgspec.json.decode(body, type=_Page).results[:limit]
    except msgspec.MsgspecError as error:
        raise Unavailable(f"{domain}: the index gave an answer that cannot be read: {error}") from None
    except Unreachable as error:
        raise Unavailable(f"cannot search: {error.message}", hint="an index must be reachable for that") from None
    except Refusal as error:
        if error.status not in (404, 405) or term.domain == DEFAULT_DOMAIN:
            raise
    try:
        names = await remote.catalog(limit=_CATALOG)
    except (Refusal, Unauthorized):
        raise NotFound(f"{domain} has no index to search, and does not list its repositories") from None
    words = term.words.lower()
    return [Found(name=f"{domain}/{name}") for name in names if words in name.lower()][:limit]


__all__ = ["Found", "Term", "choose", "parse_term", "search"]
