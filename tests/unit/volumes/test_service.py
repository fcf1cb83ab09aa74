"""The service on a real database and the local driver, without mounts."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.base.news import News
from tare.drivers import linux
from tare.drivers.volumes.local import LocalVolumes
from tare.store.db import Database
from tare.volumes import records
from tare.volumes.records import ANONYMOUS
from tare.volumes.service import Volumes

Story = Callable[[Volumes, list[News]], Awaitable[None]]
HOLDER = "c" * 64


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Story], None]:
    """Run a story with a service over the test's directory; again, for what a restart sees."""

    def nothing_there(_target: str, _flags: int = 0) -> None:
        raise OSError(errno.EINVAL, "not a mount point")

    monkeypatch.setattr(linux, "umount", nothing_there)

    def runner(story: Story) -> None:
        async def main() -> None:
            told: list[News] = []
            database = Database(tmp_path / "state.db", (records.SCHEMA,))
            try:
                volumes = Volumes(database=database, drivers={"local": LocalVolumes(tmp_path)}, publish=told.append)
                await volumes.restore({"kept": {HOLDER}}, {})
                await story(volumes, told)
            finally:
                database.close()

        asyncio.run(main())

    return runner


def test_create_is_idempotent_and_survives_a_restart(run: Callable[[Story], None]) -> None:
    async def make(volumes: Volumes, told: list[News]) -> None:
        first = await volumes.create("one", labels={"a": "b"})
        assert await volumes.create("one", driver="local", labels={"c": "d"}) is first
        anonymous = await volumes.create("")
        assert len(anonymous.name) == 64
        assert anonymous.labels == {ANONYMOUS: ""}
        with pytest.raises(Conflict, match="volume name must be unique"):
            await volumes.create("one", driver="nope")
        with pytest.raises(NotFound, match='create two: error looking up volume plugin nope: plugin "nope" not found'):
            await volumes.create("two", driver="nope")
        with pytest.raises(InvalidArgument, match="create a/b: "):
            await volumes.create("a/b")
        assert [(news.action, news.id) for news in told] == [("create", "one"), ("create", anonymous.name)]

    async def look(volumes: Volumes, _: list[News]) -> None:
        assert volumes.get("one").labels == {"a": "b"}
        assert len(volumes.select({})) == 2
        assert [record.name for record in volumes.select({"label": ["a=b"]})] == ["one"]
        assert volumes.select({"driver": ["other"]}) == []

    run(make)
    run(look)


def test_what_is_held_stays(run: Callable[[Story], None]) -> None:
    async def story(volumes: Volumes, told: list[News]) -> None:
        record, is_new = await volumes.obtain("mine", HOLDER)
        assert is_new
        assert volumes.held_by(HOLDER) == ["kept", "mine"]
        with pytest.raises(Conflict, match=rf"remove mine: volume is in use - \[{HOLDER}\]"):
            await volumes.remove("mine")
        assert volumes.select({"dangling": ["true"]}) == []
        assert await volumes.prune({}, include_named=True) == ([], 0)
        volumes.let_go("mine", HOLDER)
        volumes.let_go("mine", HOLDER)
        assert volumes.select({"dangling": ["true"]}) == [record]
        await volumes.remove("mine")
        with pytest.raises(NotFound, match="get mine: no such volume"):
            await volumes.remove("mine")
        await volumes.remove("mine", force=True)
        assert [news.action for news in told] == ["create", "prune", "destroy"]

    run(story)


def test_prune_takes_named_ones_only_when_told(run: Callable[[Story], None]) -> None:
    async def story(volumes: Volumes, told: list[News]) -> None:
        await volumes.create("named")
        anonymous = await volumes.create("", labels={"keep": "no"})
        (volumes.path(anonymous.name) / "f").write_bytes(b"12345")
        assert await volumes.prune({"label": ["keep=yes"]}, include_named=False) == ([], 0)
        assert await volumes.prune({}, include_named=False) == ([anonymous.name], 5)
        assert told[-1] == News(type="volume", action="prune", id="", attributes={"reclaimed": "5"})
        assert await volumes.prune({}, include_named=True) == (["named"], 0)

    run(story)


def test_content_without_a_record_comes_back(run: Callable[[Story], None], tmp_path: Path) -> None:
    lost = tmp_path / "volumes/lost/_data"
    lost.mkdir(parents=True)
    (lost / "f").write_text("precious")
    (tmp_path / "volumes" / ("e" * 64) / "_data").mkdir(parents=True)

    async def story(volumes: Volumes, _: list[News]) -> None:
        assert [record.name for record in volumes.select({})] == ["lost"]
        assert not (tmp_path / "volumes" / ("e" * 64)).exists()  # nothing was in it
        assert await volumes.usage("lost") == 8

    run(story)


def test_users_come_and_go(run: Callable[[Story], None]) -> None:
    async def story(volumes: Volumes, _: list[News]) -> None:
        await volumes.create("used")
        assert await volumes.mount("used", "a") == volumes.path("used")
        assert await volumes.unmount("used", "a")
        assert not await volumes.unmount("used", "a")
        assert not await volumes.unmount("gone", "a")
        with pytest.raises(NotFound):
            await volumes.mount("gone", "a")

    run(story)


def test_a_volume_that_could_not_be_deleted_is_still_there(
    run: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lost its record, and came back without its labels at the next start."""

    async def fail(volumes: Volumes, _: list[News]) -> None:
        await volumes.create("one", labels={"a": "b"})
        with monkeypatch.context() as broken:
            broken.setattr(LocalVolumes, "remove", lambda *_: linux.umount("/nowhere", 0))
            with pytest.raises(OSError, match="not a mount point"):
                await volumes.remove("one")
        assert volumes.get("one").labels == {"a": "b"}

    async def again(volumes: Volumes, _: list[News]) -> None:
        assert volumes.get("one").labels == {"a": "b"}
        await volumes.remove("one")
        with pytest.raises(NotFound):
            volumes.get("one")

    run(fail)
    run(again)
