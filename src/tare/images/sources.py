"""Bytes from a URL, for `import`: the address is checked after resolution and then used, redirects are checked again.

Refused unless configured: loopback, link-local, private and otherwise special addresses (SECURITY-BASELINE, "Pull,
load, push"). Standard library only; blocking reads happen in threads.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator
from urllib.parse import SplitResult, urljoin, urlsplit

from tare.aio.threads import in_thread
from tare.base.errors import Forbidden, InvalidArgument, NotFound, Unavailable

MAX_REDIRECTS = 5
_READ = 256 * 1024
_CONNECT_TIMEOUT_S = 30


def check_address(text: str, *, allow_private: bool) -> None:
    """Raise Forbidden for an address that is not a public one (unless allowed)."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if not allow_private and (not address.is_global or address.is_multicast):
        raise Forbidden(
            f"{text} is not a public address",
            hint="download the file yourself and import it from standard input",
        )


def _open(url: SplitResult, *, allow_private: bool) -> http.client.HTTPResponse:
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"cannot resolve {host}: {error.strerror or error}") from None
    address = str(found[0][4][0])
    for *_, sockaddr in found:
        check_address(str(sockaddr[0]), allow_private=allow_private)
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(host, port, timeout=_CONNECT_TIMEOUT_S)
        plain = socket.create_connection((address, port), _CONNECT_TIMEOUT_S)
        connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_CONNECT_TIMEOUT_S)
        connection.sock = socket.create_connection((address, port), _CONNECT_TIMEOUT_S)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    connection.request("GET", path, headers={"User-Agent": "tare", "Accept-Encoding": "identity"})
    return connection.getresponse()


def open_url(text: str, *, allow_private: bool) -> http.client.HTTPResponse:
    """The response to a GET, redirects followed. Blocking.

    Raises InvalidArgument (no http or https), Forbidden (private address), NotFound, Unavailable.
    """
    for _ in range(MAX_REDIRECTS + 1):
        url = urlsplit(text)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or "\r" in text or "\n" in text:
            raise InvalidArgument(f"invalid source URL: {text[:200]!r}")
        try:
            response = _open(url, allow_private=allow_private)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(f"cannot download {text[:200]}: {error}") from None
        if response.status in (301, 302, 303, 307, 308):
            text = urljoin(text, response.headers.get("Location", ""))
            response.close()
            continue
        if response.status == 200:
            return response
        response.close()
        kind = NotFound if response.status in (404, 410) else Unavailable
        raise kind(f"cannot download {text[:200]}: {response.status} {response.reason}")
    raise Unavailable(f"cannot download {text[:200]}: more than {MAX_REDIRECTS} redirects")


async def url_chunks(response: http.client.HTTPResponse, *, max_bytes: int, max_seconds: float) -> AsyncIterator[bytes]:
    """The body in chunks. Raises InvalidArgument past a bound, Unavailable for a body cut short."""
    deadline = time.monotonic() + max_seconds
    received = 0
    expected = response.length
    try:
        while True:
            try:
                chunk = await in_thread(response.read1, _READ)
            except (OSError, http.client.HTTPException) as error:
                raise Unavailable(f"download failed: {error}") from None
            if not chunk:
                break
            received += len(chunk)
            if received > max_bytes or time.monotonic() > deadline:
                raise InvalidArgument("the source is larger or slower than allowed")
            yield chunk
        if expected is not None and received < expected:
            raise Unavailable(f"download failed: {received} of {expected} bytes came")
    finally:
        response.close()
