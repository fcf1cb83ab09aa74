from __future__ import annotations

import os
import socket
import threading

import pytest

from tare.cli import streams
from tare.client.errors import ConnectionFailed
from tare.client.host import parse
from tare.client.http import Connection


@pytest.mark.parametrize(
    ("text", "keys"), [("", b"\x10\x11"), ("ctrl-a,b", b"\x01b"), ("ctrl-@,ctrl-[", b"\x00\x1b"), ("q", b"q")]
)
def test_detach_bytes(text: str, keys: bytes) -> None:
    assert streams.detach_bytes(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-A", "ab", "ctrl-1"])
def test_detach_bytes_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="Unknown character"):
        streams.detach_bytes(text)


def test_detach_keys_hold_back_a_started_sequence() -> None:
    keys = streams.DetachKeys(b"\x10\x11")
    assert keys.feed(b"ab\x10") == (b"ab", False)
    assert keys.feed(b"c") == (b"\x10c", False)
    assert keys.feed(b"\x10\x10\x11z") == (b"\x10", True)


def test_demultiplexer_takes_frames_apart_wherever_they_are_cut() -> None:
    data = b"\x01\0\0\0\0\0\0\x02ab\x02\0\0\0\0\0\0\x01c"
    whole = streams.Demultiplexer().feed(data)
    assert whole == [(1, b"ab"), (2, b"c")]
    slow = streams.Demultiplexer()
    assert [piece for i in range(len(data)) for piece in slow.feed(data[i : i + 1])] == whole
    assert not slow.unfinished


def test_demultiplexer_raises_the_engines_error() -> None:
    with pytest.raises(ConnectionFailed, match="error from daemon in stream: why"):
        streams.Demultiplexer().feed(b"\x03\0\0\0\0\0\0\x03why")
    with pytest.raises(ConnectionFailed, match="Unrecognized input header: 9"):
        streams.Demultiplexer().feed(b"\x09\0\0\0\0\0\0\0")


def test_pump_without_stdin_half_closes_at_once_and_shows_everything(capfd: pytest.CaptureFixture[str]) -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, parse("/x"))
    connection.buffer = b"\x01\0\0\0\0\0\0\x02hi"

    def engine() -> None:
        assert theirs.recv(10) == b""  # the half-close
        theirs.sendall(b"\x02\0\0\0\0\0\0\x03err")
        theirs.close()

    thread = threading.Thread(target=engine)
    thread.start()
    assert streams.pump(connection, stdin=False, multiplexed=True) is False
    thread.join(10)
    connection.close()
    assert capfd.readouterr() == ("hi", "err")


def test_signals_are_delivered_from_the_loop() -> None:
    import signal

    seen: list[int] = []
    with streams.Signals([signal.SIGUSR1], seen.append) as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        signals.deliver()
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
