"""JSON about versions of file systems, which Docker has not: differences, logs, blame, the graph of layers, mounts."""

from __future__ import annotations

import base64

from msgspec import UNSET, UnsetType

from tare.wire.config import Wire

KINDS = {"A": 1, "C": 0, "D": 2}
"""As the changes of a container are numbered."""


def shown(name: str | bytes) -> tuple[str, str | UnsetType]:
    """A file name or line as JSON can say it, and base64 of its bytes where that loses something."""
    raw = name if isinstance(name, bytes) else name.encode(errors="surrogateescape")
    try:
        return raw.decode(), UNSET
    except UnicodeDecodeError:
        return raw.decode(errors="backslashreplace"), base64.b64encode(raw).decode()


class FileState(Wire, kw_only=True, frozen=True):
    """What a path is. Mode as Go numbers it; Size in bytes; Modified in ns since the epoch."""

    Mode: int
    Uid: int
    Gid: int
    Size: int
    Modified: int
    Target: str | UnsetType = UNSET
    Device: str | UnsetType = UNSET


class Difference(Wire, kw_only=True, frozen=True):
    """One path. Kind 0 changed, 1 added, 2 deleted; What: which attributes of a changed one differ."""

    Path: str
    Kind: int
    What: list[str] | UnsetType = UNSET
    Old: FileState | None = None
    New: FileState | None = None
    RawPath: str | UnsetType = UNSET


class LayerOrigin(Wire, kw_only=True, frozen=True):
    """Where a layer comes from. DiffID is empty for what a container has not committed."""

    Layer: int
    DiffID: str
    Size: int
    Created: str
    CreatedBy: str
    Comment: str
    Author: str


class LogEntry(Wire, kw_only=True, frozen=True):
    """A layer changed the path; File is null when it was gone afterwards."""

    Kind: int
    File: FileState | None
    Origin: LayerOrigin


class LogBody(Wire, kw_only=True, frozen=True):
    """Newest first."""

    Path: str
    Entries: list[LogEntry]


class BlamePart(Wire, kw_only=True, frozen=True):
    """A line or a member, and the number of the layer it comes from."""

    Layer: int
    Text: str
    RawText: str | UnsetType = UNSET


class BlameBody(Wire, kw_only=True, frozen=True):
    """The lines of a file or the members of a directory; Origins has each layer they name once."""

    Path: str
    IsDirectory: bool
    Parts: list[BlamePart]
    Origins: list[LayerOrigin]


class GraphImage(Wire, kw_only=True, frozen=True):
    """An image that ends at a layer."""

    Id: str
    Names: list[str]


class GraphLayer(Wire, kw_only=True, frozen=True):
    """One layer; Parent is the ChainID it stands on. ChainID is empty for images without layers."""

    ChainID: str
    Parent: str
    Origin: LayerOrigin
    Images: list[GraphImage]


class ImageMountBody(Wire, kw_only=True, frozen=True):
    """A mounted image."""

    Image: str
    ImageID: str
    Target: str
    MountedAt: str


class ImageMountRequest(Wire, kw_only=True, frozen=True):
    """Mount an image; where the engine likes if Target is empty."""

    Image: str = ""
    Target: str = ""
