"""One repository of a registry, as one user: the distribution protocol over `Transport`.

Every request goes to the mirrors first (pulls only), then to the registry; is repeated while that may help; and is
answered by a value or by one of

    Refusal        the registry said no (status, code and its words)
    Unauthorized   it wants other credentials
    Unreachable    there was no answer

Source: OCI distribution-spec; ENGINE-API 5.1, 5.5.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar
from urllib.parse import quote, urlencode, urljoin

import msgspec
from msgspec import Struct

from tare.base.digest import Digest, parse_digest, verify
from tare.base.errors import DataCorrupt, InvalidArgument, Unauthorized, Unavailable
from tare.base.reference import Reference
from tare.oci import image as oci
from tare.registry import hosts, retry
from tare.registry.auth import Authorizer, scope_of
from tare.registry.challenge import Refusal, merge_scopes, refusal
from tare.registry.credentials import ANONYMOUS, Credentials
from tare.registry.hosts import Endpoint
from tare.registry.transport import Answer, Body, Transport, Unreachable, pause, shown

log = logging.getLogger(__name__)
T = TypeVar("T")

ACCEPT = ", ".join((oci.OCI_INDEX, oci.OCI_MANIFEST, oci.DOCKER_LIST, oci.DOCKER_MANIFEST))
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
_SAFE = ":"  # servers know digests by their colon, not every one by `%3A`
_MAX_LISTING = 4 * 1024 * 1024
_MAX_ERROR = 256 * 1024
_MAX_TAGS = 200_000
_PAGE = 1000
_MAX_REFERRERS = 1000
_NO_REFERRERS = frozenset({400, 404, 405, 406, 415, 501})


class RemoteManifest(Struct, frozen=True):
    """A manifest or index as the registry gave it: the digest is that of the bytes."""

    raw: bytes
    media_type: str
    digest: Digest


class Head(Struct, frozen=True):
    """What a registry says about a manifest without giving it: a hint, nothing more."""

    digest: str
    media_type: str
    size: int


class Listing(msgspec.Struct):
    """`tags/list` and `_catalog`."""

    tags: list[str] | None = None
    repositories: list[str] | None = None


class Remote:
    """A repository. push: ask for the right to write, and leave the mirrors out."""

    def __init__(
        self,
        transport: Transport,
        *,
        domain: str,
        path: str,
        credentials: Credentials = ANONYMOUS,
        push: bool = False,
    ) -> None:
        self.domain = domain
        self.path = path
        self.options = transport.options
        self.authorizer = Authorizer(transport, credentials)
        self._transport = transport
        self._push = push
        self._endpoints = hosts.endpoints(domain, transport.options, with_mirrors=not push)
        self._scope = scope_of(path, push=push) if path else ""

    def __repr__(self) -> str:
        return f"Remote({self.domain}/{self.path})"

    # -- requests -----------------------------------------------------------------------------------------------------

    def _candidates(self) -> list[Endpoint]:
        known = self._transport.answering.get(self._endpoints[-1].host)
        return sorted(
            self._endpoints, key=lambda endpoint: not endpoint.is_mirror and endpoint != known and known is not None
        )

    @asynccontextmanager
    async def open(
        self,
        method: str,
        target: str,
        *,
        ok: frozenset[int],
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        scope: str | None = None,
    ) -> AsyncIterator[Answer]:
        """The first good answer of the servers in their order, once each. target: a path, or a URL of the registry's.

        Raises Refusal, Unauthorized, Unreachable, Unavailable.
        """
        wanted = self._scope if scope is None else scope
        async with AsyncExitStack() as stack:
            yield await self._first(stack, method, target, ok=ok, headers=headers or {}, body=body, scope=wanted)

    async def _first(
        self,
        stack: AsyncExitStack,
        method: str,
        target: str,
        *,
        ok: frozenset[int],
        headers: Mapping[str, str],
        body: Body,
        scope: str,
    ) -> Answer:
        candidates = self._candidates()
        if "://" in target:  # a place the registry named before: it is where it is
            home = hosts.origin(target)
            candidates = [e for e in candidates if hosts.origin(e.base) == home] or candidates[-1:]
        for endpoint in candidates:
            is_last = endpoint is candidates[-1]
            url = target if "://" in target else endpoint.base + target
            try:
                answer = await stack.enter_async_context(self._exchange(endpoint, method, url, headers, body, scope))
                if not endpoint.is_mirror and hosts.origin(url) == hosts.origin(endpoint.base):
                    self._transport.answering[endpoint.host] = endpoint
                if answer.status in ok:
                    return answer
                raise await _refused(answer, method)
            except (Refusal, Unavailable, Unauthorized) as error:
                await stack.aclose()
                if is_last or not (endpoint.is_mirror or isinstance(error, Unreachable)):
                    raise
                if endpoint.host in self._transport.answering and not endpoint.is_mirror:
                    raise  # it has answered before in this way: another way is no cure
                log.debug("%s: %s; trying the next server", endpoint.host, error.message)
                if endpoint.is_mirror and isinstance(error, Unreachable):
                    self._endpoints = [other for other in self._endpoints if other is not endpoint]
        raise AssertionError("a registry has at least one server")

    @asynccontextmanager
    async def _exchange(
        self, endpoint: Endpoint, method: str, url: str, headers: Mapping[str, str], body: Body, scope: str
    ) -> AsyncIterator[Answer]:
        used = self.authorizer.header(endpoint, scope)
        for is_repeated in (False, True):
            sent = {**headers, "Authorization": used} if used else headers
            async with self._transport.send(method, url, endpoint=endpoint, headers=sent, body=body) as answer:
                if answer.status == 401 and not is_repeated:
                    used = await self.authorizer.accept(answer, endpoint, scope, used=used)
                    continue
                yield answer
                return

    async def repeat(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do it until it is done, has failed for good, or has failed too often."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await act()
            except (Refusal, Unreachable) as error:
                wait_s = self.wait_after(error, attempt)
                if wait_s is None:
                    raise
                log.info("%s: %s; again in %.1f s", self, error.message, wait_s)
                await pause(wait_s)

    def wait_after(self, error: Exception, attempt: int) -> float | None:
        """How long to wait after the attempt (from 1) failed so; None to give up."""
        asked = None
        if isinstance(error, Refusal):
            if not retry.is_worth_repeating(error.status):
                return None
            asked = error.retry_after_s
        elif isinstance(error, Unreachable):
            if error.is_absent and self._endpoints[-1].host not in self._transport.answering:
                return None
        else:
            return None
        return retry.delay_s(attempt, attempts=self.options.attempts, first_s=self.options.backoff_s, asked_s=asked)

    async def fetch(
        self,
        method: str,
        target: str,
        *,
        ok: frozenset[int] = frozenset({200}),
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        scope: str | None = None,
        limit: int = _MAX_LISTING,
    ) -> tuple[Answer, bytes]:
        """An answer with its whole body, repeated while that may help. Raises as `open`."""

        async def once() -> tuple[Answer, bytes]:
            async with self.open(method, target, ok=ok, headers=headers, body=body, scope=scope) as answer:
                return answer, await answer.read(limit) if method != "HEAD" else b""

        return await self.repeat(once)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _at(self, rest: str) -> str:
        return f"/v2/{quote(self.path)}/{rest}"

    async def ping(self) -> None:
        """Ask whether we may talk to the registry at all. Raises Unauthorized and as `open`."""
        await self.fetch("GET", "/v2/", scope="")

    async def head(self, wanted: str) -> Head | None:
        """What is said about the tag or digest; None where the registry does not answer that. Raises as `open`.

        None too for what is not there: only the answer to a GET has words for the user.
        """
        headers = {"Accept": ACCEPT}
        target = self._at(f"manifests/{quote(wanted, safe=_SAFE)}")
        answer, _ = await self.fetch("HEAD", target, ok=frozenset({200, 404}), headers=headers)
        size = answer.headers.get("Content-Length", "")
        digest = answer.headers.get("Docker-Content-Digest", "")
        if answer.status == 404 or not digest:
            return None
        return Head(digest, _media(answer), int(size) if size.isdigit() else 0)

    async def manifest(self, wanted: str) -> RemoteManifest:
        """The manifest or index of a tag or digest, verified and not yet parsed.

        Raises InvalidArgument for schema 1, DataCorrupt, and as `open`.
        """
        headers = {"Accept": ACCEPT}
        target = self._at(f"manifests/{quote(wanted, safe=_SAFE)}")
        answer, raw = await self.fetch("GET", target, headers=headers, limit=oci.MAX_MANIFEST)
        media = _media(answer)
        if ":" in wanted:
            digest = parse_digest(wanted)
            verify(raw, digest, what=f"manifest of {self.domain}/{self.path}")
        else:
            digest = _digest_of(raw)
        if media.startswith(_SCHEMA_1):
            raise _schema_1(f"{self.domain}/{self.path}")
        # Some registries say text/plain or nothing: then the document says what it is.
        known = media if media in oci.MANIFESTS | oci.INDEXES else ""
        return RemoteManifest(raw, known, digest)

    @asynccontextmanager
    async def blob(
        self, digest: str, *, offset: int = 0, size: int = 0
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """The bytes of a blob from `offset`, once. Yields where they begin (0 when the registry knows no ranges).

        size: of the whole blob, which the answer must agree with where it says so. Raises DataCorrupt, and as `open`.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        target = self._at(f"blobs/{quote(digest, safe=_SAFE)}")
        async with self.open("GET", target, ok=frozenset({200, 206}), headers=headers) as answer:
            yield _start(answer, offset=offset, size=size, what=f"blob {digest}"), answer.chunks()

    @asynccontextmanager
    async def foreign(self, url: str, *, offset: int, size: int) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """The bytes of a layer from a URL of its descriptor, without credentials. Raises InvalidArgument, as `blob`."""
        scheme, _, host = hosts.origin(url)[0], 0, url.partition("://")[2].partition("/")[0]
        if scheme not in ("http", "https") or not host or "@" in host:
            raise InvalidArgument(f"invalid URL of a layer: {url[:200]!r}")
        if scheme == "http" and not self._endpoints[-1].is_insecure:
            raise Unavailable(f"the layer is at {shown(url)}, which has no TLS: refused")
        endpoint = Endpoint(
            scheme=self._endpoints[-1].scheme,
            host=self._endpoints[-1].host,
            is_verified=self._endpoints[-1].is_verified,
        )
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._transport.send("GET", url, endpoint=endpoint, headers=headers, is_foreign=True) as answer:
            if answer.status not in (200, 206):
                raise await _refused(answer, "GET")
            yield _start(answer, offset=offset, size=size, what=shown(url)), answer.chunks()

    async def document(self, descriptor: oci.Descriptor, *, limit: int) -> bytes:
        """A small blob, whole and verified. Raises InvalidArgument when it promises to be larger, and as `open`."""
        if descriptor.size > limit:
            raise InvalidArgument(f"blob {descriptor.digest} is larger than {limit} bytes")
        digest = parse_digest(descriptor.digest)
        _, raw = await self.fetch("GET", self._at(f"blobs/{quote(digest, safe=_SAFE)}"), limit=limit)
        if len(raw) != descriptor.size:
            raise DataCorrupt(f"blob {digest} has {len(raw)} bytes instead of {descriptor.size}")
        verify(raw, digest, what="image config")
        return raw

    async def tags(self) -> list[str]:
        """Every tag, page by page. Raises as `open`."""
        return await self._pages(self._at("tags/list"), lambda listing: listing.tags)

    async def referrers(self, digest: str) -> list[oci.Descriptor]:
        """What is said to be about a manifest: the registry's own list, or where it keeps none the index under the tag
        that stands in for it. Raises as `manifest`. Source: distribution-spec, "Listing Referrers"."""
        page, is_served = self._at(f"referrers/{quote(digest, safe=_SAFE)}"), True
        found: dict[str, oci.Descriptor] = {}
        seen: set[str] = set()
        while page and page not in seen and len(found) < _MAX_REFERRERS:
            seen.add(page)
            try:
                headers = {"Accept": oci.OCI_INDEX}
                answer, raw = await self.fetch("GET", page, headers=headers, limit=oci.MAX_MANIFEST)
            except Refusal as error:
                if error.status not in _NO_REFERRERS:
                    raise
                is_served = False
                break
            if _media(answer) != oci.OCI_INDEX:  # a server that has something to say about every path
                is_served = False
                break
            found.update((entry.digest, entry) for entry in _entries(raw))
            page = _next_page(answer)
        if not is_served:
            found.update((entry.digest, entry) for entry in await self._tagged_referrers(digest))
        return list(found.values())[:_MAX_REFERRERS]

    async def _tagged_referrers(self, digest: str) -> list[oci.Descriptor]:
        try:
            return _entries((await self.manifest(referrers_tag(digest))).raw)
        except Refusal as error:
            if error.status != 404:
                raise
            return []

    async def add_referrer(self, digest: str, entry: oci.Descriptor) -> None:
        """Add to the index under the tag that stands in for a list of referrers. Raises as `open`.

        Two who do this at once may lose one of the two entries: the specification has no remedy.
        """
        known = {one.digest: one for one in await self._tagged_referrers(digest)}
        if entry.digest in known:
            return
        raw = oci.index_of([*known.values(), entry])
        await self.put_manifest(referrers_tag(digest), raw, oci.OCI_INDEX)

    async def catalog(self, *, limit: int) -> list[str]:
        """Repositories of the registry. Raises as `open` (many registries have no such list)."""
        return await self._pages(
            "/v2/_catalog", lambda listing: listing.repositories, scope="registry:catalog:*", limit=limit
        )

    async def _pages(
        self,
        target: str,
        read: Callable[[Listing], list[str] | None],
        *,
        scope: str | None = None,
        limit: int = _MAX_TAGS,
    ) -> list[str]:
        found: list[str] = []
        seen: set[str] = set()
        page = f"{target}?{urlencode({'n': _PAGE})}"
        while page and page not in seen and len(found) < limit:
            seen.add(page)
            answer, body = await self.fetch("GET", page, scope=scope)
            try:
                listing = msgspec.json.decode(body, type=Listing)
            except msgspec.MsgspecError as error:
                raise Unavailable(f"{shown(answer.url)}: {error}") from None
            found += read(listing) or []
            page = _next_page(answer)
        return found[:limit]

    # -- writing ------------------------------------------------------------------------------------------------------

    async def has_blob(self, digest: str) -> bool:
        """Whether the repository has the blob. Raises as `open`."""
        answer, _ = await self.fetch("HEAD", self._at(f"blobs/{quote(digest, safe=_SAFE)}"), ok=frozenset({200, 404}))
        return answer.status == 200

    async def has_manifest(self, digest: str) -> bool:
        """Whether the repository has the manifest. Raises as `open`."""
        target = self._at(f"manifests/{quote(digest, safe=_SAFE)}")
        answer, _ = await self.fetch("HEAD", target, ok=frozenset({200, 404}), headers={"Accept": ACCEPT})
        return answer.status == 200

    async def begin_upload(self, *, mount: str = "", source: str = "") -> str:
        """Start to send a blob: the URL to send it to, "" when the registry took it over from repository `source`."""
        query = f"?{urlencode({'mount': mount, 'from': source})}" if mount else ""
        scope = merge_scopes(self._scope, scope_of(source, push=False)) if mount else self._scope
        answer, _ = await self.fetch(
            "POST",
            self._at("blobs/uploads/") + query,
            ok=frozenset({201, 202}),
            headers={"Content-Length": "0"},
            scope=scope,
        )
        return "" if answer.status == 201 else self.location(answer)

    def location(self, answer: Answer) -> str:
        """Where the next request of an upload goes. Raises Unavailable when the registry does not say."""
        location = answer.headers.get("Location", "")
        if not location:
            raise Unavailable(f"{self.domain}: the registry does not say where to send the blob")
        return urljoin(answer.url, location)

    async def put_manifest(self, wanted: str, raw: bytes, media_type: str) -> bool:
        """Store a manifest under a tag or digest, byte by byte. Whether the registry has noted what it is about.

        Raises as `open`.
        """
        answer, _ = await self.fetch(
            "PUT",
            self._at(f"manifests/{quote(wanted, safe=_SAFE)}"),
            ok=frozenset({200, 201, 202}),
            headers={"Content-Type": media_type},
            body=raw,
        )
        return bool(answer.headers.get("OCI-Subject"))


