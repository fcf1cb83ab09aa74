"""A build cache outside of the engine: the document that says what its blobs are, and the words that say where it is.

It is an OCI manifest whose config is this document; its layers are the layers that steps made, and the contents of cache
mounts as tars. A step is known by its key and by the file system below it, so it fits wherever both are the same; a cache
mount by the name that its id, owner and first files give it (`engine/builds/sandbox.py`). Nothing in it is a path.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct, field

from tare.base.clock import Nanos
from tare.base.digest import Digest, chain_id, parse_digest, sha256
from tare.base.errors import InvalidArgument
from tare.base.reference import Reference, parse_reference
from tare.build.cache import Record
from tare.oci import image as oci

DOCUMENT = "application/vnd.tare.buildcache.v1+json"
MOUNT = "application/vnd.tare.buildcache.mount.v1.tar+gzip"
MAX_ENTRIES = oci.MAX_LAYERS
_VERSION = 1
_NAME = re.compile(r"[0-9a-f]{64}\Z")
_MODES = ("min", "max")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_PLACE = re.compile(r"\.[A-Za-z0-9-]{1,100}\Z")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What a step made on top of the file system `below` ("" for nothing): a layer, or no change ("" for both digests)."""

    key: str
    parent: str
    below: str = ""
    diff_id: str = ""
    layer: str = ""
    size_bytes: int = 0
    description: str = ""
    created_at: int = 0

    @property
    def chain(self) -> Digest | None:
        """The file system after it."""
        below = Digest(self.below) if self.below else None
        if not self.diff_id:
            return below
        return chain_id([below, Digest(self.diff_id)]) if below else Digest(self.diff_id)


