"""Events: order, memory, slow readers and Docker's filters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tare.base import clock
from tare.base.clock import Nanos
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


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def take(stream: AsyncIterator[Event], count: int) -> list[str]:
    return [(await asyncio.wait_for(anext(stream), 5)).news.action for _ in range(count)]


def test_live_events_come_in_order_to_every_reader(db: Database) -> None:
    async def main() -> None:
        events = Events(db)
        readers = [events.stream(since=0, until=0) for _ in range(2)]
        waiting = [asyncio.ensure_future(take(reader, 3)) for reader in readers]
        await turns()
        assert events.listeners == 2
        for action in ("create", "start", "die"):
            events.publish(news(action))
        assert await asyncio.gather(*waiting) == [["create", "start", "die"]] * 2
        for reader in readers:
            await reader.aclose()
        assert events.listeners == 0

    asyncio.run(main())


def test_times_never_repeat_or_go_back(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[int]:
        events = Events(db)
        for at in (100, 100, 50, 200):
            monkeypatch.setattr(clock, "now", lambda at=at: Nanos(at))
            events.publish(news())
        monkeypatch.setattr(clock, "now", lambda: Nanos(10_000))
        return [event.at async for event in events.stream(since=1, until=9_999)]

    assert asyncio.run(main()) == [100, 101, 102, 200]


def test_the_past_then_the_present_without_gap_or_repetition(db: Database) -> None:
    async def main() -> None:
        events = Events(db)
        events.publish(news("create"))
        stream = events.stream(since=1, until=0)
        assert await take(stream, 1) == ["create"]
        events.publish(news("start"))
        assert await take(stream, 1) == ["start"]
        await stream.aclose()

    asyncio.run(main())


def test_what_is_published_while_the_past_is_read_comes_once(db: Database) -> None:
    async def main() -> None:
        events = Events(db)
        events.publish(news("one"))
        events.publish(news("two"))
        stream = events.stream(since=1, until=0)
        assert await take(stream, 1) == ["one"]
        events.publish(news("three"))
        assert await take(stream, 2) == ["two", "three"]
        await stream.aclose()

    asyncio.run(main())


def test_until_ends_the_stream_even_without_events(db: Database) -> None:
    async def main() -> list[Event]:
        events = Events(db)
        return [event async for event in events.stream(since=0, until=clock.now() + 1_000_000)]

    assert asyncio.run(main()) == []


def test_only_so_many_are_remembered(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "KEPT", 3)
    monkeypatch.setattr(events_module, "_TRIM_EVERY", 1)

    async def main() -> list[str]:
        events = Events(db)
        for number in range(10):
            events.publish(news(str(number)))
        return [event.news.action async for event in events.stream(since=1, until=clock.now())]

    assert asyncio.run(main()) == ["7", "8", "9"]


def test_a_reader_that_does_not_keep_up_is_ended_and_the_others_are_not(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "QUEUE", 5)

    async def main() -> None:
        events = Events(db)
        slow, quick = events.stream(since=0, until=0), events.stream(since=0, until=0)
        first = [asyncio.ensure_future(take(stream, 1)) for stream in (slow, quick)]
        await turns()
        events.publish(news("0"))
        await asyncio.gather(*first)
        for number in range(1, 8):
            events.publish(news(str(number)))
            assert await take(quick, 1) == [str(number)]
        assert events.listeners == 1
        assert [event async for event in slow] == []
        await quick.aclose()

    asyncio.run(main())


def test_they_outlive_the_daemon_and_times_go_on_rising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def one(action: str, at: int) -> list[tuple[int, str]]:
        database = Database(tmp_path / "state.db", (events_module.SCHEMA,))
        monkeypatch.setattr(clock, "now", lambda: Nanos(at))
        events = Events(database)
        await events.load()
        events.publish(news(action))
        await events.settled()
        found = [(event.at, event.news.action) async for event in events.stream(since=1, until=1)]
        monkeypatch.setattr(clock, "now", lambda: Nanos(10**6))
        found += [(event.at, event.news.action) async for event in events.stream(since=1, until=10**5)]
        database.close()
        return found

    assert asyncio.run(one("before", 500)) == [(500, "before")]
    assert asyncio.run(one("after the clock was set back", 100)) == [
        (500, "before"),
        (501, "after the clock was set back"),
    ]


def test_a_long_past_comes_in_pages(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_PAGE", 4)
    monkeypatch.setattr(events_module, "QUEUE", 2)

    async def main() -> None:
        events = Events(db)
        for number in range(10):
            events.publish(news(str(number)))
        stream = events.stream(since=1, until=0)
        assert await take(stream, 4) == ["0", "1", "2", "3"]
        for number in range(10, 15):
            events.publish(news(str(number)))
        assert await take(stream, 11) == [str(number) for number in range(4, 15)]
        await stream.aclose()

    asyncio.run(main())


def test_what_is_too_old_is_forgotten(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[str]:
        events = Events(db)
        long_ago, today = clock.now() - events_module.KEPT_NS - 1, clock.now()
        for action, at in (("old", long_ago), ("new", today)):
            monkeypatch.setattr(clock, "now", lambda at=at: Nanos(at))
            events.publish(news(action))
        await events.settled()
        await events.load()
        return [event.news.action async for event in events.stream(since=1, until=today)]

    assert asyncio.run(main()) == ["new"]


def test_who_asked_is_kept(db: Database) -> None:
    async def main() -> list[tuple[str, str]]:
        events = Events(db)
        events.publish(news("die"))
        asked_by.set("uid=7 pid=8")
        events.publish(news("kill"))
        return [(event.news.action, event.user) async for event in events.stream(since=1, until=clock.now())]

    assert asyncio.run(main()) == [("die", ""), ("kill", "uid=7 pid=8")]


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
