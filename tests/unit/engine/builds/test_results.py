"""How long the image of a build that was made to be read is kept."""

from __future__ import annotations

import asyncio

from tare.base.digest import Digest
from tare.engine.builds.results import Held

ONE = Digest("sha256:" + "1" * 64)


class Play:
    """A `Held` with little patience, and what it has forgotten."""

    def __init__(self, patience_s: float) -> None:
        self.held = Held(patience_s=patience_s)
        self.gone = asyncio.Event()
        self.forgotten: list[Digest] = []

    def hold(self) -> None:
        self.held.hold(ONE, self._forget)

    async def _forget(self, image_id: Digest) -> None:
        self.forgotten.append(image_id)
        self.gone.set()


def test_a_result_that_nobody_comes_for_goes_after_a_while() -> None:
    async def act() -> None:
        play = Play(0.01)
        play.hold()
        play.hold()
        await asyncio.wait_for(play.gone.wait(), 10)
        assert play.forgotten == [ONE]
        assert ONE not in play.held

    asyncio.run(act())


def test_the_last_reader_lets_go_and_no_other() -> None:
    async def act() -> None:
        play = Play(3600)
        play.hold()
        play.held.begin(ONE)
        await play.held.end(ONE, is_last=False)
        assert ONE in play.held
        play.held.begin(ONE)
        await play.held.end(ONE, is_last=True)
        assert play.forgotten == [ONE]

    asyncio.run(act())


def test_each_build_of_the_same_image_has_its_own_last_reader() -> None:
    async def act() -> None:
        play = Play(3600)
        play.hold()
        play.hold()
        await play.held.end(ONE, is_last=True)
        assert not play.forgotten
        await play.held.end(ONE, is_last=True)
        assert play.forgotten == [ONE]
        await play.held.let_go(ONE)
        assert play.forgotten == [ONE]

    asyncio.run(act())


def test_patience_is_endless_while_somebody_reads_and_begins_anew_afterwards() -> None:
    async def act() -> None:
        play = Play(0.01)
        play.hold()
        play.held.begin(ONE)
        loop = asyncio.get_running_loop()
        later = asyncio.Event()
        loop.call_later(0.05, later.set)
        await later.wait()
        assert not play.forgotten
        await play.held.end(ONE, is_last=False)
        await asyncio.wait_for(play.gone.wait(), 10)

    asyncio.run(act())
