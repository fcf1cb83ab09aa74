"""`tare history --graph`: the layers of images as a tree, newest on top, as git draws its history."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import human, listing
from tare.cli.versions import short, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tare.cli.context import Context

    Found = Mapping[str, object]


def label(layer: Found, *, full: bool) -> str:
    """What stands beside a layer: its diffID, the images that end here, the instruction, the size."""
    origin = layer.get("Origin")
    assert isinstance(origin, dict)
    words = [short(origin) if layer.get("ChainID") else "(no layers)"]
    listed = layer.get("Images")
    names: list[str] = []
    for image in listed if isinstance(listed, list) else []:
        assert isinstance(image, dict)
        known = image.get("Names")
        every = [str(name) for name in known] if isinstance(known, list) else []
        tags = [name for name in every if full or "@" not in name]  # what a registry calls a tag says little more
        names += tags or every or [f"<none> {listing.short_id(str(image.get('Id')))}"]
    if names:
        words.append(f"({', '.join(listing.escape(name) for name in names)})")
    if text := step(origin, full=full):
        words.append(text)
    if layer.get("ChainID"):
        words.append(human.size(int(str(origin.get("Size") or 0)), digits=3))
    return " ".join(words)


def draw(layers: Sequence[Found], *, full: bool = False) -> list[str]:
    """The lines, what stands on a layer above it. layers: each after the one it stands on."""
    drawn: dict[str, list[list[str]]] = {"": []}
    for layer in layers:
        drawn[str(layer.get("ChainID"))] = []
    # From the top down: when a layer is drawn, everything that stands on it is.
    for layer in reversed(layers):
        above = drawn.pop(str(layer.get("ChainID")), [])
        lines = above[-1] if above else []
        for branch in reversed(above[:-1]):
            lines += [f"| {line}" for line in branch]
            lines.append("|/")
        lines.append(f"* {label(layer, full=full)}")
        drawn.setdefault(str(layer.get("Parent") or ""), []).append(lines)
    out: list[str] = []
    for tree in reversed(drawn[""]):
        if out:
            out.append("")
        out += tree
    return out


def run(context: Context, image: str, *, full: bool) -> int:
    """`tare history --graph [IMAGE]`."""
    answer = context.client.get("/tare/v1/graph", query={"of": image})
    layers = [layer for layer in answer if isinstance(layer, dict)] if isinstance(answer, list) else []
    listing.lines(context, draw(layers, full=full))
    return exits.OK
