"""Events: order, memory, slow readers and Docker's filters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tare.base import clock
from tare.base.clock import Nanos
from tare.base.errors import ClientGone
from tare.base.news import News, asked_by
from tare.engine import events as events_module
from tare.engine.events import Event, Events, matches
from tare.store.db import Database


def news(action: str = "start", **changes: object) -> News:
    given: dict[str, object] = {
        "type": "container",
        "id": "a" * 64,
        "attributes": {"name": "web", "image": "nginx:1.27", "tier": "front"},
    }
    return News(action=action, **(given | changes))  # type: ignore[arg-type]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "state.db", (events_module.SCHEMA,))
    yield database
    database.close()


class Client:
    """A sink: what it was given, as `action`, or `at action user`. is_full: it takes nothing, until `read`."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.pushes = 0
        self.is_full = False
        self._more = asyncio.Event()

    def push(self, pieces: Sequence[bytes]) -> bool:
        self.pushes += 1
        if self.is_full:
            return False
        for data in pieces:
            self._take(data)
        return True

    async def send(self, data: bytes) -> None:
        while self.is_full:
            self._more.clear()
            await self._more.wait()
        self._take(data)

    def _take(self, data: bytes) -> None:
        self.got.append(data.decode())
        self._more.set()

    def read(self) -> None:
        self.is_full = False
        self._more.set()

    async def has(self, count: int) -> list[str]:
        async with asyncio.timeout(5):
            while len(self.got) < count:
                self._more.clear()
                await self._more.wait()
        return self.got


def action(event: Event) -> bytes:
    return event.news.action.encode()


def whole(event: Event) -> bytes:
    return f"{event.at} {event.news.action} {event.user}".encode()


async def between(events: Events, since: int, until: int, line: Callable[[Event], bytes] = action) -> list[str]:
    client = Client()
    await asyncio.wait_for(events.follow(client, line, since=since, until=until), 5)
    return client.got


@asynccontextmanager
async def following(events: Events, client: Client, since: int = 0) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(events.follow(client, action, since=since, until=0))
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_live_events_come_in_order_to_every_reader(db: Database) -> None:
    async def main() -> None:
        events = Events(db)
        one, two = Client(), Client()
        async with following(events, one), following(events, two):
            assert events.listeners == 2
            events.publish(news("create"))
            assert one.got == two.got == ["create"]  # after a pause at once
            for name in ("start", "die"):
                events.publish(news(name))
            assert one.got == ["create"]
            assert await one.has(3) == await two.has(3) == ["create", "start", "die"]
            assert (one.pushes, two.pushes) == (2, 2)  # the rest together
        assert events.listeners == 0
        events.publish(news("destroy"))
        assert len(one.got) == 3

    asyncio.run(main())


