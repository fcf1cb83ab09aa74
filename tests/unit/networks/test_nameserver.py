"""The name server on loopback sockets, with a server to forward to that is a socket too."""

import asyncio
import socket
import struct
from ipaddress import IPv4Address

from tare.networks import dns
from tare.networks.nameserver import Book, NameServer

FIRST, SECOND = IPv4Address("10.0.0.2"), IPv4Address("10.0.0.3")
NAMES = {"web": [FIRST, SECOND], "box.net": [FIRST]}


def question(name, kind=dns.A, *, identity=7):
    packed = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    return struct.pack(">HHHHHH", identity, 0x0100, 1, 0, 0, 0) + packed + struct.pack(">HH", kind, dns.IN)


class Upstream(asyncio.DatagramProtocol):
    """Answers every question with 192.0.2.9, after a lie under another id."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        query = dns.parse(data)
        self.transport.sendto(dns.with_id(dns.answer(query, addresses=[FIRST]), query.id ^ 1), addr)
        self.transport.sendto(dns.answer(query, addresses=[IPv4Address("192.0.2.9")]), addr)


def bound(kind):
    made = socket.socket(type=kind | socket.SOCK_NONBLOCK)
    made.bind(("127.0.0.1", 0))
    return made


def serve(work, *, servers=("127.0.0.1",), answers=True):
    async def main():
        loop = asyncio.get_running_loop()
        far = bound(socket.SOCK_DGRAM)
        port = far.getsockname()[1]
        if answers:
            transport, _ = await loop.create_datagram_endpoint(Upstream, sock=far)
        book = Book(find=NAMES.get, name_of={FIRST: "web.net"}.get, servers=lambda: servers)
        server = NameServer(book, port=port, timeout_s=5.0 if answers else 0.05)
        udp, tcp = bound(socket.SOCK_DGRAM), bound(socket.SOCK_STREAM)
        places = udp.getsockname(), tcp.getsockname()
        await server.open(udp, tcp)
        try:
            await work(*places)
        finally:
            server.close()
            server.close()
            transport.close() if answers else far.close()

    asyncio.run(main())


async def ask(place, message):
    loop = asyncio.get_running_loop()
    with bound(socket.SOCK_DGRAM) as client:
        await loop.sock_sendto(client, message, place)
        async with asyncio.timeout(10):
            return (await loop.sock_recvfrom(client, 4096))[0]


def test_own_names_turn_and_unknown_single_names_are_nobodys():
    async def work(udp, _):
        firsts = {(await ask(udp, question("web")))[-20:-16] for _ in range(2)}
        assert firsts == {FIRST.packed, SECOND.packed}
        assert (await ask(udp, question("web", dns.AAAA)))[3:8] == b"\x80\0\1\0\0"
        assert (await ask(udp, question("nobody")))[3] & 0xF == dns.NAME_ERROR
        assert (await ask(udp, question("2.0.0.10.in-addr.arpa", dns.PTR))).endswith(b"\3web\3net\0")
        assert (await ask(udp, question("web")[:14]))[3] & 0xF == dns.FORMAT_ERROR

    serve(work)


def test_the_rest_is_forwarded():
    async def work(udp, _):
        reply = await ask(udp, question("example.com", identity=77))
        assert reply[:2] == b"\0\x4d"
        assert reply.endswith(bytes([192, 0, 2, 9]))

    serve(work)


def test_servers_that_do_not_answer():
    async def work(udp, _):
        assert (await ask(udp, question("example.com")))[3] & 0xF == dns.SERVER_FAILURE

    serve(work, answers=False)
    serve(work, servers=())


def test_by_tcp_too():
    async def work(_, tcp):
        reader, writer = await asyncio.open_connection(*tcp)
        for _ in range(2):
            message = question("web")
            writer.write(len(message).to_bytes(2, "big") + message)
            size = int.from_bytes(await reader.readexactly(2), "big")
            assert int.from_bytes((await reader.readexactly(size))[6:8], "big") == 2
        writer.close()

    serve(work)
