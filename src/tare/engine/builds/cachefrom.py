"""`--cache-from`: a build that names images takes from the cache only what those images are made of, as dockerd's does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from tare.base.digest import Digest
from tare.base.errors import InvalidArgument, NotFound
from tare.images.records import Image
from tare.images.service import Images
from tare.oci.image import History


class CacheSources(Struct, frozen=True):
    """The images a build may take steps from; none of them when nothing that was named is here."""

    images: tuple[Image, ...]

    def have_files(self, chain: Digest | None) -> bool:
        """Whether one of them stands on this file system; None for an empty one."""
        if chain is None:
            return bool(self.images)
        return any(layer.chain_id == chain for image in self.images for layer in image.layers)

    def have_step(self, before: Sequence[Mapping[str, object]], told: str) -> bool:
        """Whether one of them came about by the steps `before` and then a step that changed no file.

        before: entries of a history as in an image's configuration, oldest first.
        """
        steps = [*((entry.get("created_by", ""), bool(entry.get("empty_layer"))) for entry in before), (told, True)]
        return any(_steps(image.document.history or (), len(steps)) == steps for image in self.images)


def _steps(history: Sequence[History], count: int) -> list[tuple[object, bool]]:
    return [(entry.created_by, entry.empty_layer) for entry in history[:count]]


def cache_sources(images: Images, names: Iterable[str]) -> CacheSources | None:
    """The named images that are here, None if none was named. What is not here is left out, as dockerd leaves it."""
    found: list[Image] = []
    wanted = tuple(names)
    for name in wanted:
        try:
            found.append(images.resolve(name))
        except (NotFound, InvalidArgument):
            continue
    return CacheSources(tuple(found)) if wanted else None


__all__ = ["CacheSources", "cache_sources"]
