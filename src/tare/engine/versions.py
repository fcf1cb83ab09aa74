"""A file system by name, for the verbs that compare and look back: an image, a container, or one as its lower layers were."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from tare.aio.threads import in_thread
from tare.base.digest import Digest, hex_of
from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound
from tare.containers.service import Slot
from tare.drivers.snapshots.difference import Directories, Pile
from tare.engine.engine import Engine
from tare.images.lineage import Origin, count_of, origins, split_name
from tare.images.records import Image

T = TypeVar("T")


class Version(Struct, frozen=True, kw_only=True):
    """What a name stands for. layers: directories, top first; origins: base first, one for each of them.

    chain: the chainID's hex of the file system, "" for a container with what it changed and for nothing at all.
    container: its slot, where the name leads to its own layer.
    """

    name: str
    layers: tuple[Path, ...]
    origins: tuple[Origin, ...]
    chain: str = ""
    container: Slot | None = None

    def until(self, count: int) -> tuple[Path, ...]:
        """The directories of the first `count` layers, top first."""
        return self.layers[len(self.layers) - count :]


def _find(engine: Engine, name: str) -> Slot | Image:
    """A container by name or whole id, an image, a container by the beginning of its id.

    Raises NotFound, InvalidArgument for an artifact.
    """
    slot: Slot | None = None
    with contextlib.suppress(NotFound, InvalidArgument):
        slot = engine.containers.find(name)
    if slot is not None and name.removeprefix("/") in (slot.container.name, slot.container.id):
        return slot
    try:
        return engine.images.resolve(name)
    except (NotFound, InvalidArgument):
        if slot is not None:
            return slot
    engine.manifests.artifacts.refuse(name)
    raise NotFound(f"No such image or container: {name}")


@asynccontextmanager
async def opened(engine: Engine, text: str) -> AsyncIterator[Version]:
    """What `text` names (`IMAGE[@LAYER]`, `CONTAINER[@LAYER]`), kept and unpacked for the time of the block.

    Raises NotFound, InvalidArgument.
    """
    name, layer = split_name(text)
    found = _find(engine, name)
    if not isinstance(found, Image):
        yield _of_container(engine, found, text, layer)
        return
    steps = _origins(found)
    count = count_of(layer, [step.diff_id for step in steps], name=name)
    async with engine.images.standing(found):
        kept = found.layers[:count]
        chain = hex_of(kept[-1].chain_id) if kept else ""
        paths = tuple(engine.snapshots.upper(hex_of(one.chain_id)) for one in reversed(kept))
        yield Version(name=text, layers=paths, origins=tuple(steps[:count]), chain=chain)


def _origins(image: Image) -> list[Origin]:
    diff_ids = [str(layer.diff_id) for layer in image.layers]
    return origins(diff_ids, [layer.size_bytes for layer in image.layers], image.document.history)


def _of_container(engine: Engine, slot: Slot, text: str, layer: str) -> Version:
    container = slot.container
    below = engine.snapshots.lowers(container.id)[1:]  # the first one is what every container gets
    with contextlib.suppress(NotFound):
        steps = _origins(engine.images.get(container.image_id))
        if len(steps) == len(below):
            return _cut(engine, slot, text, layer, below, steps)
    # Its image was removed: the layers are known, what made them is not.
    known = [engine.images.layers.known.get(Digest(f"sha256:{path.parent.name}")) for path in reversed(below)]
    diff_ids = [str(one.diff_id) if one is not None else "" for one in known]
    sizes = [one.size_bytes if one is not None else 0 for one in known]
    return _cut(engine, slot, text, layer, below, origins(diff_ids, sizes, None))


def _cut(engine: Engine, slot: Slot, text: str, layer: str, below: list[Path], steps: list[Origin]) -> Version:
    own = Origin(number=len(steps) + 1, comment=f"container {slot.container.name}, not committed")
    every = [*steps, own]
    count = count_of(layer, [step.diff_id for step in every], name=slot.container.name)
    if count == len(every):
        paths = (engine.snapshots.upper(slot.container.id), *below)
        return Version(name=text, layers=paths, origins=tuple(every), container=slot)
    paths = tuple(below[len(below) - count :])
    chain = paths[0].parent.name if paths else ""
    return Version(name=text, layers=paths, origins=tuple(every[:count]), chain=chain)


async def looking(work: Callable[[Directories], T], *, about: str) -> T:
    """Do blocking work over layer directories in a thread. Raises Conflict when they are removed meanwhile."""

    def run() -> T:
        with Directories() as directories, translated(about):
            return work(directories)

    return await in_thread(run)


@contextlib.contextmanager
def translated(about: str) -> Iterator[None]:
    """What the disk says, as an error for the client."""
    try:
        yield
    except FileNotFoundError:
        raise Conflict(f"{about} was removed meanwhile") from None
    except OSError as error:
        raise InternalError(f"cannot read {about}: {error.strerror}") from error


def place_of(pile: Pile, path: str, *, follow: bool = False) -> str:
    """A client's path, absolute, with links followed inside (`Pile.resolve`). Raises InvalidArgument."""
    if "\0" in path:
        raise InvalidArgument("bad parameter: path contains a NUL byte")
    return pile.resolve(path, follow=follow)
