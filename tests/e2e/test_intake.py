"""Layers in the making: shared by who wants them, kept while they do, gone with the last."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import random
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tare.base.digest import chain_id, sha256
from tare.base.errors import DataCorrupt
from tare.drivers import linux
from tare.drivers.archive.client import Archiver
from tare.drivers.network.bridge import BridgeDriver
from tare.drivers.snapshots.overlay import OverlaySnapshotter
from tare.images.intake import Intake, Step, WantedLayer
from tare.images.records import SCHEMA
from tare.images.service import Images
from tare.registry.downloads import Downloads
from tare.store.blobs import Blobs
from tare.store.db import Database
from tare.testing.daemon import Daemon
from tare.testing.registry import registry

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

EMPTY = bytes(1024)


def root_entry(mode: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        info = tarfile.TarInfo("./")
        info.type, info.mode, info.uid = tarfile.DIRTYPE, mode, 7
        tar.addfile(info)
    return made.getvalue()


def wanted(tar: bytes, below: WantedLayer | None = None) -> WantedLayer:
    blob = gzip.compress(tar, 1, mtime=0)
    diff_id = sha256(tar)
    return WantedLayer(
        digest=sha256(blob),
        size=len(blob),
        diff_id=diff_id,
        chain_id=chain_id([below.chain_id, diff_id]) if below else diff_id,
        parent=below.chain_id if below else None,
    )


def run(root: Path, story: Callable[[Images, Intake], Awaitable[None]]) -> None:
    async def main() -> None:
        database = Database(root / "state.db", [SCHEMA])
        archiver = Archiver()
        snapshots = OverlaySnapshotter(root)
        images = Images(
            database=database, blobs=Blobs(root), snapshots=snapshots, archiver=archiver, publish=lambda _: None
        )
        try:
            await images.restore(set())
            await asyncio.wait_for(story(images, Intake(images, Downloads(root, slots=3))), 60)
        finally:
            archiver.close()
            database.close()

    asyncio.run(main())


def source_of(tar: bytes) -> Callable[[int], object]:
    blob = gzip.compress(tar, 1, mtime=0)

    async def chunks(offset: int) -> AsyncIterator[bytes]:
        yield blob[offset:]

    @asynccontextmanager
    async def opened(offset: int) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        yield offset, chunks(offset)

    return opened


def test_a_stack_is_admitted_from_the_base_and_inherits_its_root(tmp_path: Path) -> None:
    """The upper layer says nothing about the root directory: it has the attributes of the one below."""

    async def story(images: Images, intake: Intake) -> None:
        tars = [root_entry(0o750), EMPTY, EMPTY]
        layers: list[WantedLayer] = []
        for tar in tars:
            layers.append(wanted(tar, layers[-1] if layers else None))
        steps: list[Step] = []
        async with AsyncExitStack() as stack:
            jobs = []
            for layer, tar in zip(layers, tars, strict=True):
                jobs.append(
                    await stack.enter_async_context(
                        intake.take_part(
                            layer,
                            below=jobs[-1] if jobs else None,
                            source=source_of(tar),  # type: ignore[arg-type]
                            wait_after=lambda *_: None,
                            watcher=steps.append,
                        )
                    )
                )
            made = [await job.layer for job in jobs]
            assert [layer.chain_id for layer in made] == [layer.chain_id for layer in layers]
            for layer in made:
                tree = tmp_path / "snapshots" / layer.chain_id.removeprefix("sha256:") / "fs"
                assert (tree.stat().st_mode & 0o777, tree.stat().st_uid) == (0o750, 7)
        assert [step.status for step in steps].count("Pull complete") == 3
        assert images.layers_bytes() == 0
        # nobody recorded an image: with the last who wanted them they are gone, their bytes wait for the next pull
        assert os.listdir(tmp_path / "blobs" / "sha256") == []
        assert len(os.listdir(tmp_path / "downloads")) == 2

    run(tmp_path, story)


def test_who_comes_later_shares_and_a_failure_is_everybodys(tmp_path: Path) -> None:
    async def story(_: Images, intake: Intake) -> None:
        layer = wanted(EMPTY)
        lying = source_of(EMPTY + EMPTY)
        told: list[Step] = []
        arguments = {"below": None, "source": lying, "wait_after": lambda *_: None, "watcher": told.append}
        async with (
            intake.take_part(layer, **arguments) as first,  # type: ignore[arg-type]
            intake.take_part(layer, **arguments) as second,  # type: ignore[arg-type]
        ):
            assert first is second
            with pytest.raises(DataCorrupt):
                await first.layer
        assert "0 layers" in repr(intake)
        assert os.listdir(tmp_path / "downloads") == []
        assert os.listdir(tmp_path / "ingest") == []

    run(tmp_path, story)


def test_a_full_disk_leaves_nothing_and_the_next_pull_works(tmp_path: Path) -> None:
    """Once the blob does not fit, once what is in it does not."""
    source = Path(__file__).resolve().parents[2] / "src"
    (tmp_path / "d").mkdir()
    linux.mount("none", str(tmp_path / "d"), "tmpfs", linux.MS_NOSUID, "size=40m,mode=755")
    try:
        engine = Daemon(tmp_path / "d", bridge=f"tf{os.getpid()}", source=source)
        engine.start()
        try:
            with registry() as server:
                images = {"blob": random.Random(1).randbytes(60_000_000), "files": bytes(80_000_000), "fits": b"small"}
                for name, data in images.items():
                    server.put_image("a", name, [tar_of(data)])
                for name in ("blob", "files"):
                    _, body = engine.request("POST", f"/images/create?fromImage={server.host}/a&tag={name}")
                    assert b"no space left on device" in body.splitlines()[-1], body
                    for place in ("downloads", "ingest", "blobs/sha256"):
                        assert os.listdir(engine.data_root / place) == []
                _, body = engine.request("POST", f"/images/create?fromImage={server.host}/a&tag=fits")
                assert b"Status: Downloaded newer image" in body
        finally:
            engine.stop()
            driver = BridgeDriver(rules=True)
            try:
                driver.remove_bridge(engine.bridge)
            finally:
                driver.close()
    finally:
        linux.umount(str(tmp_path / "d"), linux.MNT_DETACH)


def tar_of(data: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return made.getvalue()
