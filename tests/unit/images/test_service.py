"""Names and records; what needs files of root's is in tests/e2e/test_images.py."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tare.base.errors import NotFound
from tare.base.news import News
from tare.base.reference import parse_reference
from tare.drivers.archive.client import Archiver
from tare.drivers.snapshots import Snapshotter
from tare.images.documents import config_document
from tare.images.records import SCHEMA
from tare.images.service import Images
from tare.store.blobs import Blobs
from tare.store.db import Database
from tare.wire.config import ContainerConfig


def open_images(database: Database, root: Path, news: list[News]) -> Images:
    snapshots = SimpleNamespace(sweep=lambda keep: [])
    return Images(
        database=database,
        blobs=Blobs(root),
        snapshots=cast(Snapshotter, snapshots),
        archiver=Archiver(),
        publish=news.append,
    )


def document(word: str) -> bytes:
    return config_document(ContainerConfig(Cmd=[word]), created="2024-01-01T00:00:00Z", layers=(), history=[])


def test_a_tag_moves_and_all_is_there_after_a_restart(tmp_path: Path) -> None:
    news: list[News] = []

    async def main() -> None:
        database = Database(tmp_path / "state.db", [SCHEMA])
        try:
            images = open_images(database, tmp_path, news)
            await images.restore(set())
            first = await images.add_image(document("a"), (), references=[parse_reference("app:1")])
            second = await images.add_image(document("b"), (), references=[parse_reference("app:2")])
            await images.tag(second, parse_reference("app:1"))
            again = open_images(database, tmp_path, news)
            await again.restore(set())
            for known in (images, again):
                assert known.resolve("app:1").id == known.resolve("app:2").id == second.id
                assert known.references(first.id) == []
                assert known.get(first.id).config.Cmd == ["a"]
            removed = await again.remove("app:1", uses=[])
            assert removed == [("Untagged", "app:1")]
            removed = await again.remove(second.id, uses=[])
            assert removed == [("Untagged", "app:2"), ("Deleted", second.id)]
            with pytest.raises(NotFound):
                again.resolve("app:2")
        finally:
            database.close()

    asyncio.run(main())
    assert [item.action for item in news] == ["tag", "tag", "tag", "untag", "untag", "delete"]
