"""Downloads: resumed, shared, bounded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tare.base.digest import Digest, hex_of, sha256
from tare.base.errors import DataCorrupt, Unavailable
from tare.registry.challenge import Refusal
from tare.registry.downloads import Download, Downloads, file_digest
from tare.registry.transport import Unreachable

DATA = bytes(range(256)) * 20_000
DIGEST = sha256(DATA)


class Source:
    """Bytes with cuts: each request ends after the next number of `cuts`, then with all there is."""

    def __init__(self, data: bytes = DATA, cuts: tuple[int, ...] = ()) -> None:
        self.data = data
        self.cuts = list(cuts)
        self.asked: list[int] = []
        self.has_ranges = True
        self.gate: asyncio.Event | None = None
        self.stopped = asyncio.Event()  # it waits at the gate

    @asynccontextmanager
    async def open(self, offset: int) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        self.asked.append(offset)
        start = offset if self.has_ranges else 0
        yield start, self._chunks(start)

    async def _chunks(self, start: int) -> AsyncIterator[bytes]:
        end = start + self.cuts.pop(0) if self.cuts else None
        part = self.data[start:end]
        for at in range(0, len(part), 100_000):
            if self.gate is not None and start + at >= 2_000_000:
                self.stopped.set()
                await self.gate.wait()
            yield part[at : at + 100_000]
        if end is not None:
            raise Unreachable("cut")


def again(_: Exception, attempt: int) -> float | None:
    return 0 if attempt < 3 else None


def run(root: Path, story: Callable[[Downloads], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(Downloads(root, slots=2)), 20))


async def read(download: Download) -> bytes:
    return b"".join([chunk async for chunk in download.chunks()])


async def fetch(downloads: Downloads, source: Source, *, digest: Digest = DIGEST, size: int = len(DATA)) -> bytes:
    async with downloads.fetch(digest, size, source=source.open, wait_after=again) as download:
        data = await read(download)
        await download.finished()
        return data


def test_cuts_are_healed(tmp_path: Path) -> None:
    source = Source(cuts=(1_500_000, 1, 2_000_000))

    async def story(downloads: Downloads) -> None:
        assert await fetch(downloads, source) == DATA
        assert source.asked == [0, 1_500_000, 1_500_001, 3_500_001]
        assert await fetch(downloads, source) == DATA
        assert len(source.asked) == 4  # it is all here
        downloads.forget(DIGEST)
        assert os.listdir(tmp_path / "downloads") == []

    run(tmp_path, story)


def test_what_came_before_a_restart_is_kept(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / hex_of(DIGEST)).write_bytes(DATA[:777])
    source = Source()

    async def story(downloads: Downloads) -> None:
        assert await fetch(downloads, source) == DATA
        assert source.asked == [777]

    run(tmp_path, story)


def test_a_registry_that_begins_anew(tmp_path: Path) -> None:
    source = Source(cuts=(3_000_000,))
    source.has_ranges = False

    async def story(downloads: Downloads) -> None:
        assert await fetch(downloads, source) == DATA

    run(tmp_path, story)


def test_one_download_for_many_and_none_for_nobody(tmp_path: Path) -> None:
    source = Source()

    async def story(downloads: Downloads) -> None:
        source.gate = asyncio.Event()
        tasks = [asyncio.create_task(fetch(downloads, source)) for _ in range(20)]
        await source.stopped.wait()
        assert "1 under way" in repr(downloads)
        tasks[0].cancel()
        source.gate.set()
        assert [await task for task in tasks[1:]] == [DATA] * 19
        assert source.asked == [0]
        assert "0 under way" in repr(downloads)
        downloads.forget(DIGEST)
        source.gate.clear()
        source.stopped.clear()
        last = asyncio.create_task(fetch(downloads, source))
        file = tmp_path / "downloads" / hex_of(DIGEST)
        await source.stopped.wait()
        last.cancel()
        await asyncio.wait({last})
        assert "0 under way" in repr(downloads)
        assert 0 < file.stat().st_size < len(DATA)

    run(tmp_path, story)


def test_failures(tmp_path: Path) -> None:
    async def story(downloads: Downloads) -> None:
        with pytest.raises(DataCorrupt, match="longer than"):
            await fetch(downloads, Source(DATA + b"x"))
        downloads.forget(DIGEST)
        with pytest.raises(Unreachable, match="ended after"):
            await fetch(downloads, Source(DATA[:-5]))
        downloads.forget(DIGEST)
        with pytest.raises(Unreachable):
            await fetch(downloads, Source(cuts=(0, 0, 0, 0)))
        with pytest.raises(Unavailable, match="no space"):
            await fetch(downloads, Source(b""), size=1 << 60)
        with pytest.raises(DataCorrupt, match="sha256"):
            await fetch(downloads, Source(), digest=Digest("sha512:" + "0" * 128))

        @asynccontextmanager
        async def refuse(_: int) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
            raise Refusal("no", status=416)
            yield 0, aiter(())  # type: ignore[call-overload]

        with pytest.raises(DataCorrupt, match="fewer bytes"):
            async with downloads.fetch(DIGEST, len(DATA), source=refuse, wait_after=again) as download:
                await read(download)

    run(tmp_path, story)


def test_old_parts_are_swept(tmp_path: Path) -> None:
    async def story(downloads: Downloads) -> None:
        place = tmp_path / "downloads"
        for name, age in (("a" * 64, 10), ("b" * 64, 1000), ("stray", 0)):
            (place / name).touch()
            os.utime(place / name, (5000 - age, 5000 - age))
        assert downloads.sweep(now_s=5000, kept_s=100) == ["b" * 64, "stray"]

    run(tmp_path, story)


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    assert file_digest(tmp_path / "x", len(DATA)) == DIGEST
    assert file_digest(tmp_path / "x", 5) == ""
    assert file_digest(tmp_path / "none", 5) == ""
