from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.web import heads
from tare.web.heads import HeadReader, parse_head


def head(*lines: str, first: str = "GET /a/b?x=1&y= HTTP/1.1") -> bytes:
    return "\r\n".join([first, *lines, "", ""]).encode()


def test_what_a_head_says() -> None:
    found = parse_head(head("Host: h", "X-A: 1", "x-a: 2", "Content-Length: 12", "Expect: 100-Continue"))
    assert (found.method, found.path, found.query.text("x"), found.query.has("y")) == ("GET", "/a/b", "1", True)
    assert found.headers == {"host": "h", "x-a": "1, 2", "content-length": "12", "expect": "100-Continue"}
    assert (found.length, found.is_chunked, found.keeps_alive, found.expects_continue) == (12, False, True, True)


def test_of_two_content_types_the_first_counts() -> None:
    """As Go reads them: bollard, the client of Rust programs, sends two with every tar."""
    found = parse_head(head("Host: h", "Content-Type: application/json", "Content-Type: application/x-tar"))
    assert found.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("first", "path"),
    [("GET http://h:1/p HTTP/1.1", "/p"), ("GET http://h HTTP/1.1", "/"), ("OPTIONS * HTTP/1.1", "/*")],
)
def test_targets_that_are_not_paths(first: str, path: str) -> None:
    assert parse_head(head("Host: h", first=first)).path == path


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        ("1.1", "", True),
        ("1.1", "Close", False),
        ("1.0", "", False),
        ("1.0", "Keep-Alive", True),
        ("1.1", "a, close", False),
    ],
)
def test_who_keeps_the_connection(version: str, connection: str, keeps: bool) -> None:
    lines = ["Host: h", *([f"Connection: {connection}"] if connection else [])]
    assert parse_head(head(*lines, first=f"GET / HTTP/{version}")).keeps_alive is keeps


@pytest.mark.parametrize(
    "lines",
    [
        ("Host: h", "Host: h"),
        ("Content-Length: 1", "Content-Length: 1"),
        ("Content-Length: 1", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip, chunked",),
        ("Content-Length: +1",),
        ("Content-Length: 9999999999999999999",),
        ("A: b", " folded"),
        ("no colon",),
    ],
)
def test_heads_that_two_readers_could_read_in_two_ways_are_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument):
        parse_head(head(*lines))


def test_the_same_head_is_read_once() -> None:
    reader = HeadReader()
    first = reader.read(head("Host: h"))
    assert reader.read(head("Host: h")) is first
    assert reader.read(head("Host: other")) is not first


def test_credentials_and_long_heads_are_not_kept() -> None:
    reader = HeadReader()
    for line in ("Authorization: Basic eA==", "X-Registry-Auth: eA==", "A: " + "x" * 2000):
        raw = head("Host: h", line)
        assert reader.read(raw) is not reader.read(raw)


def test_only_the_last_heads_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "_KEPT", 2)
    reader = HeadReader()
    first = reader.read(head("Host: 0"))
    for number in range(1, 3):
        reader.read(head(f"Host: {number}"))
    assert reader.read(head("Host: 0")) is not first
