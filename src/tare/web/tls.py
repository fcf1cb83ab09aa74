"""TLS below HTTP, with half-close.

asyncio's own TLS closes both directions when a client has sent its last byte. The API needs them apart (W25): a
`docker exec -i` that has come to the end of its input sends close_notify and still waits for output. So the library's
sans-I/O object stands between the transport and the connection here.
Source: RFC 8446 section 6.1, SSL_shutdown(3).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, cast

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
_PIECE = 256 * 1024


def server_context(*, certificate: str, key: str, authority: str) -> ssl.SSLContext:
    """TLS 1.2 or newer with our certificate; clients must show one that `authority` has signed, unless that is "".

    Raises OSError (ssl.SSLError) for files that are not there or do not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if authority:
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsLayer(asyncio.Protocol):
    """One client of a TLS listener; `make` gives the protocol that speaks plainly above, once the handshake is done.

    others: all layers of the server, this one among them while it is connected; more than `limit` are turned away.
    """

    def __init__(
        self, context: ssl.SSLContext, make: Callable[[], asyncio.Protocol], *, others: set[TlsLayer], limit: int
    ) -> None:
        self._others, self._limit = others, limit
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._make = make
        self._inner: asyncio.Protocol | None = None
        self._raw: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None
        self.is_paused = False
        self._has_ended = False  # the client will send no more
        self._has_said_end = False

    # --- below: what the socket says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        if len(self._others) >= self._limit:
            self._raw.abort()
            return
        self._others.add(self)
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_S, self._raw.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._inner is None and not self._shaken():
            return
        self._read()

    def eof_received(self) -> bool:
        if self._inner is None:
            return False
        return self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    # --- the middle

    def _shaken(self) -> bool:
        """Go on with the handshake; True once it is done."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            log.debug("TLS handshake with %s: %s", self._raw.get_extra_info("peername"), error)
            self._flush()  # the alert says why
            self._raw.close()
            return False
        self._flush()
        if self._deadline is not None:
            self._deadline.cancel()
        self._inner = self._make()
        self._inner.connection_made(_Plain(self))
        return True

    def _read(self) -> None:
        assert self._inner is not None
        while not self.is_paused and not self._has_ended and not self._raw.is_closing():
            try:
                data = self._object.read(_PIECE)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as error:
                log.debug("TLS from %s: %s", self._raw.get_extra_info("peername"), error)
                self._flush()
                self._raw.abort()
                return
            if not data:
                if not self._end():
                    self.close()
                break
            self._inner.data_received(data)
        self._flush()

    def _end(self) -> bool:
        """Tell the protocol once that no more comes; whether it has still something to say."""
        assert self._inner is not None
        if self._has_ended:
            return True
        self._has_ended = True
        return bool(self._inner.eof_received())

    def _flush(self) -> None:
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())

    # --- above: what the protocol asks for

    def write(self, data: bytes) -> None:
        if self._has_said_end or self._raw.is_closing():
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._object.write(view) :]
        except ssl.SSLError as error:
            log.debug("TLS to %s: %s", self._raw.get_extra_info("peername"), error)
            self._raw.abort()
            return
        self._flush()

    def write_eof(self) -> None:
        """Send close_notify; what the client sends is still read."""
        if self._has_said_end or self._raw.is_closing():
            return
        self._has_said_end = True
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # it wants the client's own close_notify, which comes or not
        self._flush()

    def close(self) -> None:
        self.write_eof()
        self._raw.close()

    def resume(self) -> None:
        self.is_paused = False
        self._raw.resume_reading()
        asyncio.get_running_loop().call_soon(self._read)  # what was deciphered already comes without the socket

    def pause(self) -> None:
        self.is_paused = True
        self._raw.pause_reading()

    def info(self, name: str, default: Any) -> Any:
        if name == "user":
            return _who(self._object.getpeercert(), self._raw.get_extra_info("peername"))
        return self._raw.get_extra_info(name, default)

    @property
    def raw(self) -> asyncio.Transport:
        return self._raw


class _Plain(asyncio.Transport):
    """The transport of the protocol above."""

    def __init__(self, layer: TlsLayer) -> None:
        super().__init__()
        self._layer = layer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._layer.info(name, default)

    def is_closing(self) -> bool:
        return self._layer.raw.is_closing()

    def close(self) -> None:
        self._layer.close()

    def abort(self) -> None:
        self._layer.raw.abort()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._layer.write(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._layer.write_eof()

    def pause_reading(self) -> None:
        self._layer.pause()

    def resume_reading(self) -> None:
        self._layer.resume()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._layer.raw.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        return self._layer.raw.get_write_buffer_size()


def _who(certificate: Any, peer: Any) -> str:
    """The name in a client's certificate, for the audit trail, and where it called from."""
    subject = dict(pair for entry in (certificate or {}).get("subject", ()) for pair in entry)
    name = subject.get("commonName", "")
    where = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""
    return f"cert={name} from={where}" if name else f"from={where}"
