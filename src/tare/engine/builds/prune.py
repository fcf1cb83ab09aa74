"""`builder prune`: steps nobody will miss are forgotten, and the layers only they stood on go."""

from __future__ import annotations

from tare.aio.threads import in_thread
from tare.build.cache import Budget, Record, choose
from tare.drivers.trees import discard, usage
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
            freed += await in_thread(usage, directory)
            discard(directory)
            deleted.append(directory.name)
    return deleted, freed


__all__ = ["is_shared", "prune"]
