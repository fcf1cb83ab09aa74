"""`builder prune`: steps nobody will miss are forgotten, and the layers only they stood on go."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from tare.aio.threads import in_thread
from tare.build.cache import Budget, Record, choose
from tare.drivers.trees import discard, usage
from tare.engine.builds.cachemounts import is_in_use
from tare.engine.engine import Engine


def is_shared(engine: Engine, record: Record) -> bool:
    """Whether an image has the layer too, so that forgetting the step frees nothing."""
    return any(
        layer.chain_id == record.chain
        for image in engine.images.list_images({}, include_all=True)
        for layer in image.layers
    )


async def prune(engine: Engine, budget: Budget) -> tuple[list[str], int]:
    """Forget steps within the budget; with `everything` the cache mounts go too. Their keys, and the bytes freed."""
    cache = engine.build_cache
    chosen = choose(cache.records(), budget, shared=lambda record: is_shared(engine, record))
    gone = await cache.remove(record.key for record in chosen)
    freed = await engine.images.collect([record.chain for record in gone if record.chain is not None])
    deleted = [record.key for record in gone]
    root = engine.settings.data_root / "buildcache"
    if budget.everything and root.is_dir() and not budget.ids:
        for directory in sorted(root.iterdir()):
            if is_in_use(directory.name):
                continue
            freed += await in_thread(usage, directory)
            discard(directory)
            deleted.append(directory.name)
    return deleted, freed


class Kept(Struct, frozen=True, order=True):
    """Something the cache keeps: when it was last used, its key or directory, its bytes."""

    used_at: int
    name: str
    size_bytes: int
    is_mount: bool = False


def beyond(kept: Iterable[Kept], limit_bytes: int) -> list[Kept]:
    """What goes so that the rest fits: the longest unused."""
    oldest = sorted(kept)
    total = sum(item.size_bytes for item in oldest)
    gone: list[Kept] = []
    for item in oldest:
        if total <= limit_bytes:
            break
        gone.append(item)
        total -= item.size_bytes
    return gone


async def keep_within(engine: Engine, limit_bytes: int) -> None:
    """Make the build cache fit: steps and cache mounts that no build has now, the longest unused first.

    Steps whose layers an image has too are no part of it: nothing would be freed.
    """
    cache = engine.build_cache
    kept = [
        Kept(record.used_at, record.key, record.size_bytes)
        for record in cache.records()
        if not cache.is_in_use(record.key) and not is_shared(engine, record)
    ]
    root = engine.settings.data_root / "buildcache"
    for directory in sorted(root.iterdir()) if root.is_dir() else ():
        if not is_in_use(directory.name) and not directory.name.startswith("."):
            size = await in_thread(usage, directory)
            kept.append(Kept(directory.stat().st_mtime_ns, directory.name, size, is_mount=True))
    chosen = beyond(kept, limit_bytes)
    gone = await cache.remove(item.name for item in chosen if not item.is_mount)
    await engine.images.collect([record.chain for record in gone if record.chain is not None])
    for item in chosen:
        if item.is_mount and not is_in_use(item.name):
            discard(root / item.name)


__all__ = ["Kept", "beyond", "is_shared", "keep_within", "prune"]
