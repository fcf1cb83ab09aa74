"""Records made lines, lines made syslog and journal messages."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tare.base.errors import InvalidArgument
from tare.containers.logforward import (
    Assembler,
    Line,
    Syslog,
    journal_fields,
    journal_message,
    journal_name,
    syslog_message,
    syslog_of,
)

STAMP = "2026-11-24T00:25:33.350861999+00:00"
AT = 1795479933_350861999


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def record(text: str, *, flag: str = "F", stream: str = "stdout") -> bytes:
    return f"{STAMP} {stream} {flag} {text}\n".encode()


def test_records_become_lines() -> None:
    assembler = Assembler()
    block = record("a") + record("e", stream="stderr")
    assert assembler.feed(block, (0, 0)) == [Line(1, AT, b"a"), Line(2, AT, b"e")]
    assert assembler.safe((0, len(block))) == (0, len(block))


def test_what_is_open_holds_the_place() -> None:
    assembler = Assembler()
    first = record("whole")
    assert assembler.feed(first + record("he", flag="P"), (0, 100)) == [Line(1, AT, b"whole")]
    assert assembler.feed(record("e", stream="stderr"), (0, 300)) == [Line(2, AT, b"e")]
    assert assembler.safe((0, 400)) == (0, 100 + len(first))
    assert assembler.feed(record("l", flag="P"), (1, 0)) == []
    assert assembler.safe((1, 50)) == (0, 100 + len(first)), "the line began in the file before"
    assert assembler.feed(record("lo"), (1, 50)) == [Line(1, AT, b"hello")]
    assert assembler.safe((1, 90)) == (1, 90)


def test_a_line_without_an_end() -> None:
    assembler = Assembler()
    long = [line for _ in range(5) for line in assembler.feed(record("x" * 8000, flag="P"), (0, 0))]
    assert [(len(line.text), line.is_partial) for line in long] == [(24000, True)]
    assert assembler.flush() == [Line(1, AT, b"x" * 16000)]
    assert assembler.flush() == []
    assert assembler.feed(b"rubbish\n", (0, 0)) == []


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({}, Syslog()),
        ({"syslog-address": "udp://h"}, Syslog(scheme="udp", host="h")),
        ({"syslog-address": "tcp://[::1]:99"}, Syslog(scheme="tcp", host="::1", port=99)),
        ({"syslog-address": "tcp+tls://h:6514"}, Syslog(scheme="tcp+tls", host="h", port=6514)),
        ({"syslog-address": "unixgram:///dev/log"}, Syslog(scheme="unixgram", host="/dev/log")),
        ({"syslog-facility": "local3", "syslog-format": "rfc5424"}, Syslog(facility=19, format="rfc5424")),
        ({"syslog-facility": "0", "syslog-tls-skip-verify": "1"}, Syslog(facility=0, skips_verify=True)),
    ],
)
def test_options(options: dict[str, str], target: Syslog) -> None:
    assert syslog_of(options) == target


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("syslog-address", "ftp://x", "syslog-address should be in form proto://address, got ftp://x"),
        ("syslog-address", "x", "syslog-address should be in form proto://address, got x"),
        ("syslog-address", "udp://h:99999", "syslog-address should be in form"),
        ("syslog-address", "udp://", "syslog-address should be in form"),
        ("syslog-facility", "foo", "invalid syslog facility"),
        ("syslog-facility", "24", "invalid syslog facility"),
        ("syslog-facility", "-", "invalid syslog facility"),
        ("syslog-format", "foo", "Invalid syslog format"),
    ],
)
def test_wrong_options(name: str, value: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        syslog_of({name: value})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Syslog(), b"<30>Nov 24 00:25:33 t[7]: hi\n"),
        (Syslog(facility=19, format="rfc3164"), b"<158>Nov 24 00:25:33 host t[7]: hi\n"),
        (Syslog(facility=19, format="rfc5424"), b"<158>1 2026-11-24T00:25:33Z host t 7 t - hi\n"),
        (Syslog(facility=19, format="rfc5424micro"), b"<158>1 2026-11-24T00:25:33.350861Z host t 7 t - hi\n"),
        (Syslog(scheme="tcp+tls", format="rfc5424"), b"43 <30>1 2026-11-24T00:25:33Z host t 7 t - hi\n"),
        (Syslog(scheme="tcp+tls"), b"<30>Nov 24 00:25:33 t[7]: hi\n"),
    ],
)
def test_syslog_messages_are_dockerds(target: Syslog, message: bytes) -> None:
    """The first four were seen on the wire of dockerd 20.10."""
    assert syslog_message(Line(1, AT, b"hi"), target, tag="t", hostname="host", pid=7) == message


def test_stderr_is_an_error() -> None:
    assert syslog_message(Line(2, AT, b"x"), Syslog(), tag="t", hostname="h", pid=7).startswith(b"<27>")
    assert b"\nPRIORITY=3\n" in journal_message(Line(2, AT, b"x"), {})


def test_journal_messages() -> None:
    message = journal_message(Line(1, AT, b"hi", is_partial=True), {"CONTAINER_NAME": "web", "NOTE": "two\nlines"})
    assert message == (
        b"MESSAGE=hi\nCONTAINER_NAME=web\nNOTE\n\x09\0\0\0\0\0\0\0two\nlines\nPRIORITY=6\n"
        b"SYSLOG_TIMESTAMP=2026-11-24T00:25:33.350861999Z\nCONTAINER_PARTIAL_MESSAGE=true\n"
    )


@pytest.mark.parametrize(
    ("key", "name"), [("com.example/a-b", "COM_EXAMPLE_A_B"), ("_1x", "X"), ("é", ""), ("9", ""), ("x" * 99, "X" * 64)]
)
def test_journal_names(key: str, name: str) -> None:
    assert journal_name(key) == name


def test_no_label_takes_the_place_of_a_fact() -> None:
    facts = {"ID": "1", "FullID": "12", "Name": "web", "ImageName": "i"}
    fields = journal_fields(facts, tag="t", attributes={"container_name": "lie", "mine": "x", "9": "dropped"})
    assert fields["CONTAINER_NAME"] == "web"
    assert fields["MINE"] == "x"
    assert "" not in fields
    assert fields["SYSLOG_IDENTIFIER"] == fields["CONTAINER_TAG"] == "t"
