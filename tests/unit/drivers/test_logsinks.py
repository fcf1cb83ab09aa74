"""Datagrams, streams, TLS, and the journal's sealed files, against receivers of our own."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tare.drivers.logsinks import Datagrams, Journal, LocalSyslog, Sink, Streams, Tls


def receiver(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(5)
    return sock


async def send_all(sink: Sink, messages: list[bytes]) -> None:
    await sink.connect()
    try:
        await sink.send(messages)
        assert sink.sent == len(messages)
    finally:
        sink.close()


def test_datagrams_over_a_unix_socket_and_udp(tmp_path: Path) -> None:
    with receiver(tmp_path / "s") as sock:
        asyncio.run(send_all(Datagrams(socket.AF_UNIX, str(tmp_path / "s")), [b"a", b"b"]))
        assert [sock.recv(100), sock.recv(100)] == [b"a", b"b"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(5)
        asyncio.run(send_all(Datagrams(socket.AF_INET, udp.getsockname()), [b"a"]))
        assert udp.recv(100) == b"a"


def test_a_slow_reader_of_datagrams_is_waited_for(tmp_path: Path) -> None:
    async def main() -> list[bytes]:
        sending = asyncio.ensure_future(send_all(Datagrams(socket.AF_UNIX, str(tmp_path / "s")), messages))
        got: list[bytes] = []
        while len(got) < len(messages):
            got.append(await asyncio.get_running_loop().run_in_executor(None, sock.recv, 100))
        await sending
        return got

    messages = [b"%d" % number for number in range(3000)]
    with receiver(tmp_path / "s") as sock:
        assert asyncio.run(main()) == messages


def test_a_long_journal_entry_goes_as_a_sealed_file(tmp_path: Path) -> None:
    with receiver(tmp_path / "j") as sock:
        message = b"MESSAGE=" + b"x" * 1_000_000 + b"\n"
        asyncio.run(send_all(Journal(tmp_path / "j"), [b"MESSAGE=short\n", message]))
        assert sock.recv(100) == b"MESSAGE=short\n"
        data, fds, _, _ = socket.recv_fds(sock, 100, 1)
        assert data == b""
        with os.fdopen(fds[0], "rb") as file:
            assert os.pread(file.fileno(), 2_000_000, 0) == message


def test_where_nobody_is(tmp_path: Path) -> None:
    sinks: list[tuple[Sink, str]] = [
        (Journal(tmp_path / "none"), "journald is not enabled on this host"),
        (LocalSyslog([str(tmp_path / "none")]), "Unix syslog delivery error"),
        (Streams(str(tmp_path / "none")), "connect: no such file or directory"),
        (Streams(("127.0.0.1", 1)), "dial tcp 127.0.0.1:1: connect: connection refused"),
    ]
    for sink, message in sinks:
        with pytest.raises(OSError, match=message):
            asyncio.run(sink.connect())
        sink.close()


def test_this_machines_syslog_is_found(tmp_path: Path) -> None:
    with receiver(tmp_path / "log") as sock:
        asyncio.run(send_all(LocalSyslog([str(tmp_path / "none"), str(tmp_path / "log")]), [b"a"]))
        assert sock.recv(100) == b"a"


async def with_server(
    play: Callable[[int], Awaitable[None]], *, tls: ssl.SSLContext | None = None, closes: bool = False
) -> bytes:
    """What a TCP server got until its client hung up."""
    got = b""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        if not closes:
            got = await reader.read(-1)
        writer.close()
        done.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        await play(server.sockets[0].getsockname()[1])
        await asyncio.wait_for(done.wait(), 5)
    return got


def test_streams() -> None:
    async def play(port: int) -> None:
        await send_all(Streams(("127.0.0.1", port)), [b"a\n", b"b" * 100_000 + b"\n", b"c\n"])

    assert asyncio.run(with_server(play)) == b"a\n" + b"b" * 100_000 + b"\nc\n"


def test_a_server_that_hangs_up_is_noticed() -> None:
    async def play(port: int) -> None:
        sink = Streams(("127.0.0.1", port))
        await sink.connect()
        assert sink._reader is not None
        await sink._reader.read()  # the server's end is here
        with pytest.raises(ConnectionResetError):
            await sink.send([b"a"])
        assert sink.sent == 0
        sink.close()

    asyncio.run(with_server(play, closes=True))


def test_tls_believes_only_whom_it_should(tmp_path: Path) -> None:
    key, cert = tmp_path / "key", tmp_path / "cert"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert),
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def tls(*, ca: str = "", skips: bool = False) -> Tls:
        return Tls(ca_cert=ca, cert="", key="", skips_verify=skips)

    async def believed(port: int) -> None:
        for how in (tls(ca=str(cert)), tls(skips=True)):
            await send_all(Streams(("127.0.0.1", port), how), [b"a\n"])

    assert asyncio.run(with_server(believed, tls=context)) == b"a\n"

    async def refused(port: int) -> None:
        with pytest.raises(OSError, match="certificate verify failed"):
            await Streams(("127.0.0.1", port), tls()).connect()
        await send_all(Streams(("127.0.0.1", port), tls(skips=True)), [b"a\n"])

    asyncio.run(with_server(refused, tls=context))
