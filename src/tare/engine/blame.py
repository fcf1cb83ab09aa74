"""`tare log` and `tare blame`: which layers changed a path, and which of them wrote what is there now."""

from __future__ import annotations

import stat

from msgspec import Struct

from tare.base.errors import InvalidArgument, NotFound
from tare.drivers.snapshots.difference import Directories, Pile, Place
from tare.engine.engine import Engine
from tare.engine.versions import Version, looking, opened, place_of
from tare.images import lines
from tare.images.lineage import Origin
from tare.oci.changeset import ADDED, CHANGED, DELETED, Entry

MAX_BYTES = 8 * 1024 * 1024


class Touch(Struct, frozen=True, kw_only=True):
    """A layer changed the path; entry is what it was afterwards, None when it was gone."""

    origin: Origin
    kind: str
    entry: Entry | None


class Part(Struct, frozen=True, kw_only=True):
    """A line of a file (without its newline), or a member of a directory, and the layer it comes from."""

    origin: Origin
    text: bytes


class Blame(Struct, frozen=True, kw_only=True):
    """What is at `path`: the lines of a file, or the names in a directory (which end in "/" for directories)."""

    path: str
    is_directory: bool
    parts: list[Part]


async def log(engine: Engine, name: str, path: str) -> tuple[str, list[Touch]]:
    """The path it is about, and the layers that changed it, newest first; of a directory, those that changed something in it.

    Raises NotFound when the path was never there.
    """
    async with opened(engine, name) as version:
        return await looking(lambda directories: _log(directories, version, path), about=name)


def _log(directories: Directories, version: Version, path: str) -> tuple[str, list[Touch]]:
    place = place_of(Pile(directories, version.layers), path)
    touches = [touch for touch, _, _ in _touches(directories, version, place)]
    if not touches:
        raise NotFound(f"{path} was never in {version.name}")
    return place, touches[::-1]


def _touches(directories: Directories, version: Version, path: str) -> list[tuple[Touch, Pile, Place | None]]:
    """What each layer did to the path, base first."""
    found: list[tuple[Touch, Pile, Place | None]] = []
    before: Place | None = None
    for count, origin in enumerate(version.origins, 1):
        layers = version.until(count)
        pile = Pile(directories, layers)
        place = pile.at(path)
        if place is None:
            if before is not None:
                found.append((Touch(origin=origin, kind=DELETED, entry=None), pile, None))
        elif place.layer == layers[0]:
            kind = ADDED if before is None else CHANGED
            found.append((Touch(origin=origin, kind=kind, entry=pile.entry(place, path)), pile, place))
        before = place
    return found


async def blame(engine: Engine, name: str, path: str) -> Blame:
    """Who wrote what is at the path now. A link at the end is followed.

    Raises NotFound, and InvalidArgument for what has neither lines nor members.
    """
    async with opened(engine, name) as version:
        return await looking(lambda directories: _blame(directories, version, path), about=name)


def _blame(directories: Directories, version: Version, path: str) -> Blame:
    pile = Pile(directories, version.layers)
    place = place_of(pile, path, follow=True)
    found = pile.at(place)
    if found is None:
        raise NotFound(f"{path} is not in {version.name}")
    by_layer = dict(zip(version.layers, reversed(version.origins), strict=True))
    if found.is_directory:
        members = pile.names(place, found)
        parts = [
            Part(
                origin=by_layer[member.layer], text=(name + "/" * member.is_directory).encode(errors="surrogateescape")
            )
            for name, member in members.items()
        ]
        return Blame(path=place, is_directory=True, parts=parts)
    if not stat.S_ISREG(found.status.st_mode):
        raise InvalidArgument(f"{path} is neither a file nor a directory")
    return Blame(path=place, is_directory=False, parts=_lines(directories, version, place))


def _lines(directories: Directories, version: Version, path: str) -> list[Part]:
    texts: list[tuple[int, bytes]] = []
    is_text = False
    for touch, pile, place in _touches(directories, version, path):
        data = None
        if place is not None and stat.S_ISREG(place.status.st_mode):
            data = pile.read(place, path, limit=MAX_BYTES)
        is_text = data is not None and lines.is_text(data)
        if data is not None and is_text:
            texts.append((touch.origin.number, data))
        else:
            texts.clear()  # what comes after that is all new
    if not is_text:
        raise InvalidArgument(f"{path} is not text, or larger than {MAX_BYTES >> 20} MiB")
    by_number = {origin.number: origin for origin in version.origins}
    return [Part(origin=by_number[number], text=line.removesuffix(b"\n")) for number, line in lines.blame(texts)]
