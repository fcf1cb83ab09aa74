"""Image documents: manifest, index and config, of OCI and of Docker's schema 2, parsed strictly.

The bytes are what digests are over, so every parsed document keeps them (`raw`). Refused: duplicate keys, invalid
UTF-8, trailing data, documents that are manifest and index at once, sizes and counts beyond the limits.
Source: opencontainers/image-spec manifest.md, image-index.md, config.md; distribution "Image Manifest V 2, Schema 2".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import msgspec

from tare.base.digest import Digest, parse_digest, sha256
from tare.base.errors import DataCorrupt, InvalidArgument

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", ""})
LAYERS = frozenset(
    {
        OCI_LAYER,
        OCI_LAYER_GZIP,
        OCI_LAYER_ZSTD,
        OCI_LAYER.replace("layer.", "layer.nondistributable."),
        OCI_LAYER_GZIP.replace("layer.", "layer.nondistributable."),
        OCI_LAYER_ZSTD.replace("layer.", "layer.nondistributable."),
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})

MAX_MANIFEST = 4 * 1024 * 1024
MAX_CONFIG = 8 * 1024 * 1024
MAX_LAYERS = 1000
MAX_INDEX_DEPTH = 4

T = TypeVar("T", bound=msgspec.Struct)


class Platform(msgspec.Struct, frozen=True):
    """What an image runs on."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True):
    """Where content is and what it must be."""

    mediaType: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    urls: list[str] | None = None  # of layers that registries may not hand out themselves
    artifactType: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """One image for one platform, or an artifact. subject: the manifest it is about."""

    schemaVersion: int
    config: Descriptor
    layers: list[Descriptor]
    mediaType: str = ""
    annotations: dict[str, str] | None = None
    artifactType: str = ""
    subject: Descriptor | None = None


class Index(msgspec.Struct, frozen=True):
    """A list of manifests: images, or the parts of an artifact. subject: the manifest it is about."""

    schemaVersion: int
    manifests: list[Descriptor]
    mediaType: str = ""
    annotations: dict[str, str] | None = None
    artifactType: str = ""
    subject: Descriptor | None = None


class RootFS(msgspec.Struct, frozen=True):
    """The layers, as diffIDs, base first."""

    type: str = "layers"
    diff_ids: list[str] | None = None


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one step came about. `empty_layer`: it changed no file."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The config document. `config` is Docker's container configuration, read by whoever knows it."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(name="os.version", default="")
    created: str | None = None
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    config: dict[str, Any] | None = None
    rootfs: RootFS = RootFS()
    history: list[History] | None = None

    def diff_ids(self) -> tuple[Digest, ...]:
        """The checked diffIDs. Raises InvalidArgument for one that is no digest."""
        return tuple(parse_digest(text) for text in self.rootfs.diff_ids or ())


def parse_config(raw: bytes) -> ImageConfig:
    """Read a config document. Raises InvalidArgument."""
    document = _parse(raw, ImageConfig, MAX_CONFIG, "image config")
    if document.rootfs.type != "layers":
        raise InvalidArgument("invalid image config: rootfs type must be layers")
    diff_ids = document.diff_ids()
    if len(diff_ids) > MAX_LAYERS or len(document.history or ()) > 10 * MAX_LAYERS:
        raise InvalidArgument(f"invalid image config: more than {MAX_LAYERS} layers")
    steps = sum(not step.empty_layer for step in document.history or ())
    if steps > len(diff_ids):
        raise InvalidArgument("invalid image config: too many non-empty layers in History section")
    return document


