"""Standard streams as descriptors: pipes and a terminal."""

from __future__ import annotations

import os
import select
import socket

import pytest

from tare.drivers.runtime.streams import MonitorStreams, PipeStreams, Streams, TerminalStreams, wide_pipe


@pytest.fixture
def pipes() -> tuple[PipeStreams, int, int, int]:
    """Ours, and the ends a process would have: stdin, stdout, stderr."""
    (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = wide_pipe(), wide_pipe(), wide_pipe()
    return PipeStreams(stdin=ours_in, stdout=ours_out, stderr=ours_err), theirs_in, theirs_out, theirs_err


def read_all(streams: Streams) -> list[tuple[int, bytes]]:
    """What can be read now, source by source."""
    found = []
    for fd in streams.sources:
        while select.select([fd], [], [], 0)[0] and (piece := streams.read(fd)) is not None:
            found.append(piece)
    return found


def test_pipes_are_told_apart(pipes: tuple[PipeStreams, int, int, int]) -> None:
    streams, theirs_in, theirs_out, theirs_err = pipes
    os.write(theirs_out, b"out")
    os.write(theirs_err, b"err")
    assert read_all(streams) == [(1, b"out"), (2, b"err")]
    with pytest.raises(BlockingIOError):
        streams.read(streams.sources[0])
    for fd in (theirs_out, theirs_err):
        os.close(fd)
    assert [streams.read(fd) for fd in streams.sources] == [None, None]
    os.close(theirs_in)
    streams.close()
    streams.close()


def test_input_is_taken_until_the_pipe_is_full_and_ends(pipes: tuple[PipeStreams, int, int, int]) -> None:
    streams, theirs_in, *rest = pipes
    given = 0
    while select.select([], [streams.sink], [], 0)[1]:
        given += streams.write(memoryview(b"x" * 100_000))
    with pytest.raises(BlockingIOError):
        streams.write(memoryview(b"x" * 100_000))
    streams.end_input()
    taken = 0
    while data := os.read(theirs_in, 65536):
        taken += len(data)
    assert taken == given > 0
    with pytest.raises(OSError):
        streams.write(memoryview(b"more"))
    for fd in (theirs_in, *rest):
        os.close(fd)
    streams.close()


def test_nobody_reads_the_input(pipes: tuple[PipeStreams, int, int, int]) -> None:
    streams, *theirs = pipes
    for fd in theirs:
        os.close(fd)
    with pytest.raises(BrokenPipeError):
        streams.write(memoryview(b"x"))
    streams.close()


def test_a_terminal_has_one_stream_a_size_and_an_end() -> None:
    ours, theirs = os.openpty()
    streams = TerminalStreams(ours)
    streams.resize(height=33, width=120)
    assert os.get_terminal_size(theirs) == (120, 33)
    os.write(theirs, b"hello\n")
    assert read_all(streams) == [(1, b"hello\r\n")]
    assert streams.write(memoryview(b"typed\n")) == 6
    assert os.read(theirs, 100) == b"typed\n"
    streams.end_input()
    read_all(streams)  # its echo
    os.close(theirs)
    assert streams.read(streams.sources[0]) is None  # EIO of the kernel
    streams.close()
    with pytest.raises(OSError):
        streams.resize(height=1, width=1)


def test_packets_of_a_monitor() -> None:
    ours, monitor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    streams = MonitorStreams(ours)
    monitor.send(b"\x02out")
    monitor.send(b"\x03err")
    assert read_all(streams) == [(1, b"out"), (2, b"err")]
    assert streams.write(memoryview(b"x" * 10_000)) == 8192  # conmon reads no more at once
    assert monitor.recv(20_000) == b"x" * 8192
    streams.end_input()
    assert monitor.recv(10) == b""
    monitor.close()
    assert streams.read(streams.sources[0]) is None
    streams.close()
