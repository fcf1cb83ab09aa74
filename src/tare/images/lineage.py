"""Layers as versions of a file system: which instruction made which, and the names `IMAGE@LAYER`. Pure.

`name@2` is the image as its first two layers made it, `name@0` nothing at all, `name@-1` all but the last layer,
`name@3fa9c1` the image up to the layer whose diffID begins so. A digest has a colon (`name@sha256:…`), these have none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from tare.base.digest import Digest, hex_of
from tare.base.errors import InvalidArgument, NotFound
from tare.oci.image import History

_NUMBER = re.compile(r"-?[0-9]{1,4}\Z")
_PREFIX = re.compile(r"[0-9a-f]{6,64}\Z")


class Origin(Struct, frozen=True, kw_only=True):
    """Where a layer comes from. `number` from 1; what the image does not say is empty. diff_id "" for a container's own."""

    number: int
    diff_id: str = ""
    size_bytes: int = 0
    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""


def split_name(text: str) -> tuple[str, str]:
    """`(name, layer)` of `name@layer`; the layer is "" where none is named. Raises InvalidArgument."""
    name, at, layer = text.rpartition("@")
    if not at or ":" in layer:
        return text, ""
    if not name or not (_NUMBER.match(layer) or _PREFIX.match(layer)):
        raise InvalidArgument(
            f"{text}: after @ stands the number of a layer, or at least six digits of its diffID",
            hint="tare log IMAGE / lists the layers",
        )
    return name, layer


def count_of(layer: str, diff_ids: Sequence[str], *, name: str) -> int:
    """How many layers `name@layer` means; all of them for "". diff_ids: base first, "" for one without.

    Raises NotFound.
    """
    if not layer:
        return len(diff_ids)
    if _NUMBER.match(layer):
        number = int(layer)
        count = len(diff_ids) + number if layer.startswith("-") else number
        if not 0 <= count <= len(diff_ids):
            raise NotFound(f"{name} has {len(diff_ids)} layers, not {layer}")
        return count
    found = [
        number for number, diff_id in enumerate(diff_ids, 1) if diff_id and hex_of(Digest(diff_id)).startswith(layer)
    ]
    if not found:
        raise NotFound(f"no layer of {name} has a diffID that begins with {layer}")
    if len({diff_ids[number - 1] for number in found}) > 1:
        raise NotFound(f"several layers of {name} have a diffID that begins with {layer}")
    return found[-1]


def origins(diff_ids: Sequence[str], sizes: Sequence[int], history: Sequence[History] | None) -> list[Origin]:
    """The layers, base first, with the steps that made them.

    A history that does not count as many steps with files as there are layers is not guessed at.
    """
    steps = [step for step in history or () if not step.empty_layer]
    if len(steps) != len(diff_ids):
        steps = [History()] * len(diff_ids)
    return [
        Origin(
            number=number,
            diff_id=diff_id,
            size_bytes=size,
            created=step.created or "",
            created_by=step.created_by,
            comment=step.comment,
            author=step.author,
        )
        for number, (diff_id, size, step) in enumerate(zip(diff_ids, sizes, steps, strict=True), 1)
    ]