def parse_manifest(raw: bytes, media_type: str = "") -> Manifest | Index:
    """Read a manifest or an index. `media_type`: what the descriptor or header promised. Raises InvalidArgument."""
    found = _load(raw, MAX_MANIFEST, "manifest")
    if "layers" in found and "manifests" in found:
        raise InvalidArgument("invalid manifest: both layers and manifests")
    own = found.get("mediaType", "")
    if media_type and own and own != media_type:
        raise InvalidArgument(f"invalid manifest: mediaType is {own!r:.80}, expected {media_type!r:.80}")
    kind = own or media_type
    document: Manifest | Index
    if "manifests" in found or kind in INDEXES:
        document = _convert(found, Index, "index")
        if kind and kind not in INDEXES:
            raise InvalidArgument(f"invalid index: mediaType {kind!r:.80}")
        descriptors = [*document.manifests, *filter(None, [document.subject])]
    else:
        document = _convert(found, Manifest, "manifest")
        if kind and kind not in MANIFESTS:
            raise InvalidArgument(f"invalid manifest: mediaType {kind!r:.80}")
        descriptors = [document.config, *document.layers, *filter(None, [document.subject])]
    if document.schemaVersion != 2 and not (document.schemaVersion == 0 and own):  # Go's writers forget it at times
        raise InvalidArgument("invalid manifest: schemaVersion must be 2")
    if len(descriptors) > MAX_LAYERS + 2:
        raise InvalidArgument(f"invalid manifest: more than {MAX_LAYERS} entries")
    for descriptor in descriptors:
        parse_digest(descriptor.digest)
        if descriptor.size < 0:
            raise InvalidArgument("invalid manifest: negative size")
    return document


def is_artifact(document: Manifest | Index) -> bool:
    """Whether it describes no image: another kind of config, or not one layer that could be unpacked.

    Signatures and attestations carry an image's config beside layers of their own kind. An index is an artifact when it
    says of which type; one that only has a subject may well list images.
    """
    if isinstance(document, Index):
        return bool(document.artifactType)
    if document.config.mediaType not in CONFIGS:
        return True
    return bool(document.layers) and not any(layer.mediaType in LAYERS for layer in document.layers)


def artifact_type(document: Manifest | Index) -> str:
    """What an artifact calls itself, "" for an index that does not. Source: image-spec manifest.md, image-index.md."""
    if document.artifactType or isinstance(document, Index):
        return document.artifactType
    if document.config.mediaType not in CONFIGS | {EMPTY}:
        return document.config.mediaType
    return document.layers[0].mediaType if document.layers else document.config.mediaType


def index_of(entries: Sequence[Descriptor]) -> bytes:
    """An index of these descriptors; always the same bytes for the same list."""
    listed = []
    for entry in entries:
        found: dict[str, Any] = {"mediaType": entry.mediaType, "digest": entry.digest, "size": entry.size}
        found |= {"annotations": entry.annotations} if entry.annotations else {}
        found |= {"artifactType": entry.artifactType} if entry.artifactType else {}
        listed.append(found)
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed})


def load_json(raw: bytes, *, limit: int, what: str) -> object:
    """Strict JSON of any shape, bounded. Raises InvalidArgument."""
    if len(raw) > limit:
        raise InvalidArgument(f"invalid {what}: larger than {limit} bytes")
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"invalid {what}: {error}") from None


def verify_descriptor(raw: bytes, descriptor: Descriptor, *, what: str) -> None:
    """Raise DataCorrupt unless the bytes have the size and digest the descriptor promises."""
    if len(raw) != descriptor.size or sha256(raw) != descriptor.digest:
        raise DataCorrupt(f"{what} does not match its digest {descriptor.digest}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key in JSON object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _load(raw: bytes, limit: int, what: str) -> dict[str, Any]:
    found = load_json(raw, limit=limit, what=what)
    if not isinstance(found, dict):
        raise InvalidArgument(f"invalid {what}: not a JSON object")
    return found


def _convert(found: dict[str, Any], into: type[T], what: str) -> T:
    try:
        return msgspec.convert(_without_nulls(found), into)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid {what}: {error}") from None


def _without_nulls(found: Any) -> Any:
    """Null is "not said" in these documents, at every level."""
    if isinstance(found, dict):
        return {key: _without_nulls(value) for key, value in found.items() if value is not None}
    if isinstance(found, list):
        return [_without_nulls(value) for value in found]
    return found


def _parse(raw: bytes, into: type[T], limit: int, what: str) -> T:
    return _convert(_load(raw, limit, what), into, what)
