"""The engine's TLS and the command line's, against each other on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tare.client import tls as client_tls
from tare.client.errors import ConnectionFailed
from tare.client.host import TlsFiles
from tare.testing.pki import Authority
from tare.web import tls
from tare.web.guard import Guard
from tare.web.message import Answer, Peer, Request, Response, Upgrade
from tare.web.server import Server, ServerOptions, error_response
from tare.wire.errors import status_of, text_of


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    found = Authority(tmp_path_factory.mktemp("pki"))
    found.sign("server")
    found.sign("alice")
    return found


def files(pki: Authority, name: str = "alice", authority: str = "ca") -> TlsFiles:
    return TlsFiles(
        authority=str(pki.pem(authority)) if authority else "",
        certificate=str(pki.pem(name)) if name else "",
        key=str(pki.key(name)) if name else "",
    )


def handler(request: Request) -> Response | Awaitable[Answer]:
    if request.path == "/echo":
        return upgraded(request)
    return Response(body=f"{request.user}".encode(), content_type="text/plain")


async def upgraded(_: Request) -> Answer:
    async def run(peer: Peer) -> None:
        size = 0
        while data := await peer.read():
            size += len(data)
            await peer.write(data)
        await peer.write(b"end %d" % size)

    return Upgrade(run)


def serving(pki: Authority, talk: Callable[[int], None], **options: int) -> None:
    """Run `talk` with the port of a TLS server, in a thread."""

    async def main() -> None:
        server = Server(
            ServerOptions(
                handler=handler,
                error=lambda error: error_response(error, status=status_of(error), text=text_of(error)),
                **options,
            )
        )
        bound = socket.create_server(("127.0.0.1", 0))
        context = tls.server_context(
            certificate=str(pki.pem("server")), key=str(pki.key("server")), authority=str(pki.pem("ca"))
        )
        await server.listen(bound, guard=Guard(frozenset({"localhost"}), "https"), tls=context)
        try:
            await asyncio.wait_for(asyncio.to_thread(talk, bound.getsockname()[1]), 20)
        finally:
            server.close()

    asyncio.run(main())


def opened(port: int, given: TlsFiles, name: str = "localhost") -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", port))
    return client_tls.wrap(raw, given, name)  # type: ignore[arg-type]


def whole(connection: socket.socket) -> bytes:
    with connection:
        connection.settimeout(10)
        pieces: list[bytes] = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_the_handler_learns_whose_certificate_it_was(pki: Authority) -> None:
    def talk(port: int) -> None:
        connection = opened(port, files(pki))
        connection.sendall(GET)
        assert b"cert=alice from=127.0.0.1:" in whole(connection)

    serving(pki, talk)


def test_both_ends_half_close(pki: Authority) -> None:
    """All that was sent comes back, and then what is said only after the client's end."""
    data = bytes(range(256)) * 8192

    def talk(port: int) -> None:
        connection = opened(port, files(pki))
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n")

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        answer = whole(connection)
        sender.join()
        assert answer.partition(b"\r\n\r\n")[2] == data + b"end %d" % len(data)

    serving(pki, talk)


@pytest.mark.parametrize("kind", ["none", "foreign", "plain"])
def test_who_is_not_known_is_not_heard(pki: Authority, tmp_path: Path, kind: str) -> None:
    if kind == "foreign":
        other = Authority(tmp_path, "other")
        other.sign("mallory")
        given = TlsFiles(
            authority=str(pki.pem("ca")), certificate=str(other.pem("mallory")), key=str(other.key("mallory"))
        )
    else:
        given = files(pki, name="")

    def talk(port: int) -> None:
        if kind == "plain":
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(GET)
                assert b"HTTP" not in whole(raw)
            return
        answer = b""
        with contextlib.suppress(ConnectionFailed, OSError):  # TLS 1.3: refused with the first answer, or at once
            connection = opened(port, given)
            connection.sendall(GET)
            answer = whole(connection)
        assert answer == b""

    serving(pki, talk)


def test_an_engine_that_is_not_verified_is_not_spoken_to(pki: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")

    def talk(port: int) -> None:
        with pytest.raises(ConnectionFailed, match="TLS with localhost"):
            opened(port, TlsFiles(authority=str(other.pem("other")), certificate="", key=""))
        with pytest.raises(ConnectionFailed, match="TLS with another"):
            opened(port, files(pki), name="another")

    serving(pki, talk)


def test_more_clients_than_allowed_are_turned_away(pki: Authority) -> None:
    def talk(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as idle:  # one that never shakes hands counts too
            connection = opened(port, files(pki))
            with connection:
                connection.sendall(GET.replace(b"Connection: close\r\n", b""))
                assert connection.recv(10)
                with pytest.raises((ConnectionFailed, OSError)):
                    opened(port, files(pki))
            assert idle.fileno() > 0

    serving(pki, talk, max_tcp_connections=2)


def test_who_never_shakes_hands_is_dropped(pki: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_S", 0.05)

    def talk(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as idle:
            idle.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert idle.recv(1) == b""

    serving(pki, talk)


def test_files_that_are_no_certificates(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nothing")
    with pytest.raises(ssl.SSLError):
        tls.server_context(certificate=str(tmp_path / "x"), key=str(tmp_path / "x"), authority="")
