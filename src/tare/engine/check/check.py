"""`tare system check`: every invariant, then every byte; what is wrong is told at once, and mended where asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from msgspec import Struct

from tare.base import clock
from tare.base.errors import Conflict
from tare.base.news import News
from tare.engine.check import findings as kinds
from tare.engine.check.contents import in_artifacts, look_at
from tare.engine.check.facts import gather
from tare.engine.check.findings import Finding
from tare.engine.check.invariants import broken
from tare.engine.check.mend import mend
from tare.engine.engine import Engine
from tare.images.records import Layer

GRACE_S = 3600.0
QUIET_GRACE_S = 0.001  # nothing is in flight; what downloads and uploads left is kept for its days all the same
_RUNNING = "check"


class Options(Struct, frozen=True, kw_only=True):
    """quick: names, sizes and records only, no contents. fix: mend. grace_s, is_quiet: see `facts`."""

    quick: bool = False
    fix: bool = False
    grace_s: float = GRACE_S
    is_quiet: bool = False


class Doing(Struct, frozen=True):
    """How far it is: bytes of blobs read, of all; the blob that comes next."""

    current: int
    total: int
    blob: str


class Told(Struct, frozen=True):
    """A finding. mended: it is gone; note: else why not, if mending was tried."""

    finding: Finding
    mended: bool = False
    note: str = ""


class Summary(Struct, frozen=True, kw_only=True):
    """The end. Bytes of blobs that were read; findings, and how many of them are left."""

    blobs: int
    layers: int
    containers: int
    bytes_read: int
    findings: int
    left: int
    took_s: float


async def check(engine: Engine, options: Options) -> AsyncIterator[Doing | Told | Summary]:
    """Look at everything, telling each finding when it is known; the last value is the summary.

    Raises Conflict when a check runs already.
    """
    if _RUNNING in engine.pruning:
        raise Conflict("a check is already running")
    engine.pruning.add(_RUNNING)
    try:
        async with aclosing(_check(engine, options)) as steps:  # type: ignore[type-var]
            async for step in steps:
                yield step
    finally:
        engine.pruning.discard(_RUNNING)


async def _check(engine: Engine, options: Options) -> AsyncIterator[Doing | Told | Summary]:
    began = clock.now()
    found = left = read = 0
    world = await gather(engine, grace_s=options.grace_s, is_quiet=options.is_quiet)
    for finding in broken(world):
        told = await _tell(engine, finding, options)
        found, left = found + 1, left + (not told.mended)
        yield told
    layers = in_order(list(world.layers.values()))
    if not options.quick:
        total = sum(layer.blob_size for layer in layers)
        bad: set[str] = set()  # blobs that stay damaged: each is told once
        for layer in layers:
            yield Doing(read, total, layer.blob)
            pending = [] if layer.blob in bad else await look_at(engine, layer)
            while pending:
                finding = pending.pop()
                told = await _tell(engine, finding, options)
                found, left = found + 1, left + (not told.mended)
                yield told
                if finding.kind == kinds.BLOB_DAMAGED:
                    if told.mended:  # its files could not be compared with it before
                        pending = await look_at(engine, layer)
                    else:
                        bad.add(finding.subject)
            read += layer.blob_size
        for finding in await in_artifacts(engine):
            told = await _tell(engine, finding, options)
            found, left = found + 1, left + (not told.mended)
            yield told
    if found:
        engine.events.publish(
            News(type="daemon", action="check", id=engine.settings.engine_id, attributes={"findings": str(found)})
        )
    yield Summary(
        blobs=len({layer.blob for layer in layers}),
        layers=len(layers),
        containers=len(world.containers),
        bytes_read=read,
        findings=found,
        left=left,
        took_s=(clock.now() - began) / 1e9,
    )


async def _tell(engine: Engine, finding: Finding, options: Options) -> Told:
    if not options.fix:
        return Told(finding)
    why = await mend(engine, finding)
    return Told(finding, mended=not why, note=why)


def in_order(layers: list[Layer]) -> list[Layer]:
    """Those that others stand on first, so that a layer is mended before what lies on it."""
    known = {layer.chain_id: layer for layer in layers}
    depth: dict[str, int] = {}

    def depth_of(layer: Layer) -> int:
        path = []
        here: Layer | None = layer
        while here is not None and here.chain_id not in depth:
            path.append(here)
            here = known.get(here.parent) if here.parent else None
        base = depth[here.chain_id] if here is not None else -1
        for position, above in enumerate(reversed(path), 1):
            depth[above.chain_id] = base + position
        return depth[layer.chain_id]

    return sorted(layers, key=lambda layer: (depth_of(layer), layer.chain_id))
