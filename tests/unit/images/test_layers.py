"""Chains, and work that a leaving client does not cut; the rest is in tests/e2e/test_images.py."""

from __future__ import annotations

import asyncio

import pytest

from tare.base.digest import chain_id, sha256
from tare.images.layers import chain_of, settle
from tare.images.records import Layer


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
