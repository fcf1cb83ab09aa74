"""One blocking HTTP/1.1 connection to the engine, and the client that opens them.

A `Client` negotiates the version once and keeps one idle connection. An `Answer` is read at most once; its connection
returns to the client when the body was read to its end. `hijack` gives the raw connection away.

Source: RFC 9112 sections 4, 6 and 7; ENGINE-API notes W20 to W28.
"""

from __future__ import annotations

import _socket

from tare.client import gojson
from tare.client.errors import ApiError, ConnectionFailed
from tare.client.host import Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Protocol, TypeAlias

    from tare.client.gojson import Json

    QueryValue: TypeAlias = "str | int | bool | Sequence[str] | None"
    Query: TypeAlias = "Mapping[str, QueryValue]"

    class Readable(Protocol):
        """A source of bytes for an upload: a binary file or a pipe."""

        def read(self, size: int, /) -> bytes: ...


VERSION = "1.51"
"""The newest API version spoken; negotiation only goes down from here."""
OLDEST = "1.24"
"""What a server speaks that does not say."""

_CHUNK = 256 * 1024
_MAX_HEAD = 256 * 1024
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def percent(text: str, keep: str = "") -> str:
    """`text` with everything but unreserved characters and `keep` percent-encoded as UTF-8."""
    safe = _SAFE | set(keep.encode())
    return "".join(chr(b) if b in safe else f"%{b:02X}" for b in text.encode("utf-8", "surrogateescape"))


def query_string(query: Query) -> str:
    """Docker's query: keys sorted, true as 1, absent (None, False, "") left out, sequences repeated."""
    parts: list[str] = []
    for key in sorted(query):
        value = query[key]
        if value is None or value is False or value == "":
            continue
        if value is True:
            value = "1"
        values = [str(value)] if isinstance(value, (str, int)) else list(value)
        parts.extend(f"{percent(key)}={percent(v)}" for v in values)
    return "&".join(parts)


def version_tuple(text: str) -> tuple[int, int]:
    """`"1.41"` as (1, 41); (0, 0) when it is no version."""
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


class Connection:
    """A socket and what was read from it too early. `buffer` always holds unread bytes."""

    def __init__(self, sock: _socket.socket, host: Host) -> None:
        self.sock = sock
        self.host = host
        self.buffer = b""

    def send(self, data: bytes) -> None:
        """Raises ConnectionFailed when the engine is gone."""
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise ConnectionFailed(f"error during connect: write to {self.host.text}: {error.strerror}") from None

    def fill(self) -> bool:
        """Read more into `buffer`; False at the end of the stream."""
        data = self.recv()
        self.buffer += data
        return bool(data)

    def recv(self) -> bytes:
        """The next bytes, buffered ones first; b"" at the end."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        return self._recv()

    def _recv(self) -> bytes:
        while True:
            try:
                return self.sock.recv(_CHUNK)
            except InterruptedError:
                continue
            except ConnectionResetError:
                return b""
            except OSError as error:
                raise ConnectionFailed(f"error during connect: read from {self.host.text}: {error.strerror}") from None

    def line(self) -> bytes:
        """The next line without its CRLF. Raises ConnectionFailed at a premature end."""
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > _MAX_HEAD:
                raise ConnectionFailed(f"{self.host.text} does not answer in HTTP")
            more = self._recv()
            if not more:
                raise ConnectionFailed("error during connect: the engine closed the connection: unexpected EOF")
            self.buffer += more
        found, self.buffer = self.buffer[:end], self.buffer[end + 1 :]
        return found.rstrip(b"\r")

    def take(self, limit: int) -> bytes:
        """At most `limit` bytes, at least one unless the stream has ended."""
        if not self.buffer:
            self.buffer = self._recv()
        data = self.buffer
        if len(data) <= limit:
            self.buffer = b""
            return data
        self.buffer = data[limit:]
        return data[:limit]

    def half_close(self) -> None:
        """Say that nothing more will be sent; the other direction stays open."""
        try:
            self.sock.shutdown(_socket.SHUT_WR)
        except OSError:
            return  # the peer is gone already: there is nobody to tell

    def close(self) -> None:
        """Give the descriptor back."""
        self.sock.close()


def connect(host: Host) -> Connection:
    """Open a connection. Raises ConnectionFailed with Docker's text and what to do."""
    if host.is_ssh:
        from tare.client import ssh

        return ssh.connect(host)
    try:
        if host.path:
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            sock.connect(host.path)
            return Connection(sock, host)
        sock = _connect_tcp(host)
        if host.tls is not None:
            from tare.client.tls import wrap

            return Connection(wrap(sock, host.tls, host.name), host)
        return Connection(sock, host)
    except PermissionError:
        raise ConnectionFailed(
            f"permission denied while trying to connect to the tare daemon socket at {host.text}:"
            " run as root, or as a member of the socket's group"
        ) from None
    except _socket.gaierror as error:
        raise ConnectionFailed(f"error during connect: lookup {host.name}: {error.strerror}") from None
    except OSError:
        raise ConnectionFailed(unreachable(host)) from None


