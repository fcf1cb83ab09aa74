"""Which images an automatic clean-up removes: by how long nobody used them, how many there are, and what they take. Pure.

Nothing in use goes: not by a container, running or stopped, not mounted, not as the base of another image, and not what
carries the label `tare.keep`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from msgspec import Struct

from tare.base.digest import Digest
from tare.base.errors import InvalidArgument
from tare.base.sizes import parse_bytes
from tare.images.records import Image
from tare.wire.changes import parse_duration

KEEP = "tare.keep"
_DAYS = {"d": 24, "w": 24 * 7}


class Policy(Struct, frozen=True, kw_only=True):
    """0 is no bound. max_age_ns since the last use; max_count of images; max_bytes of all layers, each counted once."""

    max_age_ns: int = 0
    max_count: int = 0
    max_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.max_age_ns or self.max_count or self.max_bytes)


NEVER = Policy()


class Doomed(Struct, frozen=True):
    """An image to remove, and why."""

    image: Image
    reason: str


def parse_age(text: str) -> int:
    """`30d`, `2w`, `36h`, `1h30m` in ns. Raises InvalidArgument."""
    match = re.fullmatch(r"(\d+)([dw])", text)
    if match is not None:
        return int(match[1]) * _DAYS[match[2]] * 3600 * 1_000_000_000
    age = parse_duration(text)
    if age <= 0:
        raise InvalidArgument(f"invalid age: {text}", hint="write 30d, 2w or 36h")
    return age


def parse_policy(text: str) -> Policy:
    """`max-age=30d,max-count=100,max-space=20GB`, any of the three. Raises InvalidArgument."""
    age = count = space = 0
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        try:
            match key:
                case "max-age":
                    age = parse_age(value)
                case "max-count":
                    count = int(value)
                case "max-space":
                    space = parse_bytes(value)
                case _:
                    raise InvalidArgument(
                        f"invalid clean-up policy: {key}", hint="known: max-age, max-count, max-space"
                    )
        except ValueError:
            raise InvalidArgument(f"invalid clean-up policy: {part}") from None
    if min(count, space) < 0:
        raise InvalidArgument(f"invalid clean-up policy: {text}")
    return Policy(max_age_ns=age, max_count=count, max_bytes=space)


def plan(
    images: Iterable[Image],
    policy: Policy,
    *,
    used: Collection[str],
    last_use: Callable[[Image], int],
    now_ns: int,
) -> list[Doomed]:
    """What goes, the longest unused first. used: IDs of images that containers or mounts stand on."""
    kept = sorted(images, key=lambda image: (last_use(image), image.id))
    doomed: list[Doomed] = []

    def drop(image: Image, reason: str) -> None:
        kept.remove(image)
        doomed.append(Doomed(image, reason))

    def free(image: Image) -> bool:
        if image.id in used or is_kept(image):
            return False
        return not any(other.parent == image.id for other in kept)

    if policy.max_age_ns:
        # From the newest on, so that a parent goes in the same round as its last child.
        for image in [image for image in kept if now_ns - last_use(image) >= policy.max_age_ns][::-1]:
            if free(image):
                drop(image, f"unused for {age_text(now_ns - last_use(image))}")
        doomed.reverse()
    if policy.max_count:
        for image in list(kept):
            if len(kept) <= policy.max_count:
                break
            if free(image):
                drop(image, f"more than {policy.max_count} image{'' if policy.max_count == 1 else 's'}")
    if policy.max_bytes:
        for image in list(kept):
            if layers_bytes(kept) <= policy.max_bytes:
                break
            if image in kept and free(image):
                drop(image, f"more than {policy.max_bytes} bytes")
    return _children_first(doomed)


def _children_first(doomed: list[Doomed]) -> list[Doomed]:
    """The same, with no image before one that was made from it."""
    out: list[Doomed] = []
    waiting = list(doomed)
    while waiting:
        parents = {item.image.parent for item in waiting}
        ready = [item for item in waiting if item.image.id not in parents] or waiting
        out.append(ready[0])
        waiting.remove(ready[0])
    return out


def is_kept(image: Image) -> bool:
    """Whether its label says that it stays."""
    value = (image.config.Labels or {}).get(KEEP)
    return value is not None and value.lower() not in ("false", "0", "no")


def layers_bytes(images: Iterable[Image]) -> int:
    """Bytes of all layers of these images, each counted once."""
    sizes: dict[Digest, int] = {layer.chain_id: layer.size_bytes for image in images for layer in image.layers}
    return sum(sizes.values())


def age_text(age_ns: int) -> str:
    """`3d`, `5h`, `12m`, `30s`."""
    seconds = age_ns // 1_000_000_000
    for unit, size in (("d", 24 * 3600), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
