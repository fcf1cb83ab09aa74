"""TLS for a client that reads, polls and half-closes a plain socket.

The handshake is done here, with the caller waiting. Then a thread carries bytes between the enciphered connection and one
end of a socket pair; the caller has the other end, whose half-close becomes close_notify and the other way round.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading

from tare.client.errors import ConnectionFailed

_PIECE = 256 * 1024
TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from tare.client.host import TlsFiles


def wrap(raw: _socket.socket, files: TlsFiles, name: str) -> socket.socket:
    """A plain socket that speaks through TLS over the connected `raw`. Raises ConnectionFailed."""
    wire = socket.socket(fileno=raw.detach())
    try:
        context = _context(files)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = context.wrap_bio(incoming, outgoing, server_hostname=name)
        while True:
            try:
                secured.do_handshake()
                break
            except ssl.SSLWantReadError:
                wire.sendall(outgoing.read())
                data = wire.recv(_PIECE)
                if not data:
                    raise ConnectionFailed(f"error during connect: {name} ended the TLS handshake") from None
                incoming.write(data)
        wire.sendall(outgoing.read())
    except OSError as error:  # ssl.SSLError is one
        wire.close()
        why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error.strerror or str(error)
        raise ConnectionFailed(f"error during connect: TLS with {name}: {why}") from None
    except BaseException:
        wire.close()
        raise
    ours, theirs = socket.socketpair()
    pump = _Pump(wire, ours, secured, incoming, outgoing)
    threading.Thread(target=pump.run, name="tare-tls", daemon=True).start()
    return theirs


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.authority:
        context.load_verify_locations(files.authority)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.certificate:
        context.load_cert_chain(files.certificate, files.key)
    return context


class _Pump:
    """Carries bytes both ways until both ways have ended."""

    def __init__(
        self,
        wire: socket.socket,
        plain: socket.socket,
        secured: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        self._wire, self._plain, self._secured = wire, plain, secured
        self._incoming, self._outgoing = incoming, outgoing
        self._reads_wire = self._reads_plain = True

    def run(self) -> None:
        with self._wire, self._plain, selectors.DefaultSelector() as chosen:
            chosen.register(self._wire, selectors.EVENT_READ)
            chosen.register(self._plain, selectors.EVENT_READ)
            try:
                self._take()
                while self._reads_wire:
                    for key, _ in chosen.select():
                        if key.fileobj is self._wire:
                            self._from_wire()
                        elif self._from_plain():
                            chosen.unregister(self._plain)
            except OSError:
                return  # one of the two is gone, and the other learns it by the end of its stream

    def _from_wire(self) -> None:
        data = self._wire.recv(_PIECE)
        if not data:
            self._reads_wire = False
            return
        self._incoming.write(data)
        self._take()

    def _take(self) -> None:
        """Hand over what can be deciphered."""
        while True:
            try:
                data = self._secured.read(_PIECE)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                self._reads_wire = False
                break
            self._plain.sendall(data)
        if self._outgoing.pending:
            self._wire.sendall(self._outgoing.read())

    def _from_plain(self) -> bool:
        """Send what the client writes; True at its end."""
        data = self._plain.recv(_PIECE)
        if data:
            view = memoryview(data)
            while view:
                view = view[self._secured.write(view) :]
        else:
            try:
                self._secured.unwrap()
            except ssl.SSLError:
                pass  # it waits for the other side's end, which comes when that has said everything
        self._wire.sendall(self._outgoing.read())
        return not data
