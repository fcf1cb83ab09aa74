"""The hub of a container's streams, over a real pair of packet sockets as conmon has them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tare.containers import hub as hub_module
from tare.containers.hub import Hub, Subscriber
from tare.drivers.runtime.streams import MonitorStreams

OUT, ERR = b"\x02", b"\x03"


class Pair:
    """Our end for the hub, conmon's end for the test."""

    def __init__(self) -> None:
        self.ours, self.monitor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.monitor.setblocking(False)

    def close(self) -> None:
        self.ours.close()
        self.monitor.close()


def play(scene: Callable[[Hub, Pair], Coroutine[Any, Any, None]]) -> None:
    """Run a scene, with a limit, and close everything."""

    async def main() -> None:
        pair = Pair()
        hub = Hub()
        try:
            await asyncio.wait_for(scene(hub, pair), 20)
        finally:
            hub.finish()
            pair.close()

    asyncio.run(main())


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def read_all(subscriber: Subscriber) -> list[tuple[int, bytes]]:
    out: list[tuple[int, bytes]] = []
    while packets := await subscriber.read():
        out += packets
    return out


def test_an_early_client_sees_the_first_byte() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        early = hub.subscribe()
        assert hub.is_wanted
        assert not hub.is_connected
        pair.monitor.send(OUT + b"first")
        hub.connect(lambda: MonitorStreams(pair.ours))
        assert hub.is_connected
        assert await early.read() == [(1, b"first")]

    play(scene)


def test_two_clients_see_the_same_and_a_late_one_the_rest() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        one, two = hub.subscribe(), hub.subscribe()
        hub.connect(lambda: MonitorStreams(pair.ours))
        pair.monitor.send(OUT + b"a")
        pair.monitor.send(ERR + b"b")
        assert await one.read() == [(1, b"a"), (2, b"b")]
        late = hub.subscribe()
        pair.monitor.send(OUT + b"c")
        pair.monitor.close()
        assert await read_all(one) == [(1, b"c")]
        assert await read_all(two) == [(1, b"a"), (2, b"b"), (1, b"c")]
        assert await read_all(late) == [(1, b"c")]
        assert not hub.is_connected

    play(scene)


def test_packets_of_no_known_stream_and_empty_ones_are_dropped() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        subscriber = hub.subscribe()
        hub.connect(lambda: MonitorStreams(pair.ours))
        for packet in (b"\x01stdin", b"\x00x", b"\xffx", OUT, OUT + b"kept"):
            pair.monitor.send(packet)
        pair.monitor.close()
        assert await read_all(subscriber) == [(1, b"kept")]

    play(scene)


def test_the_connection_is_made_once() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        hub.connect(lambda: MonitorStreams(pair.ours))
        hub.connect(lambda: pytest.fail("connected already"))

    play(scene)


def test_a_client_that_detaches_leaves_the_others_and_the_stdin() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        one, two = hub.subscribe(), hub.subscribe()
        hub.connect(lambda: MonitorStreams(pair.ours))
        hub.unsubscribe(one)
        hub.unsubscribe(one)
        assert await one.read() == []
        pair.monitor.send(OUT + b"x")
        assert await two.read() == [(1, b"x")]
        hub.unsubscribe(two)
        assert hub.is_connected
        await hub.write_stdin(b"still open")
        assert pair.monitor.recv(100) == b"still open"

    play(scene)


def test_a_failed_start_ends_every_stream() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        reading = asyncio.ensure_future(read_all(hub.subscribe()))
        await turns()
        hub.finish()
        hub.finish()
        assert await reading == []
        assert not hub.is_wanted

    play(scene)