def unreachable(host: Host) -> str:
    """Docker's text for an engine that does not answer, and the advice that goes with it."""
    text = f"Cannot connect to the tare daemon at {host.text}. Is the tare daemon running?"
    if host.path and not host.is_ssh:
        return f"{text}\nStart it with `tare daemon` as root, or name another one with -H or DOCKER_HOST."
    return text


def _connect_tcp(host: Host) -> _socket.socket:
    last: OSError | None = None
    for family, kind, proto, _, address in _socket.getaddrinfo(host.name, host.port, 0, _socket.SOCK_STREAM):
        sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, proto)
        try:
            sock.connect(address)
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            last = error
            continue
        return sock
    raise last or OSError(f"{host.name} has no address")


class Answer:
    """Status, headers (names in lower case) and a body that is read once."""

    def __init__(self, client: Client, connection: Connection, method: str) -> None:
        self._client = client
        self._connection: Connection | None = connection
        while True:
            words = connection.line().split(b" ", 2)
            if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
                raise ConnectionFailed(f"{connection.host.text} does not answer in HTTP")
            self.status = int(words[1])
            self.reason = words[2].decode("latin-1") if len(words) > 2 else ""
            self.headers = self._read_headers(connection)
            if self.status >= 200 or self.status == 101:
                break
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length", "")
        self._left: int | None = int(length) if length.isdigit() and not self._chunked else None
        if method == "HEAD" or self.status in (204, 304):
            self._left, self._chunked = 0, False
        self._chunk_left = 0
        self._keep = self.headers.get("connection", "").lower() != "close" and words[0] != b"HTTP/1.0"

    @staticmethod
    def _read_headers(connection: Connection) -> dict[str, str]:
        headers: dict[str, str] = {}
        while line := connection.line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return headers

    @property
    def connection(self) -> Connection | None:
        """The connection the body is still to be read from; None once it was read."""
        return self._connection

    @property
    def content_type(self) -> str:
        """The media type without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip()

    def read(self) -> bytes:
        """The next piece of the body; b"" at its end. Raises ConnectionFailed when it is cut short."""
        connection = self._connection
        if connection is None:
            return b""
        if self._chunked:
            return self._read_chunked(connection)
        if self._left is None:
            data = connection.recv()
            if not data:
                self.close()
            return data
        if self._left == 0:
            self._finish()
            return b""
        data = connection.take(self._left)
        if not data:
            self.close()
            raise ConnectionFailed("unexpected EOF")
        self._left -= len(data)
        return data

    def _read_chunked(self, connection: Connection) -> bytes:
        if self._chunk_left == 0:
            size = connection.line().partition(b";")[0].strip()
            try:
                self._chunk_left = int(size, 16)
            except ValueError:
                self.close()
                raise ConnectionFailed("malformed chunked encoding in the answer") from None
            if self._chunk_left == 0:
                while connection.line():
                    pass
                self._finish()
                return b""
        data = connection.take(self._chunk_left)
        if not data:
            self.close()
            raise ConnectionFailed("unexpected EOF")
        self._chunk_left -= len(data)
        if self._chunk_left == 0:
            connection.line()
        return data

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def body(self) -> bytes:
        """All of it."""
        return b"".join(self)

    def json(self) -> Json:
        """The body as one document; None when empty. Raises ConnectionFailed when it is no JSON."""
        data = self.body()
        if not data.strip():
            return None
        try:
            return gojson.loads(data)
        except ValueError as error:
            raise ConnectionFailed(f"Error reading the engine's answer: {error}") from None

    def documents(self) -> Iterator[Json]:
        """A stream of JSON documents, each as soon as it is complete."""
        text = b""
        for piece in self:
            text += piece
            *lines, text = text.split(b"\n")
            for line in lines:
                if line.strip():
                    yield from _scan_all(line)
        if text.strip():
            yield from _scan_all(text)

    def _finish(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._keep and not connection.buffer:
                self._client.give_back(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Stop here; an unread rest costs the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def steal(self) -> Connection:
        """The raw connection, with what was already read of it; for a hijack."""
        connection, self._connection = self._connection, None
        if connection is None:
            raise ConnectionFailed("the answer was already read")
        return connection


def _scan_all(data: bytes) -> Iterator[Json]:
    rest = data.decode("utf-8", "replace")
    while rest.strip():
        try:
            value, rest = gojson.scan(rest)
        except ValueError as error:
            raise ConnectionFailed(f"Error reading the engine's answer: {error}") from None
        yield value


class Client:
    """The engine at `host`. `version` "" means negotiate at the first request."""

    def __init__(self, host: Host, *, version: str = "", user_agent: str = "tare") -> None:
        self.host = host
        self.version = version
        self.headers = {"User-Agent": user_agent}
        self._idle: Connection | None = None

    def negotiate(self) -> str:
        """The API version used from now on: the lower of ours and the engine's. Raises ConnectionFailed."""
        if not self.version:
            answer = self._exchange("HEAD", "/_ping", b"", {})
            answer.body()
            theirs = answer.headers.get("api-version", "")
            if version_tuple(theirs) == (0, 0):
                theirs = OLDEST
            self.version = theirs if version_tuple(theirs) < version_tuple(VERSION) else VERSION
        return self.version

    def speaks(self, version: str) -> bool:
        """Whether the negotiated version is at least `version`."""
        return version_tuple(self.negotiate()) >= version_tuple(version)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        upload: Readable | None = None,
    ) -> Answer:
        """Send a request and return the answer once its headers are in.

        path: without version, percent-encoded by the caller where it holds outside text. body: a JSON value.
        upload: sent chunked as application/x-tar while the answer may already arrive.
        Raises ApiError for statuses of 400 and above, ConnectionFailed when there is no engine.
        """
        payload = b"" if body is None else gojson.dumps(body).encode("utf-8", "surrogateescape")
        send = dict(headers or {})
        if body is not None:
            send.setdefault("Content-Type", "application/json")
        target = f"/v{self.negotiate()}{path}"
        text = query_string(query) if query else ""
        if text:
            target = f"{target}?{text}"
        answer = self._exchange(method, target, payload, send, upload)
        if answer.status >= 400:
            raise _api_error(answer, self.version)
        return answer

    def call(self, method: str, path: str, *, query: Query | None = None, body: object = None) -> Json:
        """`request`, and the whole answer as JSON (None when it has no body)."""
        return self.request(method, path, query=query, body=body).json()

    def get(self, path: str, *, query: Query | None = None) -> Json:
        """`call` with GET."""
        return self.call("GET", path, query=query)

    def post(self, path: str, *, query: Query | None = None, body: object = None) -> Json:
        """`call` with POST."""
        return self.call("POST", path, query=query, body=body)

    def hijack(self, path: str, *, query: Query | None = None, body: object = None) -> tuple[Connection, str]:
        """POST and take the raw connection over; the media type says whether the stream is multiplexed.

        Raises ApiError, or ConnectionFailed when the engine does not switch protocols.
        """
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        answer = self.request("POST", path, query=query, body=body, headers=upgrade)
        if answer.status != 101:
            answer.close()
            raise ConnectionFailed(f"unable to upgrade to tcp, received {answer.status}")
        return answer.steal(), answer.content_type

    def give_back(self, connection: Connection) -> None:
        """Keep an idle connection for the next request."""
        if self._idle is not None:
            self._idle.close()
        self._idle = connection

    def close(self) -> None:
        """Close the idle connection."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def _exchange(
        self, method: str, target: str, payload: bytes, headers: dict[str, str], upload: Readable | None = None
    ) -> Answer:
        name = "localhost" if self.host.path or self.host.is_ssh else self.host.text.removeprefix("tcp://")
        lines = [f"{method} {target} HTTP/1.1", f"Host: {name}"]
        send = self.headers | headers
        if upload is not None:
            send.setdefault("Content-Type", "application/x-tar")
            send["Transfer-Encoding"] = "chunked"
        elif payload or method in ("POST", "PUT"):
            send["Content-Length"] = str(len(payload))
        lines.extend(f"{key}: {value}" for key, value in send.items())
        head = "\r\n".join([*lines, "\r\n"]).encode("latin-1", "replace")
        connection, self._idle = self._idle, None
        if connection is not None:
            # An engine may close an idle connection at any time. A request that only reads is then simply repeated.
            try:
                connection.sock.sendall(head + payload)
                if method in ("GET", "HEAD") and not connection.fill():
                    raise ConnectionResetError
            except OSError:
                connection.close()
                connection = None
        if connection is None:
            connection = connect(self.host)
            connection.send(head + payload)
        try:
            if upload is None:
                return Answer(self, connection, method)
            return _upload(self, connection, method, upload)
        except BaseException:
            connection.close()
            raise


def _upload(client: Client, connection: Connection, method: str, source: Readable) -> Answer:
    """Send `source` chunked from a thread, so that an engine that answers early (an error, progress) is heard."""
    import threading

    failed: list[BaseException] = []

    def pump() -> None:
        try:
            while data := source.read(_CHUNK):
                connection.sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))
            connection.sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # the engine has answered and does not want the rest
        except BaseException as error:
            # What was sent is incomplete: cutting the connection makes the engine drop it.
            failed.append(error)
            try:
                connection.sock.shutdown(_socket.SHUT_RDWR)
            except OSError:
                return

    threading.Thread(target=pump, daemon=True).start()
    try:
        return Answer(client, connection, method)
    except ConnectionFailed:
        if failed:
            raise failed[0] from None
        raise


def _api_error(answer: Answer, version: str) -> ApiError:
    """The engine's error document as an exception; plain text is taken as it is."""
    data = answer.body()
    message = data.decode("utf-8", "replace").strip()
    if answer.content_type == "application/json":
        try:
            document = gojson.loads(data)
        except ValueError:
            document = None
        if isinstance(document, dict) and isinstance(document.get("message"), str):
            message = str(document["message"]).strip()
    if not message:
        message = (
            f"request returned {answer.reason or answer.status} for API version {version},"
            " check if the server supports the requested API version"
        )
    return ApiError(answer.status, message)
