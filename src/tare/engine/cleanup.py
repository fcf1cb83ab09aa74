"""Removing images by a policy: on request, or every ten minutes where the daemon was told to (`--image-gc`)."""

from __future__ import annotations

import asyncio
import logging

from msgspec import Struct

from tare.base import clock
from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.base.news import News
from tare.engine import imagemount
from tare.engine.engine import Engine, image_uses
from tare.images import cleanup
from tare.images.cleanup import Doomed, Policy

log = logging.getLogger(__name__)

EVERY_S = 600.0
_FIRST_S = 30.0
_KIND = "images"


class Cleaned(Struct, frozen=True, kw_only=True):
    """What was chosen, in order; those that were removed; bytes freed (what would be, of a dry run)."""

    chosen: tuple[Doomed, ...]
    names: dict[str, list[str]]
    removed: frozenset[str]
    freed_bytes: int


def choose(engine: Engine, policy: Policy) -> list[Doomed]:
    """What the policy removes now."""
    images = engine.images
    used = {use.image_id for use in (*image_uses(engine), *imagemount.uses(engine))}
    every = images.list_images({}, include_all=True)
    return cleanup.plan(every, policy, used=used, last_use=images.last_use, now_ns=clock.now())


async def clean(engine: Engine, policy: Policy, *, dry_run: bool = False) -> Cleaned:
    """Remove what the policy says. Raises InvalidArgument for one without bounds, Conflict while images are pruned."""
    if not policy:
        raise InvalidArgument(
            "no clean-up policy", hint="give one, as max-age=30d, or start the daemon with --image-gc"
        )
    if _KIND in engine.pruning:
        raise Conflict("a prune operation is already running")
    engine.pruning.add(_KIND)
    try:
        chosen = choose(engine, policy)
        names: dict[str, list[str]] = {
            item.image.id: [reference.familiar() for reference in engine.images.references(item.image.id)]
            for item in chosen
        }
        before = engine.images.layers_bytes()
        if dry_run:
            gone = {item.image.id for item in chosen}
            left = [image for image in engine.images.list_images({}, include_all=True) if image.id not in gone]
            freed = cleanup.layers_bytes(engine.images.list_images({}, include_all=True)) - cleanup.layers_bytes(left)
            return Cleaned(chosen=tuple(chosen), names=names, removed=frozenset(), freed_bytes=freed)
        removed = set()
        for item in chosen:
            uses = [*image_uses(engine), *imagemount.uses(engine)]
            if any(use.image_id == item.image.id for use in uses):
                continue  # somebody came meanwhile
            try:
                await engine.images.remove(item.image.id, uses=uses, force=True, prune=False)
            except (Conflict, NotFound):
                continue
            removed.add(item.image.id)
            log.info("image %s removed: %s", ", ".join(names[item.image.id]) or item.image.id, item.reason)
        freed = before - engine.images.layers_bytes()
        if removed:
            attributes = {"reclaimed": str(freed), "images": str(len(removed))}
            engine.events.publish(News(type="image", action="prune", id="", attributes=attributes))
        return Cleaned(chosen=tuple(chosen), names=names, removed=frozenset(removed), freed_bytes=freed)
    finally:
        engine.pruning.discard(_KIND)


async def watch(engine: Engine, policy: Policy, *, first_s: float = _FIRST_S) -> None:
    """Clean up again and again, as long as the engine runs."""
    await asyncio.sleep(first_s)
    while True:
        try:
            await clean(engine, policy)
        except Conflict:
            pass  # somebody prunes: next time
        except Exception:
            log.exception("cleaning up images")
        await asyncio.sleep(EVERY_S)
