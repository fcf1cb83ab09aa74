"""Layers on top of each other as one: the entries of a tar that does what all of them did. Pure.

Source: image-spec layer.md (whiteouts `.wh.NAME`, opaque `.wh..wh..opq`); moby image_squash.go for the history.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from msgspec import Struct

from tare.build.tree import DIR, FILE, LINK, Member

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


class Entry(Struct, frozen=True):
    """One entry of the layer that is made. `member` has what it is; None for a whiteout. `link`: the name it is one of."""

    path: str
    layer: int = 0
    member: Member | None = None
    link: str = ""


class _Node:
    """A directory or file of the layers so far. hides: what lies below all of them does not show through here."""

    __slots__ = ("children", "hides", "layer", "member")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.hides = False
        self.layer = 0
        self.member: Member | None = None


def squash(layers: Sequence[Sequence[Member]]) -> list[Entry]:
    """The entries of one layer for several. layers: their members, the lowest first, paths clean.

    Hard links stay links where both names are left. A link to a file of a lower layer is not one by the specification,
    which wants both in the same layer; it is left out with the rest of a layer that is wrong.
    """
    root = _Node()
    for number, members in enumerate(layers):
        files = {member.name: member for member in members if member.kind == FILE}
        _hide(root, members)
        for member in members:
            if not posixpath.basename(member.name).startswith(WHITEOUT):
                _put(root, member, number, files)
    entries: list[Entry] = []
    names: dict[int, str] = {}
    _write(root, "", entries, names)
    return entries


def _hide(root: _Node, members: Sequence[Member]) -> None:
    """Whiteouts first: they mean what is below this layer, wherever in it they stand."""
    for member in members:
        parent, name = posixpath.split(member.name)
        if name == OPAQUE:
            node = _reach(root, parent)
            node.children.clear()
            node.hides = True
        elif name.startswith(WHITEOUT):
            _reach(root, parent).children[name.removeprefix(WHITEOUT)] = _gone()


def _gone() -> _Node:
    node = _Node()
    node.hides = True
    return node


def _reach(root: _Node, path: str) -> _Node:
    node = root
    for part in path.split("/") if path else ():
        node = node.children.setdefault(part, _Node())
    return node


def _put(root: _Node, member: Member, number: int, files: Mapping[str, Member]) -> None:
    real = member
    if member.kind == LINK:
        found = files.get(member.linkname)
        if found is None:
            return
        real = found
    node = _reach(root, member.name)
    if real.kind != DIR:
        node.children.clear()
        node.hides = False  # a file hides what is below it without being told to
    elif node.member is not None and node.member.kind != DIR:
        node.hides = True  # a directory where a file was: what was below the file stays hidden
    node.member, node.layer = real, number


def _write(node: _Node, path: str, entries: list[Entry], names: dict[int, str]) -> None:
    for name in sorted(node.children):
        child = node.children[name]
        place = f"{path}/{name}" if path else name
        if child.member is None:
            if child.hides and not child.children:
                entries.append(Entry(f"{path}/{WHITEOUT}{name}" if path else f"{WHITEOUT}{name}"))
                continue
        elif child.member.kind == FILE and id(child.member) in names:
            entries.append(Entry(place, child.layer, child.member, names[id(child.member)]))
        else:
            names[id(child.member)] = place
            entries.append(Entry(place, child.layer, child.member))
        if child.hides:
            entries.append(Entry(f"{place}/{OPAQUE}"))
        _write(child, place, entries, names)


def squashed_history(
    history: Sequence[Mapping[str, object]], *, kept: int, image: str, base: str, created: str
) -> list[dict[str, object]]:
    """The history of an image whose layers above `base` became one: the steps stay, without layers, and one is added.

    kept: how many entries are the base's. image: the ID it would have had. base: the ID of the base, "" for none.
    """
    told = f"merge {image} to {base}" if base else f"create new from {image}"
    steps = [{**entry, "empty_layer": True} for entry in history[kept:]]
    return [*(dict(entry) for entry in history[:kept]), *steps, {"created": created, "comment": told}]


__all__ = ["OPAQUE", "WHITEOUT", "Entry", "squash", "squashed_history"]
