"""HTTP to registries: connections, TLS, proxies, redirects, time-outs. The only module that knows the library.

The library is imported and its session made when the first request goes out (ADR 0009). Nothing is decided about
credentials here but this: the Authorization header never leaves the origin it was meant for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from tare.base.errors import InternalError, Unavailable
from tare.base.version import ENGINE_VERSION
from tare.registry import hosts
from tare.registry.hosts import Endpoint, RegistryOptions

if TYPE_CHECKING:
    import aiohttp

MAX_REDIRECTS = 5
MAX_DOCUMENT = 8 * 1024 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_READ_BUFFER = 1024 * 1024
_HEADER_BYTES = 64 * 1024

Body = bytes | Callable[[], AsyncIterator[bytes]]
_only_public: ContextVar[bool] = ContextVar("only_public", default=False)


class Unreachable(Unavailable):
    """No answer: name, connection, TLS, or a connection that was cut. Trying again, or elsewhere, may help.

    is_absent: there was no connection at all (unknown name, refused, no TLS), so that repeating it at once is no use.
    """

    def __init__(self, message: str, *, is_absent: bool = False) -> None:
        super().__init__(message)
        self.is_absent = is_absent


class Answer:
    """Status and headers of an answer; the body is read once, by `read` or by `chunks`."""

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        self._response = response
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    def challenges(self) -> list[str]:
        """Every WWW-Authenticate header."""
        return list(self._response.headers.getall("WWW-Authenticate", []))

    async def read(self, limit: int = MAX_DOCUMENT) -> bytes:
        """The whole body. Raises Unavailable past `limit` bytes, Unreachable when it is cut."""
        out = bytearray()
        async for chunk in self.chunks():
            out += chunk
            if len(out) > limit:
                raise Unavailable(f"{shown(self.url)}: the answer is larger than {limit} bytes")
        return bytes(out)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises Unreachable when the connection is cut before its end."""
        with _translated(self.url):
            async for chunk in self._response.content.iter_any():
                yield chunk


