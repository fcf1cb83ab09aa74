"""The streams of a container on this terminal: raw mode, detach keys, signals, half-close, demultiplexing.

One thread, one poll loop: nothing is lost between threads, and signals arrive as bytes on a pipe. stdin is read only
when everything read before was sent, so a slow container slows whoever feeds it.
Source: ENGINE-API notes W20 to W32.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from tare.client.errors import ApiError, ConnectionFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tare.client.http import Answer, Client, Connection

DEFAULT_DETACH = "ctrl-p,ctrl-q"
PROXIED = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM")
_READ = 64 * 1024
_SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def detach_bytes(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as the bytes a terminal sends. Raises ValueError for a key it cannot send."""
    keys = []
    for word in (text or DEFAULT_DETACH).split(","):
        if len(word) == 1:
            keys.append(ord(word))
        elif word.startswith("ctrl-") and len(word) == 6 and (word[5].isascii() and word[5].islower()):
            keys.append(ord(word[5]) - ord("a") + 1)
        elif word.startswith("ctrl-") and word[5:] in _SPECIAL:
            keys.append(_SPECIAL[word[5:]])
        else:
            raise ValueError(f"Unknown character: '{word}'")
    return bytes(keys)


class DetachKeys:
    """Looks for the detach sequence in what is typed; a started sequence is held back until it is decided."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to send on, and whether the sequence is complete."""
        if not self._keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(out), True
                continue
            out += self._keys[: self._matched]
            self._matched = 0
            if byte == self._keys[0]:
                self._matched = 1
            else:
                out.append(byte)
        return bytes(out), False


