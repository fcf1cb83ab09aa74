"""The build cache: what it remembers, what it forgets, and that a step is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tare.base.clock import Nanos
from tare.base.digest import Digest
from tare.base.errors import InvalidArgument
from tare.build.cache import CACHE_MOUNT, SCHEMA, Budget, BuildCache, Record, choose, key_of, refuse_unknown
from tare.store.db import Database

LOW, HIGH = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "state.db", (SCHEMA,))
    yield database
    database.close()


def record(key: str, *, used: int = 0, size: int = 1, kind: str = "regular", chain: Digest | None = HIGH) -> Record:
    return Record(
        key=key,
        parent="",
        chain=chain,
        below=LOW,
        description=f"RUN {key}",
        size_bytes=size,
        kind=kind,
        used_at=Nanos(used),
    )


def ticking() -> Callable[[], Nanos]:
    times = iter(range(1, 1000))
    return lambda: Nanos(next(times))


def test_a_key_is_of_everything_in_its_place() -> None:
    keys = [key_of("a", "b"), key_of("ab"), key_of("b", "a"), key_of(["a", "b"]), key_of("a", None, "b"), key_of()]
    assert len(set(keys)) == len(keys)
    assert key_of("a", ("b", 1)) == key_of("a", ("b", 1))


def test_steps_are_remembered(db: Database) -> None:
    async def main() -> None:
        cache = BuildCache(db, ticking())
        await cache.load()
        await cache.add(record("a"))
        await cache.add(record("b", chain=LOW))
        found = cache.find("a", below=LOW)
        assert found is not None
        assert (found.created_at, found.used_at, found.uses) == (1, 1, 1)
        assert cache.find("a", below=HIGH) is None
        assert cache.find("c", below=LOW) is None
        cache.used(found)
        cache.used(record("never added"))
        assert [known.key for known in cache.records()] == ["a", "b"]
        assert cache.chains() == {LOW, HIGH}

        again = BuildCache(db)
        await again.load()
        assert again.records() == cache.records()
        assert [(known.uses, known.used_at, known.is_empty) for known in again.records()] == [
            (2, 3, False),
            (1, 2, True),
        ]

    asyncio.run(main())


def test_steps_are_forgotten_but_those_in_use(db: Database) -> None:
    async def main() -> None:
        cache = BuildCache(db, ticking())
        for key in "abc":
            await cache.add(record(key))
        cache.take("b")
        cache.take("b")
        cache.give_back(["b"])  # one of two builds is over
        assert [gone.key for gone in await cache.remove(["a", "b", "x"])] == ["a"]
        assert await cache.remove([]) == []
        again = BuildCache(db)
        await again.load()
        assert len(cache) == len(again) == 2

    asyncio.run(main())


def test_a_step_is_done_by_one_at_a_time(db: Database) -> None:
    async def main() -> None:
        cache = BuildCache(db)
        order: list[str] = []
        release = await cache.claim("k")
        assert not release.waited

        async def wait(name: str) -> None:
            free = await cache.claim("k")
            assert free.waited
            order.append(name)
            await asyncio.sleep(0)
            order.append(name)
            free()

        waiting = [asyncio.create_task(wait(name)) for name in "xyz"]
        await asyncio.sleep(0)
        waiting[1].cancel()
        assert order == []
        release()
        release()  # twice is once
        await asyncio.gather(*waiting, return_exceptions=True)
        assert order == ["x", "x", "z", "z"]

    asyncio.run(main())


RECORDS = [
    record("aa", used=30, size=100),
    record("bb", used=10, size=200),
    record("cc", used=20, size=300, kind=CACHE_MOUNT),
    record("dd", used=5, size=400),
]


@pytest.mark.parametrize(
    ("budget", "keys"),
    [
        (Budget(), ["bb", "cc", "aa"]),  # dd is shared
        (Budget(everything=True), ["dd", "bb", "cc", "aa"]),
        (Budget(older_ns=20), ["bb"]),
        (Budget(ids=("a", "b")), ["bb", "aa"]),
        (Budget(kinds=(CACHE_MOUNT,)), ["cc"]),
        (Budget(reserved_bytes=1000), []),
        (Budget(reserved_bytes=999), ["bb"]),
        (Budget(max_bytes=600), ["bb", "cc"]),
        (Budget(everything=True, max_bytes=600), ["dd"]),
        (Budget(everything=True, reserved_bytes=700, max_bytes=600), ["dd"]),
    ],
)
def test_what_a_prune_takes(budget: Budget, keys: list[str]) -> None:
    assert [chosen.key for chosen in choose(RECORDS, budget, shared=lambda known: known.key == "dd")] == keys


def test_filters() -> None:
    refuse_unknown(["until", "id", "type"])
    with pytest.raises(InvalidArgument, match="invalid filter 'foo'"):
        refuse_unknown(["foo"])