def referrers_tag(digest: str) -> str:
    """The tag that stands in for the list of a manifest's referrers. Source: distribution-spec, "Referrers Tag Schema"."""
    algorithm, _, text = digest.partition(":")
    return f"{algorithm[:32]}-{text[:64]}"


def _entries(raw: bytes) -> list[oci.Descriptor]:
    document = oci.parse_manifest(raw, oci.OCI_INDEX)
    return list(document.manifests) if isinstance(document, oci.Index) else []


def remote_for(
    transport: Transport, reference: Reference, credentials: Credentials = ANONYMOUS, *, push: bool = False
) -> Remote:
    """The repository a reference names."""
    return Remote(transport, domain=reference.domain, path=reference.path, credentials=credentials, push=push)


def _digest_of(raw: bytes) -> Digest:
    from tare.base.digest import sha256

    return sha256(raw)


def _schema_1(name: str) -> InvalidArgument:
    return InvalidArgument(
        f"{name} is stored in the schema 1 format, which was given up because it cannot be verified",
        hint="push the image again with any program of this decade",
    )


def _media(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


async def _refused(answer: Answer, method: str) -> Refusal:
    try:
        body = await answer.read(_MAX_ERROR) if method != "HEAD" else b""
    except Unavailable:
        body = b""
    error = refusal(answer.status, body, what=f"{method} {shown(answer.url)}")
    asked_s = retry.retry_after(answer.headers.get("Retry-After", ""), datetime.datetime.now(datetime.UTC))
    if asked_s is not None and asked_s > retry.LONGEST_S:
        error.hint = f"it asks for {asked_s:.0f} seconds of patience"
    error.retry_after_s = asked_s
    return error


def _start(answer: Answer, *, offset: int, size: int, what: str) -> int:
    """Where the body begins in the blob. Raises DataCorrupt when the registry contradicts the descriptor."""
    length = answer.headers.get("Content-Length", "")
    if answer.status == 200:
        if size and length.isdigit() and int(length) != size:
            raise DataCorrupt(f"{what} has {length} bytes instead of {size}")
        return 0
    unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdigit() or int(first) != offset:
        raise DataCorrupt(f"{what}: the registry answers another range than asked for")
    if size and total.isdigit() and int(total) != size:
        raise DataCorrupt(f"{what} has {total} bytes instead of {size}")
    return offset


def _next_page(answer: Answer) -> str:
    """The target of `Link: <…>; rel="next"` on the same server; "" for none."""
    link = answer.headers.get("Link", "")
    target, _, rest = link.partition(";")
    if 'rel="next"' not in rest.replace(" ", "") and "rel=next" not in rest:
        return ""
    url = urljoin(answer.url, target.strip().removeprefix("<").removesuffix(">"))
    return url if hosts.origin(url) == hosts.origin(answer.url) else ""


__all__ = ["ACCEPT", "Head", "Remote", "RemoteManifest", "referrers_tag", "remote_for"]
