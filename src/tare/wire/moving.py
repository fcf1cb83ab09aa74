"""What is asked and answered when containers move between engines. Not in Docker."""

from __future__ import annotations

import msgspec

from tare.wire.config import Wire


class LayerBody(Wire, kw_only=True, frozen=True):
    """A layer of an image: its blob with its size in bytes, and the name of the file system up to it."""

    Digest: str
    Size: int
    ChainID: str


class MissingBody(Wire, kw_only=True, frozen=True):
    """The body of `POST /tare/v1/missing`."""

    Digests: list[str] = msgspec.field(default_factory=list)
    CacheMounts: list[str] = msgspec.field(default_factory=list)


class MissingAnswer(Wire, kw_only=True, frozen=True):
    """The answer to it."""

    Missing: list[str]
    CacheMounts: list[str]


class UnpackedAux(Wire, kw_only=True, frozen=True):
    """The last word of an unpack."""

    ID: str
    Name: str
    Running: bool


__all__ = ["LayerBody", "MissingAnswer", "MissingBody", "UnpackedAux"]
