"""Drafts, as far as they need no snapshot: a layer that is complete, one that is not yet, one that never will be."""

from __future__ import annotations

import asyncio

import pytest

from tare.base.digest import Digest
from tare.images.drafts import Draft, done
from tare.images.records import Layer

LAYER = Layer(
    chain_id=Digest("sha256:" + "c" * 64),
    parent=None,
    diff_id=Digest("sha256:" + "d" * 64),
    blob=Digest("sha256:" + "b" * 64),
    blob_size=1,
    compression="gzip",
    plain_size=2,
    size_bytes=3,
)


def test_a_complete_layer_is_a_draft_by_the_name_of_its_chain() -> None:
    async def main() -> None:
        draft = done(LAYER)
        assert (draft.snapshot, draft.layer, draft.is_sealed) == ("c" * 64, LAYER, False)
        assert await draft.made is LAYER

    asyncio.run(main())


def test_a_layer_is_known_when_it_is_made() -> None:
    async def main() -> None:
        made: asyncio.Future[Layer] = asyncio.get_running_loop().create_future()
        draft = Draft("x", made, is_sealed=True)
        assert draft.layer is None
        made.set_result(LAYER)
        assert draft.layer is LAYER

    asyncio.run(main())


def test_a_layer_that_is_never_made() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        cancelled: asyncio.Future[Layer] = loop.create_future()
        cancelled.cancel()
        assert Draft("x", cancelled).layer is None
        failed: asyncio.Future[Layer] = loop.create_future()
        failed.set_exception(OSError("disk full"))
        with pytest.raises(OSError, match="disk full"):
            _ = Draft("x", failed).layer

    asyncio.run(main())
