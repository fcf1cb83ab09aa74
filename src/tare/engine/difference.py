"""`tare diff A B`: what is different between two file systems, as a list or as a patch."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import AsyncIterator, Iterator, Sequence

from msgspec import Struct

from tare.aio.tasks import settle
from tare.aio.threads import in_thread
from tare.base.errors import NotFound
from tare.drivers.snapshots.difference import Directories, Pile, Place, difference
from tare.engine.engine import Engine
from tare.engine.versions import opened, place_of, translated
from tare.images import lines
from tare.oci.changeset import Change

_BATCH = 512


class Wanted(Struct, frozen=True, kw_only=True):
    """Which differences to show. below: paths; () for everything. times: also what has only another time."""

    old: str
    new: str
    below: Sequence[str] = ()
    times: bool = False
    patches: bool = False


Found = tuple[Change, bytes]
"""A change and, if patches are wanted, its patch."""


async def compare(engine: Engine, wanted: Wanted) -> AsyncIterator[list[Found]]:
    """The changes that lead from `old` to `new`, in order of paths, some at a time. Raises NotFound, InvalidArgument.

    Errors about the names come before the first piece, which may be empty.
    """
    async with opened(engine, wanted.old) as old, opened(engine, wanted.new) as new:
        with Directories() as directories:
            about = f"{wanted.old} or {wanted.new}"
            found = _changes(Pile(directories, old.layers), Pile(directories, new.layers), wanted)
            yield []
            # A client that leaves must not close directories that a thread still reads.
            while batch := await settle(in_thread(_some, found, about), name="compare file systems"):
                yield batch


def _some(found: Iterator[Found], about: str) -> list[Found]:
    batch: list[Found] = []
    with translated(about):
        for one in found:
            batch.append(one)
            if len(batch) >= _BATCH or len(one[1]) > _BATCH:
                break
    return batch


def _changes(a: Pile, b: Pile, wanted: Wanted) -> Iterator[Found]:
    for below in _tops([place_of(b, path) for path in wanted.below]) or ["/"]:
        for change, old, new in difference(a, b, below=below):
            if change.is_time_only and not wanted.times:
                continue
            if not wanted.patches:
                yield change, b""
                continue
            text = lines.patch(change, _bytes(a, old, change.path), _bytes(b, new, change.path))
            if text:
                yield change, text


def _tops(paths: Sequence[str]) -> list[str]:
    """Without what is below another one of them, so that nothing is shown twice."""
    chosen: list[str] = []
    for path in sorted(set(paths), key=lambda path: path.split("/")):
        if not any(posixpath.commonpath([path, above]) == above for above in chosen):
            chosen.append(path)
    return chosen


def _bytes(pile: Pile, place: Place | None, path: str) -> bytes | None:
    """What a patch compares."""
    if place is None:
        return b""
    if stat.S_ISLNK(place.status.st_mode):
        return pile.link(place, path).encode(errors="surrogateescape")
    if not stat.S_ISREG(place.status.st_mode):
        return b""
    try:
        return pile.read(place, path, limit=lines.MAX_BYTES)
    except NotFound:
        return b""
