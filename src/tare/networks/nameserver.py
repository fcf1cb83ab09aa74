"""The name server of one container: sockets inside its network namespace, answered by the engine.

What the engine knows is answered at once; everything else goes to the host's servers, from the host's namespace.
A container that floods it only loses its own questions: what waits for a server is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from tare.aio.tasks import spawn
from tare.base.errors import InvalidArgument
from tare.networks import dns
from tare.networks.dns import IPAddress, Query

log = logging.getLogger(__name__)

PORT = 53
TIMEOUT_S = 2.0
_MAX_WAITING = 100
_MAX_CLIENTS = 32
_IDLE_S = 10.0

Server = tuple[str, int]


class Book(Struct, frozen=True, kw_only=True):
    """What a name server asks the engine. `find` and `name_of` answer None for what is nobody's here."""

    find: Callable[[str], Sequence[IPAddress] | None]
    name_of: Callable[[IPAddress], str | None]
    servers: Callable[[], Sequence[str]]


class NameServer:
    """Answers until `close`. All on the event loop's thread."""

    def __init__(self, book: Book, *, port: int = PORT, timeout_s: float = TIMEOUT_S) -> None:
        """port, timeout_s: of the servers asked."""
        self._book = book
        self._port = port
        self._timeout_s = timeout_s
        self._waiting = 0
        self._turn = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def open(self, udp: socket.socket, tcp: socket.socket) -> None:
        """Serve on these sockets, which are ours from now on."""
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
            self._server = await asyncio.start_server(self._serve, sock=tcp, limit=dns.MAX_BYTES + 2)
        except BaseException:
            self.close()
            udp.close()
            tcp.close()
            raise

    def close(self) -> None:
        """Close the sockets: the last thing that holds the namespace. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._clients):
            task.cancel()

    # --- udp

    def received(self, message: bytes, sender: Server) -> None:
        """A datagram from the container."""
        try:
            query = dns.parse(message)
        except InvalidArgument:
            if (refusal := dns.malformed(message)) is not None:
                self._send(refusal, sender)
            return
        known = self.known(query, limit=query.udp_bytes)
        if known is not None:
            self._send(known, sender)
        elif self._waiting >= _MAX_WAITING:
            self._send(dns.answer(query, code=dns.SERVER_FAILURE), sender)
        else:
            self._waiting += 1
            spawn(self._forward_datagram(message, query, sender), name="name look-up")

    async def _forward_datagram(self, message: bytes, query: Query, sender: Server) -> None:
        try:
            self._send(await self._ask(message, query, _ask_udp), sender)
        finally:
            self._waiting -= 1

    def _send(self, message: bytes, receiver: Server) -> None:
        if self._transport is not None:
            self._transport.sendto(message, receiver)

    # --- tcp

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= _MAX_CLIENTS:
            writer.close()
            return
        self._clients.add(task)
        try:
            while True:
                async with asyncio.timeout(_IDLE_S):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    message = await reader.readexactly(size)
                reply = await self._answer(message)
                if reply is None:
                    return
                writer.write(len(reply).to_bytes(2, "big") + reply)
                async with asyncio.timeout(_IDLE_S):
                    await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            return
        finally:
            self._clients.discard(task)
            writer.close()

    async def _answer(self, message: bytes) -> bytes | None:
        try:
            query = dns.parse(message)
        except InvalidArgument:
            return dns.malformed(message)
        return self.known(query, limit=dns.MAX_BYTES) or await self._ask(message, query, _ask_tcp)

    # --- answers

    def known(self, query: Query, *, limit: int) -> bytes | None:
        """The answer if it is ours to give: our names, our addresses, single names that are nobody's."""
        if query.klass not in (dns.IN, dns.ANY_CLASS):
            return None
        if (address := query.address) is not None:
            name = self._book.name_of(address)
            return dns.answer(query, names=[name], limit=limit) if name is not None else None
        if query.kind not in (dns.A, dns.AAAA) or not query.name:
            return None
        found = self._book.find(query.name)
        if found is None:
            return dns.answer(query, code=dns.NAME_ERROR) if "." not in query.name else None
        version = 4 if query.kind == dns.A else 6
        addresses = [address for address in found if address.version == version]
        self._turn += 1
        turn = self._turn % len(addresses) if addresses else 0
        return dns.answer(query, addresses=[*addresses[turn:], *addresses[:turn]], limit=limit)

    async def _ask(self, message: bytes, query: Query, ask: _Ask) -> bytes:
        """Forward to the servers in turn; the first good answer counts. None: SERVFAIL."""
        reply: bytes | None = None
        for server in self._book.servers():
            identity = secrets.randbelow(1 << 16)
            try:
                async with asyncio.timeout(self._timeout_s):
                    got = await ask(dns.with_id(message, identity), query, identity, (server, self._port))
            except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                log.debug("name server %s did not answer: %s", server, error)
                continue
            reply = dns.with_id(got, query.id)
            if reply[3] & 0xF not in (dns.SERVER_FAILURE, dns.REFUSED):
                break
        return reply or dns.answer(query, code=dns.SERVER_FAILURE)


_Ask = Callable[[bytes, Query, int, Server], Awaitable[bytes]]


class _Datagrams(asyncio.DatagramProtocol):
    """Questions of the container."""

    def __init__(self, server: NameServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: Server) -> None:
        self._server.received(data, addr)


class _Reply(asyncio.DatagramProtocol):
    """One answer of a server; what does not fit the question is not it."""

    def __init__(self, query: Query, identity: int) -> None:
        self._query, self._identity = query, identity
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _addr: Server) -> None:
        fits = dns.answers(data, identity=self._identity, question=self._query.question)
        if fits and not self.future.done():
            self.future.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(exc)


async def _ask_udp(message: bytes, query: Query, identity: int, server: Server) -> bytes:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: _Reply(query, identity), remote_addr=server)
    try:
        transport.sendto(message)
        return await protocol.future
    finally:
        transport.close()


async def _ask_tcp(message: bytes, query: Query, identity: int, server: Server) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(message).to_bytes(2, "big") + message)
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    if not dns.answers(reply, identity=identity, question=query.question):
        raise ConnectionError("the answer is to another question")
    return reply
