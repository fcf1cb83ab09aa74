"""Standard streams of a container or of a further process in it, as descriptors that one reader waits at.

What is read comes with the number of its stream: 1 is stdout, 2 stderr; a terminal has only the first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
from typing import Protocol

_PACKET = 8192 + 1
_PIECE = 64 * 1024
_PIPE_BYTES = 256 * 1024

Piece = tuple[int, bytes]


class Streams(Protocol):
    """Both directions. All calls return at once; the descriptors are non-blocking."""

    @property
    def sources(self) -> tuple[int, ...]:
        """The descriptors to wait at for output."""

    @property
    def sink(self) -> int:
        """The descriptor to wait at for room for input; only asked after `write` found none."""

    def read(self, fd: int) -> Piece | None:
        """The next piece of one source; None at its end. Raises BlockingIOError."""

    def write(self, data: memoryview) -> int:
        """Give input; how many bytes were taken. Raises BlockingIOError; OSError when nobody reads it any more."""

    def end_input(self) -> None:
        """The input is over."""

    def close(self) -> None:
        """Close every descriptor. Idempotent."""


class MonitorStreams:
    """A connection to conmon: packets of one stream byte (2, 3) and data; what we send is stdin."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    @property
    def sources(self) -> tuple[int, ...]:
        return (self._socket.fileno(),)

    @property
    def sink(self) -> int:
        return self._socket.fileno()

    def read(self, fd: int) -> Piece | None:
        try:
            packet = os.read(fd, _PACKET)
        except BlockingIOError:
            raise
        except OSError:
            return None
        if not packet:
            return None
        return packet[0] - 1, packet[1:]  # conmon counts stdin 1, stdout 2, stderr 3

    def write(self, data: memoryview) -> int:
        return self._socket.send(data[: _PACKET - 1])

    def end_input(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()


class PipeStreams:
    """Our ends of the pipes of a process. Owns them. stdin: -1 for none."""

    def __init__(self, *, stdin: int, stdout: int, stderr: int) -> None:
        self._numbers = {stdout: 1, stderr: 2}
        self._stdin = stdin
        for fd in (stdin, stdout, stderr):
            if fd >= 0:
                os.set_blocking(fd, False)

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(self._numbers)

    @property
    def sink(self) -> int:
        return self._stdin

    def read(self, fd: int) -> Piece | None:
        data = os.read(fd, _PIECE)
        return (self._numbers[fd], data) if data else None

    def write(self, data: memoryview) -> int:
        if self._stdin < 0:
            raise BrokenPipeError
        return os.write(self._stdin, data[:_PIECE])

    def end_input(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def close(self) -> None:
        self.end_input()
        for fd in self._numbers:
            os.close(fd)
        self._numbers = {}


class TerminalStreams:
    """Our side of a pseudo-terminal. Owns the descriptor; closing it hangs the terminal up."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)

    @property
    def sources(self) -> tuple[int, ...]:
        return (self._fd,)

    @property
    def sink(self) -> int:
        return self._fd

    def read(self, fd: int) -> Piece | None:
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            raise
        except OSError:  # EIO: nobody has the other side open any more
            return None
        return (1, data) if data else None

    def write(self, data: memoryview) -> int:
        return os.write(self._fd, data[:_PIECE])

    def end_input(self) -> None:
        """A terminal has no end of input: the keys typed say it."""

    def resize(self, *, height: int, width: int) -> None:
        """Give it a size in characters. Raises OSError when it is closed."""
        if self._fd < 0:
            raise OSError(errno.EBADF, "the terminal is closed")
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def wide_pipe() -> tuple[int, int]:
    """A pipe (read end, write end) with more room than the usual 64 KiB, if the kernel grants it."""
    ends = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:  # beyond fs.pipe-user-pages-soft, or memory is short: the usual size is enough
        pass
    return ends