def test_times_never_repeat_or_go_back(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[str]:
        events = Events(db)
        for at in (100, 100, 50, 200):
            monkeypatch.setattr(clock, "now", lambda at=at: Nanos(at))
            events.publish(news())
        monkeypatch.setattr(clock, "now", lambda: Nanos(10_000))
        return await between(events, 1, 9_999, whole)

    assert asyncio.run(main()) == ["100 start ", "101 start ", "102 start ", "200 start "]


def test_the_past_then_the_present_without_gap_or_repetition(db: Database) -> None:
    async def main() -> None:
        events = Events(db)
        events.publish(news("create"))
        client = Client()
        async with following(events, client, since=1):
            assert await client.has(1) == ["create"]
            events.publish(news("start"))
            assert await client.has(2) == ["create", "start"]

    asyncio.run(main())


def test_what_is_published_while_the_past_is_sent_comes_once(db: Database) -> None:
    async def main() -> None:
        events = Events(db)
        events.publish(news("one"))
        events.publish(news("two"))
        client = Client()
        client.is_full = True
        async with following(events, client, since=1):
            await events.settled()
            events.publish(news("three"))
            client.read()
            assert await client.has(3) == ["one", "two", "three"]
            events.publish(news("four"))
            assert await client.has(4) == ["one", "two", "three", "four"]

    asyncio.run(main())


def test_until_ends_the_stream_even_without_events(db: Database) -> None:
    async def main() -> list[str]:
        return await between(Events(db), 0, clock.now() + 1_000_000)

    assert asyncio.run(main()) == []


def test_an_end_without_a_beginning_shows_the_last_ones(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "RECENT", 2)

    async def main() -> None:
        events = Events(db)
        assert await between(events, 0, clock.now()) == []
        for name in ("create", "start", "die"):
            events.publish(news(name))
        assert await between(events, 0, clock.now()) == ["start", "die"]
        assert await between(events, 1, clock.now()) == ["create", "start", "die"]

    asyncio.run(main())


def test_what_waits_when_the_end_comes_is_sent(db: Database) -> None:
    async def main() -> list[str]:
        events = Events(db)
        client = Client()
        task = asyncio.create_task(events.follow(client, action, since=0, until=clock.now() + 500_000_000))
        await events.settled()
        for name in ("one", "two", "three"):
            events.publish(news(name))
        await asyncio.wait_for(task, 5)
        return client.got

    assert asyncio.run(main()) == ["one", "two", "three"]


def test_an_event_after_until_ends_the_stream_and_is_not_sent(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[str]:
        events = Events(db)
        client = Client()
        begun = clock.now()
        until = begun + 3600 * 10**9
        task = asyncio.create_task(events.follow(client, action, since=0, until=until))
        events.publish(news("in time"))
        await client.has(1)
        monkeypatch.setattr(clock, "now", lambda: Nanos(until + 1))
        events.publish(news("late"))
        await asyncio.wait_for(task, 5)
        return client.got

    assert asyncio.run(main()) == ["in time"]


def test_only_so_many_are_remembered(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "KEPT", 3)
    monkeypatch.setattr(events_module, "_TRIM_EVERY", 1)

    async def main() -> list[str]:
        events = Events(db)
        for number in range(10):
            events.publish(news(str(number)))
        return await between(events, 1, clock.now())

    assert asyncio.run(main()) == ["7", "8", "9"]


def test_a_reader_that_does_not_keep_up_gets_the_rest_when_it_reads_again(db: Database) -> None:
    async def main() -> None:
        events = Events(db)
        slow, quick = Client(), Client()
        async with following(events, slow), following(events, quick):
            events.publish(news("0"))
            slow.is_full = True
            for number in range(1, 8):
                events.publish(news(str(number)))
            assert await quick.has(8) == [str(number) for number in range(8)]
            assert slow.got == ["0"]
            await events.settled()
            events.publish(news("8"))
            slow.read()
            assert await slow.has(9) == await quick.has(9)
            events.publish(news("9"))
            assert await slow.has(10) == await quick.has(10)

    asyncio.run(main())


def test_a_reader_that_never_reads_is_ended(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "PATIENCE_S", 0.01)

    async def main() -> None:
        events = Events(db)
        client = Client()
        async with following(events, client) as task:
            client.is_full = True
            events.publish(news())
            with pytest.raises(ClientGone):
                await asyncio.wait_for(asyncio.shield(task), 5)
            assert events.listeners == 0

    asyncio.run(main())


def test_what_is_not_wanted_is_not_sent(db: Database) -> None:
    async def main() -> list[str]:
        events = Events(db)
        client = Client()
        for name in ("start", "die"):
            events.publish(news(name))
        task = asyncio.create_task(
            events.follow(client, lambda event: b"" if event.news.action == "die" else action(event), since=1, until=0)
        )
        await client.has(1)
        for name in ("die", "start"):
            events.publish(news(name))
        await client.has(2)
        task.cancel()
        return client.got

    assert asyncio.run(main()) == ["start", "start"]


def test_they_outlive_the_daemon_and_times_go_on_rising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def one(name: str, at: int) -> list[str]:
        database = Database(tmp_path / "state.db", (events_module.SCHEMA,))
        monkeypatch.setattr(clock, "now", lambda: Nanos(at))
        events = Events(database)
        await events.load()
        events.publish(news(name))
        await events.settled()
        found = await between(events, 1, 1, whole)
        monkeypatch.setattr(clock, "now", lambda: Nanos(10**6))
        found += await between(events, 1, 10**5, whole)
        database.close()
        return found

    assert asyncio.run(one("before", 500)) == ["500 before "]
    assert asyncio.run(one("after the clock was set back", 100)) == [
        "500 before ",
        "501 after the clock was set back ",
    ]


def test_a_long_past_comes_in_pages(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_PAGE", 4)

    async def main() -> None:
        events = Events(db)
        for number in range(10):
            events.publish(news(str(number)))
        client = Client()
        async with following(events, client, since=1):
            await client.has(4)
            for number in range(10, 15):
                events.publish(news(str(number)))
            assert await client.has(15) == [str(number) for number in range(15)]

    asyncio.run(main())


def test_what_is_too_old_is_forgotten(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[str]:
        events = Events(db)
        long_ago, today = clock.now() - events_module.KEPT_NS - 1, clock.now()
        for name, at in (("old", long_ago), ("new", today)):
            monkeypatch.setattr(clock, "now", lambda at=at: Nanos(at))
            events.publish(news(name))
        await events.settled()
        await events.load()
        return await between(events, 1, today)

    assert asyncio.run(main()) == ["new"]


def test_who_asked_is_kept(db: Database) -> None:
    async def main() -> list[str]:
        events = Events(db)
        events.publish(news("die"))
        asked_by.set("uid=7 pid=8")
        events.publish(news("kill"))
        return [line.split(" ", 1)[1] for line in await between(events, 1, clock.now(), whole)]

    assert asyncio.run(main()) == ["die ", "kill uid=7 pid=8"]


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({}, True),
        ({"event": ["start"]}, True),
        ({"event": ["stop", "start"]}, True),
        ({"event": ["sta"]}, False),
        ({"type": ["container"]}, True),
        ({"type": ["image"]}, False),
        ({"type": ["container"], "event": ["die"]}, False),
        ({"scope": ["local"]}, True),
        ({"scope": ["swarm"]}, False),
        ({"label": ["tier"]}, True),
        ({"label": ["tier=front"]}, True),
        ({"label": ["tier=back"]}, False),
        ({"label": ["tier", "absent"]}, False),
        ({"container": ["web"]}, True),
        ({"container": ["aaaaaaaaaaaa"]}, True),
        ({"container": ["we"]}, False),
        ({"container": ["db", "web"]}, True),
        ({"image": ["nginx"]}, True),
        ({"image": ["nginx:1.27"]}, True),
        ({"image": ["nginx:1.28"]}, False),
        ({"network": ["bridge"]}, False),
    ],
)
def test_filters(filters: dict[str, list[str]], passes: bool) -> None:
    assert matches(news(), filters) is passes


def test_filters_of_other_kinds() -> None:
    attached = News(type="network", action="connect", id="n" * 64, attributes={"name": "bridge", "container": "a" * 64})
    assert matches(attached, {"network": ["bridge"]})
    assert matches(attached, {"container": ["a" * 64]})
    assert not matches(attached, {"container": ["web"]})
    tagged = News(type="image", action="tag", id="sha256:1", attributes={"name": "nginx:1.27"})
    assert matches(tagged, {"image": ["nginx"]})
    assert matches(news("exec_start: sh"), {"event": ["exec_start"]})