class MountTar(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a cache mount, as the tar `layer`. id: what the Dockerfile calls it."""

    name: str
    id: str
    layer: str


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    version: int
    steps: list[Step] = msgspec.field(default_factory=list)
    mounts: list[MountTar] = msgspec.field(default_factory=list)

    def find(self, key: str, *, below: Digest | None) -> Step | None:
        """What the step made when it was done on top of `below`."""
        return next((step for step in self.steps if step.key == key and step.below == (below or "")), None)

    def mount(self, name: str) -> MountTar | None:
        """The content of the cache mount of that name."""
        return next((mount for mount in self.mounts if mount.name == name), None)


class Blob(Struct, frozen=True, kw_only=True):
    """A blob that a document names: its type, size and digest."""

    digest: Digest
    size: int
    media_type: str


def step_of(record: Record, *, diff_id: str, layer: str) -> Step:
    """What is told of a record of the cache. diff_id, layer: "" where it changed nothing."""
    return Step(
        key=record.key,
        parent=record.parent,
        below=record.below or "",
        diff_id=diff_id,
        layer=layer,
        size_bytes=record.size_bytes,
        description=record.description,
        created_at=record.created_at,
    )


def record_of(step: Step, *, size_bytes: int) -> Record:
    """A step that came in, as a record of the cache."""
    return Record(
        key=step.key,
        parent=step.parent,
        chain=step.chain,
        below=Digest(step.below) if step.below else None,
        description=step.description,
        size_bytes=size_bytes,
        created_at=Nanos(step.created_at),
    )


def chosen(top: str, records: Mapping[str, Record]) -> list[str]:
    """Mode `min`: the keys of the steps that the result stands on, base first. top: the last key."""
    found: list[str] = []
    while top in records and top not in found:
        found.append(top)
        top = records[top].parent
    return found[::-1]


def encode(steps: Sequence[Step], mounts: Sequence[MountTar]) -> bytes:
    """The document; always the same bytes for the same content."""
    ordered = sorted(steps, key=lambda step: (step.key, step.below))
    found = Document(version=_VERSION, steps=ordered, mounts=sorted(mounts, key=lambda mount: mount.name))
    return msgspec.json.encode(found)


def manifest_of(document: bytes, blobs: Sequence[Blob]) -> bytes:
    """The manifest of a cache."""
    unique = {blob.digest: blob for blob in blobs}
    if len(unique) > MAX_ENTRIES:
        raise InvalidArgument(f"the cache has more than {MAX_ENTRIES} layers and mounts", hint="export mode=min")
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.OCI_MANIFEST,
            "artifactType": DOCUMENT,
            "config": {"mediaType": DOCUMENT, "digest": sha256(document), "size": len(document)},
            "layers": [
                {"mediaType": blob.media_type, "digest": digest, "size": blob.size}
                for digest, blob in sorted(unique.items())
            ],
        }
    )


def index_of(manifest: bytes) -> bytes:
    """`index.json` of a directory that holds the cache."""
    entry = {"mediaType": oci.OCI_MANIFEST, "artifactType": DOCUMENT, "digest": sha256(manifest), "size": len(manifest)}
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": [entry]})


def read_manifest(raw: bytes) -> oci.Manifest:
    """The manifest of a cache. Raises InvalidArgument for what is something else."""
    found = oci.parse_manifest(raw)
    if not isinstance(found, oci.Manifest) or found.config.mediaType != DOCUMENT:
        raise InvalidArgument("it is no build cache of this engine")
    return found


def read_document(raw: bytes, manifest: oci.Manifest) -> Document:
    """The document, whose digest was verified. Raises InvalidArgument."""
    loaded = oci.load_json(raw, limit=oci.MAX_CONFIG, what="build cache")
    try:
        found = msgspec.convert(loaded, Document)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid build cache: {error}") from None
    if found.version != _VERSION:
        raise InvalidArgument(f"a build cache of version {found.version} cannot be read here")
    if len(found.steps) > 10 * MAX_ENTRIES or len(found.mounts) > MAX_ENTRIES:
        raise InvalidArgument("invalid build cache: too many entries")
    blobs = {descriptor.digest for descriptor in manifest.layers}
    for step in found.steps:
        if not _NAME.match(step.key) or bool(step.diff_id) != bool(step.layer) or step.size_bytes < 0:
            raise InvalidArgument("invalid build cache: a step that cannot be")
        for digest in filter(None, (step.below, step.diff_id, step.layer)):
            _sha256(digest)
        if step.layer and step.layer not in blobs:
            raise InvalidArgument("invalid build cache: a step whose layer is not there")
        if len(step.parent) > 200 or len(step.description) > 1000 or not 0 <= step.created_at < 2**63:
            raise InvalidArgument("invalid build cache: a step that cannot be")
    for mount in found.mounts:
        if not _NAME.match(mount.name) or mount.layer not in blobs:
            raise InvalidArgument("invalid build cache: a mount that cannot be")
    return found


def _sha256(text: str) -> None:
    if not parse_digest(text).startswith("sha256:"):
        raise InvalidArgument("invalid build cache: digests must be sha256")


# -- where it is


class Source(Struct, frozen=True):
    """A cache to take from: of a registry, or (`place`) a hidden directory in the tar of the build's context."""

    reference: Reference | None = None
    place: str = ""

    def __str__(self) -> str:
        return self.reference.familiar() if self.reference else "the directory"


class Target(Struct, frozen=True, kw_only=True):
    """Where a cache goes: to a registry, or (without reference) to whoever built. mounts: those of cache mounts too."""

    reference: Reference | None = None
    mode: str = "min"
    mounts: bool = True


def parse_source(text: str) -> Source | None:
    """`type=registry,ref=REF` or `type=tar,src=PLACE`; None for the name of an image. Raises InvalidArgument."""
    known = _attributes(text, {"type", "ref", "src"})
    if known is None:
        return None
    kind = known.get("type", "")
    if kind == "registry":
        return Source(reference=_reference(known))
    if kind == "tar" and _PLACE.match(known.get("src", "")):
        return Source(place=known["src"])
    raise InvalidArgument(
        f"unknown type of cache to take from {kind[:50]!r}",
        hint="type=registry,ref=REF; the command line `tare build` takes type=local,src=DIRECTORY too",
    )


def parse_target(text: str) -> Target:
    """`type=registry,ref=REF` or `type=local`, with `mode=min|max`, `mounts=true|false`. Raises InvalidArgument."""
    known = _attributes(text, {"type", "ref", "mode", "mounts"}) or {}
    kind = known.get("type", "")
    if kind not in ("registry", "local"):
        raise InvalidArgument(
            f"unknown type of cache to write {kind[:50]!r}", hint="type=registry,ref=REF or type=local"
        )
    return Target(
        reference=_reference(known) if kind == "registry" else None,
        mode=checked_mode(known.get("mode", "min")),
        mounts=_boolean(known.get("mounts", "true")),
    )


def checked_mode(text: str) -> str:
    """The mode of an export. Raises InvalidArgument for one there is not."""
    if text not in _MODES:
        raise InvalidArgument(f"unknown mode of a cache {text[:50]!r}: use {' or '.join(_MODES)}")
    return text


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise InvalidArgument(f"invalid value {text[:50]!r}: use true or false")
    return _BOOLEANS[text.lower()]


def _attributes(text: str, known: set[str]) -> dict[str, str] | None:
    """The fields of `key=value,…`; None where there is no `=`, which no reference has."""
    if "=" not in text:
        return None
    found: dict[str, str] = {}
    try:
        parts = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration):
        raise InvalidArgument(f"cannot read the cache {text[:200]!r}") from None
    for part in parts:
        key, equals, value = part.strip().partition("=")
        if not equals or key.lower() not in known:
            raise InvalidArgument(f"unexpected {part[:100]!r} of a cache: use {', '.join(sorted(known))}")
        found[key.lower()] = value
    return found


def _reference(known: Mapping[str, str]) -> Reference:
    if not known.get("ref"):
        raise InvalidArgument("a cache in a registry needs ref=REFERENCE")
    found = parse_reference(known["ref"])
    return found if found.digest else found.with_default_tag()


class Held(Struct, frozen=True):
    """What a build that is over left to be exported: keys of its steps, the last one's, and its cache mounts by name."""

    top: str
    keys: tuple[str, ...]
    mounts: Mapping[str, str] = field(default_factory=dict)


__all__ = [
    "DOCUMENT", "MOUNT", "Blob", "Document", "Held", "MountTar", "Source", "Step", "Target", "checked_mode", "chosen", "encode",
    "index_of", "manifest_of", "parse_source", "parse_target", "read_document", "read_manifest", "record_of", "step_of",
]  # fmt: skip
