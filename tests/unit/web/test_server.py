"""The server on a real unix socket: framing, keep-alive, streaming, half-close, upgrades, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tare.base.errors import ClientGone, NotFound
from tare.web import server
from tare.web.message import Answer, Feed, Peer, Request, Response, Sink, Stream, Upgrade
from tare.web.server import Server, ServerOptions, error_response, unix_socket
from tare.wire.errors import status_of, text_of

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Handler = Callable[[Request], Response | Awaitable[Answer]]


def serve(tmp_path: Path, handler: Handler, talk: Talk, **options: object) -> None:
    """Run `talk` as a client of a server with `handler`."""

    async def main() -> None:
        serving = Server(
            ServerOptions(
                handler=handler,
                error=lambda error: error_response(error, status=status_of(error), text=text_of(error)),
                headers={"Api-Version": "1.51"},
                **options,  # type: ignore[arg-type]
            )
        )
        path = str(tmp_path / "s")
        await serving.listen(unix_socket(path, group=None))
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            await asyncio.wait_for(talk(reader, writer), 10)
        finally:
            writer.close()
            serving.close()

    asyncio.run(main())


async def head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    raw = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = raw.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    return int(lines[0].split()[1]), headers


async def echo(request: Request) -> Answer:
    return Response(body=await request.body.read(1 << 20), content_type="text/plain")


def test_answers_and_keeps_the_connection(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for text in (b"one", b"three"):
            writer.write(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
            status, headers = await head(reader)
            assert status == 200
            assert headers["Api-Version"] == "1.51"
            assert await reader.readexactly(int(headers["Content-Length"])) == text

    serve(tmp_path, echo, talk)


def test_chunked_body_in_pieces(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab")
        await writer.drain()
        writer.write(b"c\r\n2\r\nde\r\n0\r\n\r\n")
        _, headers = await head(reader)
        assert await reader.readexactly(int(headers["Content-Length"])) == b"abcde"

    serve(tmp_path, echo, talk)


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(b"POST /x HTTP/1.1\r\nContent-Length: 1\r\n\r\n%d" % n for n in range(5)))
        for n in range(5):
            _, headers = await head(reader)
            assert await reader.readexactly(int(headers["Content-Length"])) == b"%d" % n

    serve(tmp_path, echo, talk)


@pytest.mark.parametrize("version_and_header", [b"1.1\r\nConnection: close", b"1.0", b"1.1\r\nConnection: x, Close"])
def test_a_client_that_wants_the_connection_closed_gets_that(tmp_path: Path, version_and_header: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /x HTTP/" + version_and_header + b"\r\n\r\n")
        assert b"Connection: close" in await reader.read()

    serve(tmp_path, echo, talk)


def test_expect_continue_is_answered_when_the_body_is_wanted(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /x HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await head(reader))[0] == 100
        writer.write(b"ok")
        assert (await head(reader))[0] == 200

    serve(tmp_path, echo, talk)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"rubbish\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 70000 + b"\r\n\r\n",
    ],
)
def test_ambiguous_or_malformed_requests_are_refused_and_cut(tmp_path: Path, request_bytes: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request_bytes)
        status, headers = await head(reader)
        assert status in (400, 431)
        assert headers["Connection"] == "close"
        body = await reader.read()
        assert b'{"message":' in body

    serve(tmp_path, echo, talk)


def test_errors_have_dockers_body(tmp_path: Path) -> None:
    async def handler(_: Request) -> Answer:
        raise NotFound("No such container: web")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        status, headers = await head(reader)
        assert status == 404
        assert headers["Content-Type"] == "application/json"
        body = await reader.readexactly(int(headers["Content-Length"]))
        assert body == b'{"message":"No such container: web"}\n'

    serve(tmp_path, handler, talk)


def test_stream_sends_its_headers_before_the_first_chunk(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def handler(_: Request) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            await release.wait()
            yield b"late"

        return Stream(chunks())

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        status, headers = await head(reader)
        assert (status, headers["Transfer-Encoding"]) == (200, "chunked")
        release.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"4\r\nlate\r\n0\r\n\r\n"

    serve(tmp_path, handler, talk)


def test_a_client_that_leaves_closes_the_stream(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def handler(_: Request) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await asyncio.Event().wait()
            finally:
                closed.set()

        return Stream(chunks())

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"first\r\n")
        writer.close()
        await closed.wait()

    serve(tmp_path, handler, talk)


def test_a_feed_is_written_from_where_its_news_arise(tmp_path: Path) -> None:
    sinks: list[Sink] = []
    end = asyncio.Event()

    async def handler(_: Request) -> Answer:
        async def run(sink: Sink) -> None:
            sinks.append(sink)
            await end.wait()

        return Feed(run)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        status, headers = await head(reader)
        assert (status, headers["Transfer-Encoding"]) == (200, "chunked")
        assert sinks[0].push([b"news"])
        assert await reader.readexactly(9) == b"4\r\nnews\r\n"
        end.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"
        writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        assert (await head(reader))[0] == 200

    serve(tmp_path, handler, talk)


def test_a_feed_takes_nothing_more_for_a_slow_client_and_goes_on_when_it_reads(tmp_path: Path) -> None:
    taken = 0
    piece = b"x" * 10_000
    is_behind = asyncio.Event()

    async def handler(_: Request) -> Answer:
        async def run(sink: Sink) -> None:
            nonlocal taken
            while sink.push([piece]):
                taken += 1
                await asyncio.sleep(0)
            is_behind.set()
            await sink.send(b"rest")

        return Feed(run)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        await is_behind.wait()
        assert taken < 200  # a socket's buffer, the reader's, and 64 KiB
        await head(reader)
        body = b""
        while not body.endswith(b"4\r\nrest\r\n0\r\n\r\n"):
            body += await reader.read(1 << 16)
        assert body.count(piece) == taken

    serve(tmp_path, handler, talk)


def test_a_feed_given_up_is_cut_without_an_end(tmp_path: Path) -> None:
    async def handler(_: Request) -> Answer:
        async def run(sink: Sink) -> None:
            sink.push([b"half"])
            await asyncio.sleep(0)
            raise ClientGone("it does not read")

        return Feed(run)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        assert not (await reader.read()).endswith(b"0\r\n\r\n")

    serve(tmp_path, handler, talk)


def test_half_close_is_not_disconnect_but_closing_is(tmp_path: Path) -> None:
    go_on, gone = asyncio.Event(), asyncio.Event()

    async def handler(_: Request) -> Answer:
        async def run(peer: Peer) -> None:
            assert await peer.read() == b""
            await go_on.wait()
            await peer.write(b"still here")
            await peer.gone()
            gone.set()

        return Upgrade(run)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        status, headers = await head(reader)
        assert (status, headers["Upgrade"]) == (101, "tcp")
        writer.write_eof()
        go_on.set()
        assert await reader.readexactly(10) == b"still here"
        writer.close()
        await gone.wait()

    serve(tmp_path, handler, talk)


def test_upgrade_keeps_what_came_with_the_request(tmp_path: Path) -> None:
    async def handler(request: Request) -> Answer:
        sent = await request.body.read(100)

        async def run(peer: Peer) -> None:
            await peer.write(sent + b"|" + await peer.read())

        return Upgrade(run)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}early")
        assert (await head(reader))[0] == 101
        assert await reader.read() == b"{}|early"

    serve(tmp_path, handler, talk)


def test_hijack_without_upgrade_header_answers_200_unframed(tmp_path: Path) -> None:
    async def handler(_: Request) -> Answer:
        async def run(peer: Peer) -> None:
            await peer.write(b"raw")

        return Upgrade(run)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /x HTTP/1.1\r\n\r\n")
        status, headers = await head(reader)
        assert (status, headers["Content-Type"]) == (200, "application/vnd.docker.raw-stream")
        assert await reader.read() == b"raw"

    serve(tmp_path, handler, talk)


def test_no_payload_shares_a_segment_with_the_101(tmp_path: Path) -> None:
    """docker-py drops what arrives together with the headers: payload waits until they were read."""

    async def handler(_: Request) -> Answer:
        async def run(peer: Peer) -> None:
            await peer.write(b"payload")

        return Upgrade(run)

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "s"))
        sock.sendall(b"POST /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        first = await asyncio.to_thread(sock.recv, 65536)
        assert first.endswith(b"\r\n\r\n")
        assert await asyncio.to_thread(sock.recv, 65536) == b"payload"
        sock.close()

    serve(tmp_path, handler, talk)


def test_a_body_that_breaks_off_reaches_the_handler(tmp_path: Path) -> None:
    seen: list[type[BaseException]] = []

    async def handler(request: Request) -> Answer:
        try:
            await request.body.read(100)
        except ClientGone as error:
            seen.append(type(error))
            raise
        return Response()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /x HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
        writer.write_eof()
        assert await reader.read() == b""

    serve(tmp_path, handler, talk)
    assert seen == [ClientGone]


@pytest.mark.parametrize("spare", [0, 9])
def test_too_many_connections_are_turned_away_but_for_short_requests(
    tmp_path: Path, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_BRIEF", spare)

    async def handler(request: Request) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"begun"
            await asyncio.Event().wait()

        return Stream(chunks(), is_endless=True) if request.path == "/events" else Response(body=b"short")

    async def ask(path: str) -> tuple[int, str]:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b"GET %b HTTP/1.1\r\n\r\n" % path.encode())
        status, headers = await head(reader)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()  # to the end: it is closed
        writer.close()
        return status, headers["Connection"]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /events HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"begun")
        assert await ask("/events") == (503, "close")
        assert await ask("/x") == (200 if spare else 503, "close")

    serve(tmp_path, handler, talk, max_connections=1)


@pytest.mark.parametrize("sent", [b"", b"GET /x HT", b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"])
def test_who_keeps_us_waiting_makes_room_for_others(tmp_path: Path, sent: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await asyncio.sleep(0)
        other, its_writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        its_writer.write(b"GET /x HTTP/1.1\r\n\r\n")
        assert (await head(other))[0] == 200
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        its_writer.close()

    serve(tmp_path, echo, talk, max_connections=1)


def test_descriptors_are_kept_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.close(next_one := os.dup(0))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (next_one + 20, 1000))  # clients get what is kept back

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await head(reader))[0] == 503
        writer.close()

    serve(tmp_path, echo, talk)


def test_a_body_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_TIMEOUT_S", 0.05)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf")
        assert (await head(reader))[0] == 400
        assert b"did not come within" in await reader.read()

    serve(tmp_path, echo, talk)


def test_socket_is_private_and_live_ones_are_respected(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = unix_socket(str(path), group=None)
    assert path.stat().st_mode & 0o777 == 0o660
    first.listen(1)
    with pytest.raises(OSError, match="another process"):
        unix_socket(str(path), group=None)
    first.close()
    unix_socket(str(path), group=None).close()


def at_once(request: Request) -> Response:
    return Response(body=request.query.text("n").encode() + request.query.text("fill").encode() * 100_000)


def test_what_is_known_at_once_is_answered_in_order(tmp_path: Path) -> None:
    """More requests in one piece than are answered in one turn, among them one that has to wait."""

    def handler(request: Request) -> Response | Awaitable[Answer]:
        return echo(request) if request.method == "POST" else at_once(request)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = [b"GET /x?n=%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(200)]
        asked[100] = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n100"
        writer.write(b"".join(asked))
        for number in range(200):
            status, headers = await head(reader)
            assert status == 200
            assert int(await reader.readexactly(int(headers["Content-Length"]))) == number

    serve(tmp_path, handler, talk)


def test_what_is_known_at_once_waits_for_a_slow_client(tmp_path: Path) -> None:
    answered = 0

    def handler(request: Request) -> Response:
        nonlocal answered
        answered += 1
        return at_once(request)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /x?n=7&fill=x HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        await head(reader)
        assert answered < 60  # 1 MiB is let go unread, and what lies in the sockets
        for _ in range(99):
            await reader.readexactly(100_001)
            await head(reader)
        assert answered == 100

    serve(tmp_path, handler, talk)


def test_a_plain_handler_may_fail(tmp_path: Path) -> None:
    def handler(_: Request) -> Response:
        raise NotFound("No such container: web")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        for _ in range(2):
            status, headers = await head(reader)
            assert status == 404
            await reader.readexactly(int(headers["Content-Length"]))

    serve(tmp_path, handler, talk)


def test_who_still_sends_gets_the_answer(tmp_path: Path) -> None:
    """An answer before the request's end is read by a client that goes on sending, and then the connection closes."""

    async def refuse(request: Request) -> Answer:
        async for _ in request.body:
            break
        raise NotFound("no room")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = 8 << 20
        writer.write(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // (1 << 20)):
            writer.write(bytes(1 << 20))
            await writer.drain()  # raises where the other side has closed
        status, headers = await head(reader)
        assert (status, headers["Connection"]) == (404, "close")
        assert b"no room" in await reader.read()

    serve(tmp_path, refuse, talk)
