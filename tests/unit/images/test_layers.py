"""Chains, and work that a leaving client does not cut; the rest is in tests/e2e/test_images.py."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tare.base.digest import chain_id, sha256
from tare.drivers.archive.pipeline import Result
from tare.images.layers import Layers, Lease, Staged, chain_of, settle
from tare.images.records import Layer
from tare.store.blobs import Blobs


def layer(name: bytes, parent: Layer | None) -> Layer:
    diff_id = sha256(name)
    return Layer(
        chain_id=chain_of(parent, diff_id),
        parent=parent.chain_id if parent else None,
        diff_id=diff_id,
        blob=diff_id,
        blob_size=1,
        compression="gzip",
        plain_size=1,
        size_bytes=1,
    )


def test_a_chain_names_the_whole_stack() -> None:
    base = layer(b"base", None)
    top = layer(b"top", layer(b"middle", base))
    assert base.chain_id == base.diff_id
    assert top.chain_id == chain_id([sha256(b"base"), sha256(b"middle"), sha256(b"top")])


def test_what_settles_is_over_before_the_cancellation_is_told() -> None:
    seen: list[str] = []

    async def main() -> None:
        started, go = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            started.set()
            await go.wait()
            seen.append("done")

        task = asyncio.ensure_future(settle(work(), name="work"))
        await started.wait()
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        seen.append("cancelled")

    asyncio.run(main())
    assert seen == ["done", "cancelled"]


class Snapshots:
    """Names only; `is_broken`: the next one is not committed."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.is_broken = True

    def mark_opaque(self, _directory: Path, _paths: list[str]) -> None:
        pass

    def commit_from(self, _directory: Path, name: str, _parent: str | None) -> bool:
        self.names.add(name)
        if self.is_broken:
            raise OSError("no space left")
        return True

    def remove(self, name: str) -> None:
        self.names.discard(name)


def test_nothing_of_a_layer_stays_whose_admission_failed_half_way(tmp_path: Path) -> None:
    """Blob and files were there without a record until the next start."""
    blobs, snapshots = Blobs(tmp_path), Snapshots()
    result = Result(
        compression="none",
        input_digest=sha256(b"b"),
        input_size=1,
        plain_digest=sha256(b"p"),
        plain_size=1,
        blob_digest=sha256(b"b"),
        blob_size=1,
        has_root=True,
    )

    def staged() -> Staged:
        ingest = blobs.new_ingest()
        (ingest / "snapshot").mkdir()
        (ingest / "blob").write_bytes(b"b")
        return Staged(ingest, result)

    async def main() -> None:
        made: Any = {"snapshots": snapshots, "archiver": None}
        layers = Layers(blobs=blobs, lock=asyncio.Lock(), **made)
        lease = Lease()
        with pytest.raises(OSError, match="no space left"):
            await layers.admit(lease, staged(), None)
        assert (layers.known, dict(layers.leases), snapshots.names) == ({}, {}, set())
        assert not blobs.path(sha256(b"b")).exists()
        snapshots.is_broken = False
        known = await layers.admit(lease, staged(), None)
        assert layers.known == {known.chain_id: known}
        assert blobs.path(sha256(b"b")).read_bytes() == b"b"

    asyncio.run(main())
