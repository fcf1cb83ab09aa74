"""Docker's JSON about images: list, inspect, history, delete, prune. Shapes vary by API version as W71 says."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tare.wire.config import ContainerConfig, Wire

NONE_TAG = "<none>:<none>"
NONE_DIGEST = "<none>@<none>"

Version = tuple[int, int]

_IMAGE_CONFIG_FIELDS = [
    "ArgsEscaped",
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
]


class ManifestPlatform(Wire, kw_only=True, frozen=True):
    """As in an OCI descriptor."""

    architecture: str
    os: str
    variant: str | UnsetType = UNSET


class ManifestDescriptor(Wire, kw_only=True, frozen=True):
    """An OCI descriptor."""

    mediaType: str
    digest: str
    size: int
    platform: ManifestPlatform


class ManifestSize(Wire, kw_only=True, frozen=True):
    """Bytes of blobs; with the unpacked files."""

    Content: int
    Total: int


class UnpackedSize(Wire, kw_only=True, frozen=True):
    """Bytes of files."""

    Unpacked: int


class ImageData(Wire, kw_only=True, frozen=True):
    """What an entry of kind image is for, who runs it, what it takes."""

    Platform: ManifestPlatform
    Containers: list[str]
    Size: UnpackedSize


class ImageManifest(Wire, kw_only=True, frozen=True):
    """One entry of the index an image came through. Kind is image or attestation."""

    ID: str
    Descriptor: ManifestDescriptor
    Available: bool
    Size: ManifestSize
    Kind: str
    ImageData: ImageData | UnsetType = UNSET


class ImageSummary(Wire, kw_only=True, frozen=True):
    """One entry of the list."""

    Containers: int
    Created: int
    Id: str
    Labels: dict[str, str] | None
    ParentId: str
    RepoDigests: list[str]
    RepoTags: list[str]
    SharedSize: int
    Size: int
    VirtualSize: int | UnsetType = UNSET
    Manifests: list[ImageManifest] | UnsetType = UNSET
    LastUsed: int | UnsetType = UNSET


class GraphDriverData(Wire, kw_only=True, frozen=True):
    """Where the storage driver keeps it."""

    Data: dict[str, str] | None
    Name: str


class RootFSBody(Wire, kw_only=True, frozen=True):
    """The diffIDs, base first."""

    Type: str = "layers"
    Layers: list[str] | UnsetType = UNSET


class ImageMetadata(Wire, kw_only=True, frozen=True):
    """What this engine knows beside the image's own documents."""

    LastTagTime: str
    LastUsedTime: str | UnsetType = UNSET


class ImageInspect(Wire, kw_only=True, frozen=True):
    """Answer of inspect."""

    Id: str
    RepoTags: list[str]
    RepoDigests: list[str]
    Parent: str
    Comment: str
    Created: str | UnsetType
    Container: str | UnsetType = UNSET
    ContainerConfig: dict[str, Any] | UnsetType = UNSET
    DockerVersion: str
    Author: str
    Config: dict[str, Any]
    Architecture: str
    Variant: str | UnsetType = UNSET
    Os: str
    OsVersion: str | UnsetType = UNSET
    Size: int
    VirtualSize: int | UnsetType = UNSET
    GraphDriver: GraphDriverData
    RootFS: RootFSBody
    Metadata: ImageMetadata
    Manifests: list[ImageManifest] | UnsetType = UNSET


class HistoryItem(Wire, kw_only=True, frozen=True):
    """One step, newest first. `Id` is `<missing>` where the image of that step is not known here."""

    Comment: str
    Created: int
    CreatedBy: str
    Id: str
    Size: int
    Tags: list[str] | None


class Deleted(Wire, kw_only=True, frozen=True):
    """One record of a removal: exactly one of the two is said."""

    Untagged: str | UnsetType = UNSET
    Deleted: str | UnsetType = UNSET


class CleanedImage(Wire, kw_only=True, frozen=True):
    """An image that a clean-up chose, and why. LastUsed in seconds since the epoch; Size in bytes."""

    Id: str
    Names: list[str]
    Reason: str
    LastUsed: int
    Size: int
    Removed: bool


class CleanReport(Wire, kw_only=True, frozen=True):
    """Answer of a clean-up. SpaceReclaimed in bytes, of a dry run what would be."""

    Images: list[CleanedImage]
    SpaceReclaimed: int


class PruneReport(Wire, kw_only=True, frozen=True):
    """Answer of prune. Bytes."""

    ImagesDeleted: list[Deleted] | None
    SpaceReclaimed: int


def image_config(config: ContainerConfig, version: Version) -> dict[str, Any]:
    """The `Config` of an image: before 1.50 with every field of a container's, since then only what it says."""
    full: dict[str, Any] = msgspec.to_builtins(config)
    if version < (1, 50):
        return full
    return {name: full[name] for name in _IMAGE_CONFIG_FIELDS if full.get(name)}


def named(tags: list[str], digests: list[str], version: Version) -> tuple[list[str], list[str]]:
    """RepoTags and RepoDigests: before 1.43 an image without names carries a pair of `<none>`."""
    if version < (1, 43) and not tags and not digests:
        return [NONE_TAG], [NONE_DIGEST]
    return tags, digests
