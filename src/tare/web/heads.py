"""Request heads: what llhttp says about one, checked for what makes two readers disagree about where a body ends.

Clients send the same few heads again and again, byte for byte, so what was read is kept for a while.
"""

from __future__ import annotations

from collections.abc import Mapping

import httptools
from msgspec import Struct

from tare.base.errors import InvalidArgument
from tare.web.message import Query

_SINGLE = frozenset({"content-length", "transfer-encoding", "host"})
_FIRST = frozenset({"content-type", "x-registry-auth", "x-registry-config"})  # as Go reads them; some clients send two
_KEPT = 512
_KEPT_BYTES = 1024


class Head(Struct, frozen=True):
    """One head. `length` is the body's, in bytes; without a length and not chunked there is no body."""

    method: str
    path: str
    query: Query
    headers: Mapping[str, str]  # names in lower case; what is repeated is joined by ", ", or the first counts
    length: int
    is_chunked: bool
    keeps_alive: bool
    expects_continue: bool


class _Said:
    """What llhttp calls."""

    __slots__ = ("headers", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def parse_head(raw: bytes) -> Head:
    """Read a head, its empty line included. Raises InvalidArgument."""
    said = _Said()
    parser = httptools.HttpRequestParser(said)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise InvalidArgument(str(error)) from None
    if b"\r\n " in raw or b"\r\n\t" in raw:
        raise InvalidArgument("folded header line")
    headers: dict[str, str] = {}
    for name, value in said.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        if key not in headers:
            headers[key] = text
        elif key in _SINGLE:
            raise InvalidArgument(f"repeated {key} header")
        elif key not in _FIRST:
            headers[key] = f"{headers[key]}, {text}"
    is_chunked = "transfer-encoding" in headers
    if is_chunked and (headers["transfer-encoding"].strip().lower() != "chunked" or "content-length" in headers):
        raise InvalidArgument("ambiguous body length")
    path, _, query = said.url.decode("latin-1").partition("?")
    if not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2] if "://" in path else "/" + path
    return Head(
        method=parser.get_method().decode("ascii"),
        path=path,
        query=Query(query),
        headers=headers,
        length=_length(headers.get("content-length", "0")),
        is_chunked=is_chunked,
        keeps_alive=_keeps_alive(parser.get_http_version(), headers.get("connection", "")),
        expects_continue=headers.get("expect", "").lower() == "100-continue",
    )


class HeadReader:
    """`parse_head` with a memory of the last heads. Heads that carry credentials are not kept."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def read(self, raw: bytes) -> Head:
        """Raises InvalidArgument."""
        head = self._known.get(raw)
        if head is None:
            head = parse_head(raw)
            if len(raw) <= _KEPT_BYTES and not any(n == "authorization" or n.startswith("x-") for n in head.headers):
                if len(self._known) >= _KEPT:
                    del self._known[next(iter(self._known))]
                self._known[raw] = head
        return head


def _length(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidArgument("bad Content-Length")
    return int(text)


def _keeps_alive(http_version: str, connection: str) -> bool:
    """Whether the client wants the connection kept (llhttp forgets its answer once the message is complete)."""
    words = {word.strip().lower() for word in connection.split(",")}
    return "keep-alive" in words if http_version == "1.0" else "close" not in words