class Demultiplexer:
    """Frames of eight bytes of header and a payload, to the descriptors of stdout and stderr."""

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def unfinished(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Complete pieces as (stream, bytes); large payloads come in parts. Raises ConnectionFailed for stream 3."""
        self._buffer += data
        found = []
        at = 0
        while len(self._buffer) - at >= 8:
            stream = self._buffer[at]
            size = int.from_bytes(self._buffer[at + 4 : at + 8], "big")
            if len(self._buffer) - at - 8 < size:
                break
            payload = self._buffer[at + 8 : at + 8 + size]
            at += 8 + size
            if stream == 3:
                raise ConnectionFailed(f"error from daemon in stream: {payload.decode('utf-8', 'replace')}")
            if stream > 2:
                raise ConnectionFailed(f"Unrecognized input header: {stream}")
            found.append((stream, payload))
        self._buffer = self._buffer[at:]
        return found


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, however long whoever reads takes."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


class Signals:
    """Signals as readable bytes while the `with` block lasts; `on_signal(number)` is called from the loop."""

    def __init__(self, numbers: list[int], on_signal: Callable[[int], None]) -> None:
        self._numbers = numbers
        self._on_signal = on_signal
        self._before: dict[int, object] = {}
        self._old_wakeup = -1
        self.fd = -1
        self._write = -1

    def __enter__(self) -> Signals:
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old_wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._numbers:
            self._before[number] = signal.signal(number, _nothing)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self.fd)
        os.close(self._write)

    def deliver(self) -> None:
        """Handle what has arrived."""
        try:
            numbers = os.read(self.fd, 64)
        except BlockingIOError:
            return
        for number in numbers:
            if number in self._before:
                self._on_signal(number)


def _nothing(number: int, frame: FrameType | None) -> None:
    """The work is done in the loop, which the wakeup descriptor wakes."""


class RawTerminal:
    """Standard input without echo, lines or signals while the `with` block lasts; nothing when it is no terminal."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted and os.isatty(0)
        self._before: list[object] | None = None

    def __enter__(self) -> RawTerminal:
        if self._wanted:
            import termios
            import tty

            self._before = termios.tcgetattr(0)
            tty.setraw(0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]


def pump(
    connection: Connection,
    *,
    stdin: bool,
    multiplexed: bool,
    detach: bytes = b"",
    signals: Signals | None = None,
    stdout: bool = True,
    stderr: bool = True,
) -> bool:
    """Carry bytes both ways until the engine closes its side. True when the detach keys were typed."""
    keys = DetachKeys(detach)
    demultiplexer = Demultiplexer() if multiplexed else None
    wanted = {0: stdout, 1: stdout, 2: stderr}
    poll = select.poll()
    sock = connection.sock.fileno()
    connection.sock.setblocking(False)
    pending = b""
    reading = stdin
    if not stdin:
        connection.half_close()
    poll.register(sock, select.POLLIN)
    if stdin:
        poll.register(0, select.POLLIN)
    if signals is not None:
        poll.register(signals.fd, select.POLLIN)

    def show(data: bytes) -> None:
        if demultiplexer is None:
            write_all(1, data)
            return
        for stream, payload in demultiplexer.feed(data):
            if wanted[stream]:
                write_all(2 if stream == 2 else 1, payload)

    if connection.buffer:
        show(connection.recv())
    while True:
        for descriptor, events in poll.poll():
            if signals is not None and descriptor == signals.fd:
                signals.deliver()
            elif descriptor == sock:
                if events & select.POLLOUT and pending:
                    pending = _send(connection, pending)
                    if not pending:
                        poll.modify(sock, select.POLLIN)
                        if reading:
                            poll.register(0, select.POLLIN)
                        else:
                            connection.half_close()
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    data = _receive(connection)
                    if data == b"":
                        return False
                    if data:
                        show(data)
            elif descriptor == 0 and reading and not pending:
                typed = os.read(0, _READ)
                if not typed:
                    reading = False
                    poll.unregister(0)
                    connection.half_close()
                    continue
                typed, detached = keys.feed(typed)
                if detached:
                    if typed:
                        _send(connection, typed)
                    return True
                pending = _send(connection, typed)
                if pending:
                    poll.unregister(0)
                    poll.modify(sock, select.POLLIN | select.POLLOUT)


def _send(connection: Connection, data: bytes) -> bytes:
    """Send what fits; the rest comes back. A peer that is gone takes everything."""
    try:
        return data[connection.sock.send(data) :]
    except BlockingIOError:
        return data
    except (BrokenPipeError, ConnectionResetError):
        return b""


def _receive(connection: Connection) -> bytes | None:
    """The next bytes; b"" at the end, None when there is nothing yet."""
    try:
        return connection.sock.recv(_READ)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


def relay_stdio(connection: Connection) -> None:
    """Carry stdin and stdout to a raw connection until the other side ends."""
    sys.stdout.flush()
    pump(connection, stdin=True, multiplexed=False)


def await_answer(answer: Answer, signals: Signals | None) -> object:
    """The JSON of an answer that may take long; signals are handled meanwhile."""
    connection = answer.connection
    if signals is not None and connection is not None:
        poll = select.poll()
        poll.register(connection.sock.fileno(), select.POLLIN)
        poll.register(signals.fd, select.POLLIN)
        while not connection.buffer:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if signals.fd in ready:
                signals.deliver()
            if connection.sock.fileno() in ready:
                break
    return answer.json()


def terminal_size() -> tuple[int, int]:
    """Rows and columns of the terminal; (0, 0) when there is none."""
    for descriptor in (1, 0, 2):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except OSError:
            continue
        return rows, columns
    return 0, 0


def resize(client: Client, path: str, *, wiggle: bool = False) -> None:
    """Tell the engine the size of this terminal. A process that is not up yet, or gone, is no failure."""
    from tare.client.http import Client as Fresh

    rows, columns = terminal_size()
    if rows == 0 and columns == 0:
        return
    # A connection of its own: this is called while the main one waits for an exit.
    other = Fresh(client.host, version=client.negotiate())
    try:
        if wiggle:
            other.call("POST", f"{path}/resize", query={"h": rows + 1, "w": columns + 1})
        other.call("POST", f"{path}/resize", query={"h": rows, "w": columns})
    except (ApiError, ConnectionFailed):
        return  # the program ended while its size was changed
    finally:
        other.close()


def kill(client: Client, identifier: str, number: int) -> None:
    """Pass a signal on to a container. One that is gone already needs none."""
    from tare.client.http import Client as Fresh

    other = Fresh(client.host, version=client.negotiate())
    try:
        other.call("POST", f"/containers/{identifier}/kill", query={"signal": signal.Signals(number).name[3:]})
    except (ApiError, ConnectionFailed):
        return
    finally:
        other.close()
