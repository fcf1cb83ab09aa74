from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tare.client import http
from tare.client.errors import ApiError, ConnectionFailed
from tare.client.host import parse


@contextmanager
def scripted(path: Path, *answers: bytes) -> Iterator[tuple[http.Client, list[bytes]]]:
    """A server that reads one request head per answer, on one connection each, and sends the answer verbatim."""
    seen: list[bytes] = []
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        for answer in answers:
            connection, _ = server.accept()
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                while b"chunked" in data and not data.endswith(b"0\r\n\r\n"):
                    data += connection.recv(65536)
                seen.append(data)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield http.Client(parse(str(path)), version="1.51"), seen
    finally:
        thread.join(10)
        server.close()


OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b'Content-Length: 7\r\n\r\n{"a":1}',
        OK + b'Transfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4;x=y\r\n":1}\r\n0\r\n\r\n',
        OK + b'\r\n{"a":1}',
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b'Content-Length: 7\r\n\r\n{"a":1}',
    ],
)
def test_every_framing_of_a_body(tmp_path: Path, answer: bytes) -> None:
    with scripted(tmp_path / "s", answer) as (client, seen):
        assert client.get("/x", query={"b": True, "a": "é", "none": None, "no": False, "many": ["1", "2"]}) == {"a": 1}
    assert seen[0].startswith(b"GET /v1.51/x?a=%C3%A9&b=1&many=1&many=2 HTTP/1.1\r\nHost: localhost\r\n")


def test_a_cut_body_is_an_error(tmp_path: Path) -> None:
    with (
        scripted(tmp_path / "s", OK + b"Content-Length: 70\r\n\r\n{}") as (client, _),
        pytest.raises(ConnectionFailed, match="unexpected EOF"),
    ):
        client.get("/x")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b'Content-Type: application/json\r\nContent-Length: 17\r\n\r\n{"message":"why"}', "why"),
        (b"Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nwhy\n", "why"),
        (b"Content-Length: 0\r\n\r\n", "request returned No for API version 1.51"),
    ],
)
def test_errors_carry_status_and_message(tmp_path: Path, answer: bytes, text: str) -> None:
    with (
        scripted(tmp_path / "s", b"HTTP/1.1 409 No\r\nConnection: close\r\n" + answer) as (client, _),
        pytest.raises(ApiError, match=text) as caught,
    ):
        client.post("/x")
    assert caught.value.status == 409


def test_an_upload_is_chunked(tmp_path: Path) -> None:
    with scripted(tmp_path / "s", OK + b"Content-Length: 2\r\n\r\n{}") as (client, seen):
        assert client.request("POST", "/load", upload=io.BytesIO(b"data")).json() == {}
    assert seen[0].endswith(b"\r\n\r\n4\r\ndata\r\n0\r\n\r\n")
    assert b"Content-Type: application/x-tar" in seen[0]


def test_a_stream_of_documents(tmp_path: Path) -> None:
    with scripted(tmp_path / "s", OK + b'\r\n{"a":1}\n{"b":2}\r\n{"c":3}{"d":4}') as (client, _):
        found = list(client.request("GET", "/events").documents())
    assert found == [{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4}]


def test_hijack_hands_over_early_bytes(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nearly"
    with scripted(tmp_path / "s", answer) as (client, seen):
        connection, kind = client.hijack("/containers/x/attach")
        assert (kind, connection.recv(), connection.recv()) == ("application/vnd.docker.raw-stream", b"early", b"")
        connection.close()
    assert b"Upgrade: tcp" in seen[0]


def test_a_server_that_does_not_upgrade(tmp_path: Path) -> None:
    with (
        scripted(tmp_path / "s", OK + b"Content-Length: 0\r\n\r\n") as (client, _),
        pytest.raises(ConnectionFailed, match="unable to upgrade to tcp, received 200"),
    ):
        client.hijack("/x")


@pytest.mark.parametrize(
    ("theirs", "agreed"), [(b"1.41", "1.41"), (b"1.99", http.VERSION), (b"", http.OLDEST), (b"junk", http.OLDEST)]
)
def test_negotiation_only_goes_down(tmp_path: Path, theirs: bytes, agreed: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nApi-Version: " + theirs + b"\r\nContent-Length: 0\r\n\r\n"
    with scripted(tmp_path / "s", answer) as (client, _):
        client.version = ""
        assert client.negotiate() == agreed


def test_no_engine_is_said_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match=r"Is the tare daemon running\?\nStart it with `tare daemon`"):
        http.Client(parse(str(tmp_path / "nothing"))).get("/x")


def test_percent() -> None:
    assert http.percent("a/b:c é", "/:") == "a/b:c%20%C3%A9"
