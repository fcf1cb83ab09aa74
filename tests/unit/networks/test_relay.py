"""Carrying connections and datagrams by hand, on loopback sockets."""

import asyncio
import socket

from tare.networks.relay import Relay, Target


def bound(kind):
    sock = socket.socket(socket.AF_INET6, kind)
    sock.bind(("::1", 0))
    if kind == socket.SOCK_STREAM:
        sock.listen(8)
    return sock, sock.getsockname()[1]


def test_a_connection_is_carried_with_its_half_close():
    async def main():
        async def shout(reader, writer):
            writer.write((await reader.read()).upper())
            writer.write_eof()

        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        sock, port = bound(socket.SOCK_STREAM)
        relay = Relay(Target("127.0.0.1", server.sockets[0].getsockname()[1]))
        await relay.open(sock)
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(b"hello" * 100_000)
        writer.write_eof()
        assert await reader.read() == b"HELLO" * 100_000
        writer.close()
        server.close()
        refused, writer = await asyncio.open_connection("::1", port)  # nobody there any more
        assert await refused.read() == b""
        writer.close()
        relay.close()
        relay.close()

    asyncio.run(main())


def test_datagrams_find_their_way_back():
    async def main():
        class Shout(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, data, addr):
                self.transport.sendto(data.upper(), addr)

        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(Shout, local_addr=("127.0.0.1", 0))
        sock, port = bound(socket.SOCK_DGRAM)
        relay = Relay(Target("127.0.0.1", server.get_extra_info("sockname")[1]))
        await relay.open(sock)
        for text in (b"one", b"two"):
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                await loop.sock_connect(client, ("::1", port))
                await loop.sock_sendall(client, text)
                async with asyncio.timeout(5):
                    assert await loop.sock_recv(client, 100) == text.upper()
        relay.close()
        server.close()

    asyncio.run(main())