def shown(url: str) -> str:
    """The URL without its query, which may hold signatures, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    import aiohttp

    try:
        yield
    except aiohttp.ClientConnectorError as error:
        cause: object = getattr(error, "certificate_error", None) or error.os_error
        text = str(cause)
        if isinstance(cause, socket.gaierror):
            text = f"lookup {error.host}: {cause.strerror}"
        elif isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno:
            text = f"connect: {os.strerror(cause.errno).lower()}"
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            text = f"proxy {error.host}:{error.port}: {text}"
        raise Unreachable(f"{shown(url)}: {text}", is_absent=True) from None
    except aiohttp.ClientHttpProxyError as error:  # its own text has the proxy's password
        text = f"the proxy answers {error.status} {error.message}"
        raise Unreachable(f"{shown(url)}: {text}", is_absent=True) from None
    except TimeoutError:
        raise Unreachable(f"{shown(url)}: no answer in time") from None
    except (
        aiohttp.ServerDisconnectedError,
        aiohttp.ClientPayloadError,
        aiohttp.ClientOSError,
        ConnectionError,
    ) as error:
        if isinstance(error.__cause__, ssl.SSLError):  # with TLS 1.3 a server refuses a client after the handshake
            text = (error.__cause__.reason or "TLS failed").replace("_", " ").lower()
            raise Unreachable(f"{shown(url)}: {text}", is_absent=True) from None
        raise Unreachable(f"{shown(url)}: the connection was cut") from None
    except (aiohttp.ClientError, ssl.SSLError, ValueError) as error:
        raise Unreachable(f"{shown(url)}: {str(error) or type(error).__name__}", is_absent=True) from None


class Transport:
    """One for the daemon. `close` at its end."""

    def __init__(self, options: RegistryOptions) -> None:
        self.options = options
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}
        self.answering: dict[str, Endpoint] = {}  # host → the way it answered last, where there are several

    def __repr__(self) -> str:
        return f"Transport({'in use' if self._session else 'not used yet'})"

    async def close(self) -> None:
        """Drop every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp
            from aiohttp.resolver import ThreadedResolver

            class Resolver(ThreadedResolver):
                """Refuses to lead from a public registry to an address inside."""

                async def resolve(
                    self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
                ) -> list[Any]:
                    found = await super().resolve(host, port, family)
                    if _only_public.get():
                        for entry in found:
                            check_public(entry["host"])
                    return list(found)

            options = self.options
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=options.connect_timeout_s, sock_read=options.idle_timeout_s
            )
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=Resolver(), use_dns_cache=False, limit=0, family=socket.AF_UNSPEC
                ),
                timeout=timeout,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_READ_BUFFER,
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
                headers={"User-Agent": f"tare/{ENGINE_VERSION}", "Accept-Encoding": "identity"},
            )
        return self._session

    @asynccontextmanager
    async def send(
        self,
        method: str,
        url: str,
        *,
        endpoint: Endpoint,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        is_foreign: bool = False,
    ) -> AsyncIterator[Answer]:
        """One exchange; redirects of GET and HEAD are followed, up to five. is_foreign: the URL is not the registry's.

        Raises Unreachable; Unavailable for a redirect that may not be followed.
        """
        sent = dict(headers or {})
        home = hosts.origin(endpoint.base)
        is_inside = endpoint.is_insecure or is_private(endpoint.host)
        for _ in range(MAX_REDIRECTS + 1):
            if hosts.origin(url) != home:
                sent.pop("Authorization", None)
                if urlsplit(url).scheme == "http" and not endpoint.is_insecure and not is_foreign:
                    raise Unavailable(f"{endpoint.host} leads to {shown(url)}, which has no TLS: refused")
                if not is_inside and (address := hosts.address_of(hosts.host_name(urlsplit(url).netloc))):
                    check_public(str(address))
            async with self._exchange(
                method, url, endpoint=endpoint, headers=sent, body=body, is_inside=is_inside
            ) as answer:
                location = answer.headers.get("Location", "")
                if answer.status not in _REDIRECTS or method not in ("GET", "HEAD") or not location:
                    yield answer
                    return
                url = urljoin(url, location)
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
                raise Unavailable(f"{endpoint.host} redirects to something that is no web address: refused")
        raise Unavailable(f"{endpoint.host}: more than {MAX_REDIRECTS} redirects")

    @asynccontextmanager
    async def _exchange(
        self, method: str, url: str, *, endpoint: Endpoint, headers: Mapping[str, str], body: Body, is_inside: bool
    ) -> AsyncIterator[Answer]:
        import aiohttp
        from yarl import URL

        proxy = hosts.proxy_for(url, self.options.environment)
        is_own = hosts.origin(url) == hosts.origin(endpoint.base)
        context = None
        if urlsplit(url).scheme == "https":
            context = self._context(urlsplit(url).netloc, is_verified=endpoint.is_verified or not is_own)
            if not is_own and hosts.is_insecure(urlsplit(url).netloc, self.options):
                context = self._context(urlsplit(url).netloc, is_verified=False)
        session = self._opened()
        # A kept connection was allowed when it was made, whatever asks now; the resolver only sees new ones.
        mark = _only_public.set(not is_inside and not is_own and proxy is None)
        try:
            with _translated(url):
                response = await session.request(
                    method,
                    URL(url, encoded=True),
                    headers=headers,
                    data=body() if callable(body) else body or None,
                    proxy=proxy,
                    ssl=context if context is not None else True,
                    allow_redirects=False,
                )
        finally:
            _only_public.reset(mark)
        assert isinstance(response, aiohttp.ClientResponse)
        is_read = False
        try:
            yield Answer(response, url)
            is_read = response.content.at_eof()
        finally:
            if is_read:
                response.release()
            else:
                response.close()

    def _context(self, host: str, *, is_verified: bool) -> ssl.SSLContext:
        key = (host, is_verified)
        if key not in self._contexts:
            self._contexts[key] = _make_context(host, self.options, is_verified=is_verified)
        return self._contexts[key]


def _make_context(host: str, options: RegistryOptions, *, is_verified: bool) -> ssl.SSLContext:
    """TLS for a host, with the certificates the administrator laid down for it. Raises InternalError for wrong ones."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    name = host if "/" not in host and host not in ("", ".", "..") else ""
    for place in options.certificates:
        directory = place / name
        if not name or not directory.is_dir():
            continue
        try:
            for file in sorted(directory.glob("*.crt")):
                context.load_verify_locations(cafile=file)
            for file in sorted(directory.glob("*.cert")):
                context.load_cert_chain(file, file.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            raise InternalError(f"cannot read the certificates in {directory}: {error}") from None
        break
    return context


def is_private(host: str) -> bool:
    """Whether the registry itself is named by an address that is not public."""
    address = hosts.address_of(hosts.host_name(host))
    return address is not None and not address.is_global


def check_public(text: str) -> None:
    """Raise Unavailable for an address a public registry has no business with."""
    address = hosts.address_of(text)
    if address is not None and (not address.is_global or address.is_multicast):
        raise Unavailable(f"a public registry leads to {address}, which is not a public address: refused")


async def pause(seconds: float) -> None:
    """Wait before the next attempt."""
    await asyncio.sleep(seconds)


__all__ = ["Answer", "Body", "Transport", "Unreachable", "check_public", "pause", "shown"]
