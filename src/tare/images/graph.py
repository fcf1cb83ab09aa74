"""All images as one forest of layers: what stands on what, and which names are where. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from tare.images.lineage import Origin, origins
from tare.images.records import Image


class Node(Struct, kw_only=True):
    """One layer in its place. `chain` names it, `parent` is the chain below or ""; `images` end here: (id, names)."""

    chain: str
    parent: str
    origin: Origin
    images: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)


def forest(images: Iterable[tuple[Image, Sequence[str]]]) -> list[Node]:
    """Every layer once, below what stands on it. images: with their names.

    Images without layers share a node whose chain is "". A layer that several images have shows the step of the first.
    """
    nodes: dict[str, Node] = {}
    for image, names in images:
        known = origins(
            [str(layer.diff_id) for layer in image.layers],
            [layer.size_bytes for layer in image.layers],
            image.document.history,
        )
        for layer, origin in zip(image.layers, known, strict=True):
            node = nodes.get(layer.chain_id)
            if node is None:
                nodes[layer.chain_id] = Node(chain=layer.chain_id, parent=layer.parent or "", origin=origin)
            elif not node.origin.created_by:
                node.origin = origin
        top = image.chain_id or ""
        if not top:
            nodes.setdefault("", Node(chain="", parent="", origin=Origin(number=0)))
        nodes[top].images.append((image.id, tuple(names)))
    return list(nodes.values())


def family(nodes: Sequence[Node], chain: str) -> list[Node]:
    """Those that have their lowest layer in common with `chain`."""
    roots: dict[str, str] = {}
    for node in nodes:  # what a layer stands on comes before it
        roots[node.chain] = roots[node.parent] if node.parent else node.chain
    return [node for node in nodes if roots[node.chain] == roots[chain]]
