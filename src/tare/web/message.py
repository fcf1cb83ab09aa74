"""What a handler gets and what it returns.

A handler is `async def handler(request: Request) -> Response | Stream | Feed | Upgrade`, or a plain function that returns a
`Response` where nothing has to be waited for. It never touches the connection:
the server in `web/server.py` writes the answer, applies backpressure, and tells the handler (by cancellation) when
the client is gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct, field

from tare.base.errors import InvalidArgument

JSON = "application/json"
_encode = msgspec.json.encode
_FALSE = frozenset({"", "0", "no", "false", "none"})

MAX_JSON_BODY_BYTES = 4 * 1024 * 1024


class Body(Protocol):
    """A request body as it arrives (content-length or chunked framing already removed)."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises InvalidArgument past `limit` bytes."""
        ...


class Peer(Protocol):
    """The raw connection after an upgrade."""

    async def read(self) -> bytes:
        """The next bytes from the client; b"" when it has shut down its sending half."""
        ...

    async def write(self, data: bytes) -> None:
        """Send, waiting while the client is slow. Raises ClientGone."""
        ...

    def write_eof(self) -> None:
        """Half-close our sending side."""
        ...

    async def drained(self) -> None:
        """Wait (bounded) until the client has taken in what was written so far."""
        ...

    async def gone(self) -> None:
        """Return when both directions of the connection are dead."""
        ...


class Sink(Protocol):
    """Where a `Feed` puts the pieces of its body."""

    def push(self, pieces: Sequence[bytes]) -> bool:
        """Send without waiting, all in one write. False when the client is behind or gone: then none was taken."""
        ...

    async def send(self, data: bytes) -> None:
        """Send, waiting while the client is slow. Raises ClientGone."""
        ...


class Query:
    """Query parameters with Docker's reading of booleans and repeated values."""

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self._values: dict[str, list[str]] = parse_qs(raw, keep_blank_values=True) if raw else {}

    def text(self, name: str, default: str = "") -> str:
        """The first value, or `default`."""
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """Every value, in order."""
        return self._values.get(name, [])

    def has(self, name: str) -> bool:
        """Whether the parameter was given at all."""
        return name in self._values

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's boolean: ``""``, 0, no, false, none (any case) are false, anything else true."""
        if name not in self._values:
            return default
        return self._values[name][0].strip().lower() not in _FALSE

    def integer(self, name: str, default: int | None = None) -> int | None:
        """A decimal integer, or `default` when absent or empty. Raises InvalidArgument."""
        value = self.text(name)
        if value == "":
            return default
        try:
            return int(value)
        except ValueError:
            raise InvalidArgument(f'strconv.Atoi: parsing "{value}": invalid syntax') from None


class Request(Struct):
    """One request, routed. `params` are the decoded path variables; `version` is the API asked for."""

    method: str
    path: str
    query: Query
    headers: Mapping[str, str]  # names in lower case; repeated headers joined by ", "
    body: Body
    version: tuple[int, int] = (1, 51)
    params: Mapping[str, str] = field(default_factory=dict)
    user: str = ""  # who asked, for the audit trail: "uid=0 pid=…" on a unix socket, certificate name on TCP

    @property
    def wants_upgrade(self) -> bool:
        """Whether the client offered to switch protocols."""
        return "upgrade" in self.headers


class Response(Struct):
    """A complete answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


class Stream(Struct):
    """An answer whose headers go out at once and whose body follows in chunks.

    `chunks` is iterated by the server; when the client leaves, the iterator is closed (`aclose`), so clean-up belongs
    in `finally`. An exception after the first byte cannot change the status: raise only if the protocol of the body
    has no word for errors (the connection is then cut).

    is_endless: it goes on until the client leaves, and `chunks` holds nothing before it is iterated: refused while connections
    are short.
    """

    chunks: AsyncIterator[bytes]
    status: int = 200
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    is_endless: bool = False


class Feed(Struct):
    """An answer that is written where its news arise: what many clients read at once costs no task's turn each.

    `run` is cancelled when the client leaves. When it returns, the body is complete; when it raises ClientGone, the
    connection is cut. is_endless: see Stream.
    """

    run: Callable[[Sink], Awaitable[None]]
    content_type: str = JSON
    is_endless: bool = True


class Upgrade(Struct):
    """Give the raw connection to `run` after answering 101 (or 200 if the client offered no upgrade).

    accept: what a websocket's handshake is answered with, "" for other connections.
    """

    run: Callable[[Peer], Awaitable[None]]
    content_type: str = "application/vnd.docker.raw-stream"
    accept: str = ""


Answer = Response | Stream | Feed | Upgrade


def json_response(value: object, status: int = 200) -> Response:
    """`value` (wire structs, dicts, lists) as Docker writes it: compact JSON and a newline."""
    return Response(status=status, body=_encode(value) + b"\n")


def no_content(status: int = 204) -> Response:
    """An answer without a body (204, 304)."""
    return Response(status=status, content_type="")
