"""Where forwarded log lines go: datagrams, streams (with TLS or without), the journal.

A sink is made unconnected. `connect` opens it, `send` takes whole messages and returns when they are handed to the
kernel, or raises OSError; after that, `close`, then `connect` again. `sent` counts what the last `send` got rid of, so
that only the rest is sent again.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from tare.aio import proc

JOURNAL = Path("/run/systemd/journal/socket")
LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
CONNECT_S = 5.0
SEND_S = 10.0
_BURST = 64
_F_ADD_SEALS = 1033
_ALL_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # seal, shrink, grow, write
_STREAM_BYTES = 64 * 1024


class Sink(ABC):
    """See the module."""

    sent = 0

    @abstractmethod
    async def connect(self) -> None:
        """Raises OSError, with a text for the user."""

    @abstractmethod
    async def send(self, messages: Sequence[bytes]) -> None:
        """Raises OSError."""

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""


class Datagrams(Sink):
    """UDP, or a unix socket of datagrams: one message each."""

    def __init__(self, family: int, address: str | tuple[str, int]) -> None:
        self._family = family
        self._address = address
        self._socket: socket.socket | None = None

    async def connect(self) -> None:
        """See Sink."""
        loop = asyncio.get_running_loop()
        family, address = self._family, self._address
        if isinstance(address, tuple):
            found = await loop.getaddrinfo(*address, type=socket.SOCK_DGRAM)
            family, address = found[0][0], found[0][4][:2]  # type: ignore[assignment]
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.connect(address)

    async def send(self, messages: Sequence[bytes]) -> None:
        """See Sink. One that is too long for a datagram goes as a sealed file if the receiver takes that, else cut."""
        self.sent = 0
        assert self._socket is not None
        for number, message in enumerate(messages):
            if number % _BURST == _BURST - 1:
                await asyncio.sleep(0)
            await self._send_one(self._socket, message)
            self.sent += 1

    async def _send_one(self, sock: socket.socket, message: bytes) -> None:
        while True:
            try:
                sock.send(message)
                return
            except BlockingIOError:
                await asyncio.wait_for(proc.writable(sock.fileno()), SEND_S)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                self._send_long(sock, message)
                return

    def _send_long(self, sock: socket.socket, message: bytes) -> None:
        sock.send(message[:32000])

    def close(self) -> None:
        """See Sink."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Journal(Datagrams):
    """systemd's journal."""

    def __init__(self, path: Path = JOURNAL) -> None:
        super().__init__(socket.AF_UNIX, str(path))

    async def connect(self) -> None:
        """See Sink."""
        try:
            await super().connect()
        except OSError as error:
            raise OSError(error.errno, "journald is not enabled on this host") from error

    def _send_long(self, sock: socket.socket, message: bytes) -> None:
        fd = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(message)
            fcntl.fcntl(fd, _F_ADD_SEALS, _ALL_SEALS)
            socket.send_fds(sock, [], [fd])
        finally:
            os.close(fd)


class Streams(Sink):
    """TCP, TLS, or a unix socket of bytes: messages one after another, each with its own end."""

    def __init__(self, address: str | tuple[str, int], tls: Tls | None = None) -> None:
        self._address = address
        self._tls = tls
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        """See Sink."""
        if isinstance(self._address, str):
            opening, shown = asyncio.open_unix_connection(self._address), f"unix {self._address}"
        else:
            context = self._tls.context() if self._tls is not None else None
            opening = asyncio.open_connection(*self._address, ssl=context)
            shown = f"tcp {self._address[0]}:{self._address[1]}"
        try:
            self._reader, self._writer = await asyncio.wait_for(opening, CONNECT_S)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"dial {shown}: i/o timeout") from None
        except OSError as error:
            is_tls = hasattr(error, "library")  # ssl.SSLError, which has numbers of its own
            why = (
                str(error.strerror)
                if is_tls or not error.errno or error.errno < 0
                else os.strerror(error.errno).lower()
            )
            raise OSError(error.errno or errno.EIO, f"dial {shown}: connect: {why}") from error

    async def send(self, messages: Sequence[bytes]) -> None:
        """See Sink. A peer that has hung up is noticed before and after; what it took in between is lost, as with any syslog."""
        self.sent = 0
        writer = self._writer
        assert writer is not None
        pending: list[bytes] = []
        size = 0
        for message in messages:
            pending.append(message)
            size += len(message)
            if size >= _STREAM_BYTES:
                await self._write(writer, pending)
                pending, size = [], 0
        await self._write(writer, pending)

    async def _write(self, writer: asyncio.StreamWriter, messages: list[bytes]) -> None:
        self._check()
        writer.write(b"".join(messages))
        await asyncio.wait_for(writer.drain(), SEND_S)
        self._check()
        self.sent += len(messages)

    def _check(self) -> None:
        if self._reader is None or self._reader.at_eof() or self._writer is None or self._writer.is_closing():
            raise ConnectionResetError(errno.ECONNRESET, "the syslog server closed the connection")

    def close(self) -> None:
        """See Sink."""
        if self._writer is not None:
            self._writer.close()
            self._reader = self._writer = None


class Tls:
    """How the server is believed, and what we show it. Files are read at each connection."""

    def __init__(self, *, ca_cert: str, cert: str, key: str, skips_verify: bool) -> None:
        self._ca_cert, self._cert, self._key, self._skips_verify = ca_cert, cert, key, skips_verify

    def context(self) -> object:
        """An ssl.SSLContext; the module is imported for who uses it. Raises OSError."""
        import ssl

        context = ssl.create_default_context(cafile=self._ca_cert or None)
        if self._cert or self._key:
            context.load_cert_chain(self._cert, self._key or None)
        if self._skips_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class LocalSyslog(Sink):
    """This machine's own syslog, wherever its socket is."""

    def __init__(self, paths: Sequence[str] = LOCAL) -> None:
        self._paths = paths
        self._sink: Sink | None = None

    async def connect(self) -> None:
        """See Sink."""
        for sink in (*(Datagrams(socket.AF_UNIX, path) for path in self._paths), *map(Streams, self._paths)):
            try:
                await sink.connect()
            except OSError:
                sink.close()
                continue
            self._sink = sink
            return
        raise OSError(errno.ENOENT, "Unix syslog delivery error")

    async def send(self, messages: Sequence[bytes]) -> None:
        """See Sink."""
        assert self._sink is not None
        try:
            await self._sink.send(messages)
        finally:
            self.sent = self._sink.sent

    def close(self) -> None:
        """See Sink."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None
