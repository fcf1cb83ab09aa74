from __future__ import annotations

from tare.base.digest import Digest
from tare.images.graph import family, forest
from tare.images.layers import chain_of
from tare.images.records import Image, Layer
from tare.oci.image import History, ImageConfig
from tare.wire.config import ContainerConfig


def digest(letter: str) -> Digest:
    return Digest("sha256:" + letter * 64)


def image(name: str, letters: str, *, steps: bool = True) -> Image:
    """An image of the layers `letters`, each a diffID, base first."""
    stack: list[Layer] = []
    for letter in letters:
        below = stack[-1] if stack else None
        stack.append(
            Layer(
                chain_id=chain_of(below, digest(letter)),
                parent=below.chain_id if below else None,
                diff_id=digest(letter),
                blob=digest(letter),
                blob_size=1,
                compression="gzip",
                plain_size=1,
                size_bytes=ord(letter),
            )
        )
    history = [History(created_by=f"RUN {letter}") for letter in letters] if steps else None
    config = ContainerConfig()
    return Image(id=digest(name), raw=b"", document=ImageConfig(history=history), config=config, layers=tuple(stack))


def test_layers_are_shared() -> None:
    one, two, three = image("1", "ab", steps=False), image("2", "ac"), image("3", "b")
    nodes = forest([(one, ["x:1"]), (two, ["y:1", "y:2"]), (three, []), (image("4", ""), ["none"])])
    shown = {node.chain: (node.origin.created_by, node.images) for node in nodes}
    assert shown == {
        one.layers[0].chain_id: ("RUN a", []),  # said by the image that knows
        one.chain_id: ("", [(one.id, ("x:1",))]),
        two.chain_id: ("RUN c", [(two.id, ("y:1", "y:2"))]),
        three.chain_id: ("RUN b", [(three.id, ())]),
        "": ("", [(digest("4"), ("none",))]),
    }
    assert [node.parent for node in nodes[:3]] == ["", one.layers[0].chain_id, one.layers[0].chain_id]
    assert {node.chain for node in family(nodes, two.chain_id or "")} == {
        one.layers[0].chain_id,
        one.chain_id,
        two.chain_id,
    }
    assert [node.chain for node in family(nodes, "")] == [""]