def test_a_slow_client_stops_the_container_not_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue ends a burst above the mark; when it reads, everything comes, in order."""
    monkeypatch.setattr(hub_module, "HIGH_BYTES", 10_000)

    async def scene(hub: Hub, pair: Pair) -> None:
        slow = hub.subscribe()
        hub.connect(lambda: MonitorStreams(pair.ours))
        expected: list[tuple[int, bytes]] = []
        refused = 0
        while refused < 20:
            data = f"{len(expected):04}".encode() * 250
            try:
                pair.monitor.send(OUT + data)
                expected.append((1, data))
                refused = 0
            except BlockingIOError:
                refused += 1
                await turns(3)
        assert 10_000 < slow.size_bytes <= 10_000 + hub_module._BURST_BYTES + 1000
        seen: list[tuple[int, bytes]] = []
        while len(seen) < len(expected):
            seen += await slow.read()
        assert seen == expected

    play(scene)


def test_a_dead_client_is_cut_off_so_that_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "HIGH_BYTES", 1000)
    monkeypatch.setattr(hub_module, "STALL_S", 0.01)

    async def scene(hub: Hub, pair: Pair) -> None:
        dead, alive = hub.subscribe(), hub.subscribe()
        hub.connect(lambda: MonitorStreams(pair.ours))
        reading = asyncio.ensure_future(read_all(alive))
        for _ in range(5):
            pair.monitor.send(OUT + b"x" * 500)
            await turns()
        pair.monitor.send(OUT + b"after")
        pair.monitor.close()
        assert b"".join(data for _, data in await reading) == b"x" * 2500 + b"after"
        kept = await read_all(dead)
        assert 0 < sum(len(data) for _, data in kept) <= 2505

    play(scene)


# --- stdin


def test_stdin_before_the_start_waits_for_it() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        writing = asyncio.ensure_future(hub.write_stdin(b"early"))
        closing = asyncio.ensure_future(hub.close_stdin())
        await turns()
        assert not writing.done()
        assert not closing.done()
        hub.connect(lambda: MonitorStreams(pair.ours))
        await writing
        await closing
        assert pair.monitor.recv(100) == b"early"
        assert pair.monitor.recv(100) == b""

    play(scene)


def test_a_lot_of_stdin_comes_in_pieces_and_whole() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        hub.connect(lambda: MonitorStreams(pair.ours))
        data = bytes(range(256)) * 8192
        writing = asyncio.ensure_future(hub.write_stdin(data))
        received = b""
        loop = asyncio.get_running_loop()
        while len(received) < len(data):
            piece = await loop.sock_recv(pair.monitor, 65536)
            assert 0 < len(piece) <= 8192, "conmon reads no longer packets"
            received += piece
        await writing
        assert received == data

    play(scene)


def test_stdin_of_a_program_that_has_closed_it_is_dropped() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        hub.subscribe()
        hub.connect(lambda: MonitorStreams(pair.ours))
        pair.monitor.close()
        await hub.write_stdin(b"x" * 100_000)
        await hub.write_stdin(b"more")
        await hub.close_stdin()

    play(scene)


def test_output_goes_on_after_the_end_of_stdin() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        subscriber = hub.subscribe()
        hub.connect(lambda: MonitorStreams(pair.ours))
        await hub.write_stdin(b"question")
        await hub.close_stdin()
        await hub.write_stdin(b"dropped")
        assert pair.monitor.recv(100) == b"question"
        assert pair.monitor.recv(100) == b""
        pair.monitor.send(OUT + b"answer")
        assert await subscriber.read() == [(1, b"answer")]

    play(scene)


def test_a_writer_is_released_when_the_container_ends_while_it_waits() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        hub.connect(lambda: MonitorStreams(pair.ours))
        writing = asyncio.ensure_future(hub.write_stdin(b"x" * 10_000_000))
        await turns()
        assert not writing.done()
        hub.finish()
        await asyncio.wait_for(writing, 5)

    play(scene)


def test_what_was_meant_for_an_earlier_run_does_not_reach_the_next() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        hub.connect(lambda: MonitorStreams(pair.ours))
        writing = asyncio.ensure_future(hub.write_stdin(b"x" * 10_000_000))
        await turns()
        hub.finish()
        again = Pair()
        hub.connect(lambda: MonitorStreams(again.ours))
        await asyncio.wait_for(writing, 5)
        with pytest.raises(BlockingIOError):
            again.monitor.recv(10)
        hub.finish()
        again.close()

    play(scene)


def test_two_clients_write_while_the_program_is_slow() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        hub.connect(lambda: MonitorStreams(pair.ours))
        size = 1_000_000
        writers = [asyncio.ensure_future(hub.write_stdin(byte * size)) for byte in (b"a", b"b")]
        left = asyncio.ensure_future(hub.write_stdin(b"c" * size))
        await turns()
        left.cancel()
        received = b""
        while received.count(b"a") < size or received.count(b"b") < size:
            received += await asyncio.wait_for(asyncio.get_running_loop().sock_recv(pair.monitor, 65536), 5)
        await asyncio.gather(*writers)

    play(scene)


def test_a_writer_of_a_container_that_never_starts_is_released() -> None:
    """The client stays connected until its stdin task ends."""

    async def scene(hub: Hub, pair: Pair) -> None:
        writing = asyncio.ensure_future(hub.write_stdin(b"early"))
        await turns()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing

    play(scene)


def test_what_is_typed_after_the_end_waits_for_nobody_and_is_for_nobody_else() -> None:
    """A client that left before its last words were read: nothing of that is for the next run."""

    async def scene(hub: Hub, pair: Pair) -> None:
        late = hub.subscribe()
        hub.connect(lambda: MonitorStreams(pair.ours))
        hub.finish()
        await asyncio.wait_for(hub.write_stdin(b"late", run=late.run), 5)
        await asyncio.wait_for(hub.close_stdin(run=late.run), 5)
        early = hub.subscribe()
        writing = asyncio.ensure_future(hub.write_stdin(b"early", run=early.run))
        await turns()
        assert not writing.done()
        again = Pair()
        hub.connect(lambda: MonitorStreams(again.ours))
        await asyncio.wait_for(writing, 5)
        assert again.monitor.recv(10) == b"early"
        hub.finish()
        again.close()

    play(scene)


def test_a_start_that_fails_releases_those_who_wait_to_type() -> None:
    async def scene(hub: Hub, _pair: Pair) -> None:
        writing = asyncio.ensure_future(hub.write_stdin(b"early"))
        closing = asyncio.ensure_future(hub.close_stdin())
        await turns()
        hub.finish()
        await asyncio.wait_for(asyncio.gather(writing, closing), 5)

    play(scene)


# --- the end


def test_until_drained() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        await hub.until_drained(10)
        subscriber = hub.subscribe()
        hub.connect(lambda: MonitorStreams(pair.ours))
        await hub.until_drained(0.001)
        assert hub.is_connected, "a grandchild holds it open"
        waiting = asyncio.ensure_future(hub.until_drained(10))
        await turns()
        pair.monitor.send(OUT + b"last words")
        pair.monitor.close()
        await waiting
        assert await read_all(subscriber) == [(1, b"last words")]

    play(scene)


def test_the_time_of_a_slow_client_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before the end comes whole, however long the client takes for it."""
    monkeypatch.setattr(hub_module, "HIGH_BYTES", 1000)
    monkeypatch.setattr(hub_module, "_BURST_BYTES", 1000)

    async def scene(hub: Hub, pair: Pair) -> None:
        slow = hub.subscribe()
        hub.connect(lambda: MonitorStreams(pair.ours))
        for _ in range(20):
            pair.monitor.send(OUT + b"x" * 500)
        pair.monitor.close()
        waiting = asyncio.ensure_future(hub.until_drained(0.01))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        assert sum(len(data) for _, data in await read_all(slow)) == 10_000
        await asyncio.wait_for(waiting, 5)

    play(scene)


def test_a_second_run_of_the_same_container() -> None:
    async def scene(hub: Hub, pair: Pair) -> None:
        hub.connect(lambda: MonitorStreams(pair.ours))
        await hub.close_stdin()
        hub.finish()
        again = Pair()
        subscriber = hub.subscribe()
        hub.connect(lambda: MonitorStreams(again.ours))
        await hub.write_stdin(b"in")
        assert again.monitor.recv(10) == b"in"
        again.monitor.send(ERR + b"out")
        assert await subscriber.read() == [(2, b"out")]
        hub.finish()
        again.close()

    play(scene)
