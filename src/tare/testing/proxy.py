"""An HTTP proxy in the test's own process: it leads every name to where the test says, and remembers what it was asked.

CONNECT is a tunnel; a request with a whole URL is passed on as it is, without keeping the connection.
"""

from __future__ import annotations

import base64
import select
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

_PATIENCE_S = 20
_HEAD = 64 * 1024


@dataclass(frozen=True)
class Asked:
    """One request: its first line and whether it said who asks."""

    method: str
    target: str
    is_known: bool


class Proxy:
    """See the module. places: `host:port` → address and port. user, password: what it wants, "" for nothing."""

    def __init__(self, places: Mapping[str, tuple[str, int]], *, user: str = "", password: str = "") -> None:
        self.places = places
        self.secret = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self.log: list[Asked] = []
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            """Bound to this proxy."""

            def handle(self) -> None:
                with suppress(OSError):
                    proxy.serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """127.0.0.1:PORT."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_PATIENCE_S)

    def serve(self, client: socket.socket) -> None:
        """One connection."""
        client.settimeout(_PATIENCE_S)
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _HEAD:
            piece = client.recv(4096)
            if not piece:
                return
            head += piece
        head, _, rest = head.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
        is_known = not self.secret or f"proxy-authorization: basic {self.secret}".lower() in map(str.lower, lines)
        self.log.append(Asked(method, target, is_known))
        if not is_known:
            client.sendall(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        place = self.places.get(f"{parts.hostname}:{parts.port or 80}")
        if place is None:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with socket.create_connection(place, _PATIENCE_S) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                server.sendall(rest)
            else:
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                kept.append("Connection: close")
                server.sendall("\r\n".join([f"{method} {path} {version}", *kept, "", ""]).encode("latin-1") + rest)
            pump(client, server)


def pump(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes on in both directions until one side ends."""
    while True:
        ready, _, _ = select.select([one, other], [], [], _PATIENCE_S)
        if not ready:
            return
        for source in ready:
            data = source.recv(64 * 1024)
            if not data:
                return
            (other if source is one else one).sendall(data)


@contextmanager
def proxy(places: Mapping[str, tuple[str, int]], **options: str) -> Iterator[Proxy]:
    """One for the length of a block."""
    made = Proxy(places, **options)
    try:
        yield made
    finally:
        made.close()


__all__ = ["Asked", "Proxy", "proxy"]
