"""Images that are mounted on the host, as they are written down between two lives of the engine. Pure."""

from __future__ import annotations

import msgspec

from tare.base.errors import DataCorrupt


class ImageMount(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is what the user called the image. at_ns: since the epoch. is_ours: the target is a place of the engine's."""

    key: str
    image_id: str
    name: str
    target: str
    at_ns: int
    boot_id: str
    is_ours: bool


def encode(mount: ImageMount) -> bytes:
    """The record."""
    return msgspec.json.encode(mount)


def decode(raw: bytes) -> ImageMount:
    """The same from its record. Raises DataCorrupt."""
    try:
        return msgspec.json.decode(raw, type=ImageMount)
    except msgspec.DecodeError as error:
        raise DataCorrupt(f"the record of an image mount cannot be read: {error}") from None
