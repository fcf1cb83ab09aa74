"""An image that something travels with: the tar of `save`, and beside the image a manifest of its own with more blobs.

    index.json       one entry, the image; the annotation MARK names the second manifest
    blobs/sha256/    the image's, the second manifest, its config document, its blobs
    manifest.json    what docker load reads

With one entry only, every reader of OCI archives finds the image without being told which. Whoever does not know MARK
sees nothing else. Source: image-spec image-layout.md, manifest.md ("Guidelines for Artifact Usage").
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tare.base.digest import Digest, hex_of, parse_digest, sha256
from tare.base.errors import InvalidArgument
from tare.base.reference import Reference
from tare.images import save
from tare.images.load import PlannedImage, Spool, read_plan
from tare.images.records import Image
from tare.images.save import Member
from tare.oci import image as oci

MARK = "vnd.tare.container"
_INDEX = "index.json"


class Extra(Struct, frozen=True, kw_only=True):
    """A blob beside the image, in a file. annotations: what a person may want to read of it."""

    media_type: str
    digest: Digest
    size: int
    path: Path
    annotations: tuple[tuple[str, str], ...] = ()


def members(
    image: Image,
    references: Sequence[Reference],
    *,
    document: bytes,
    document_type: str,
    extras: Sequence[Extra],
    without: Collection[str] = (),
) -> list[Member]:
    """The members of the tar, in order. without: digests of layers of the image that the reader has."""
    manifest = _manifest(image, document, document_type, extras)
    own = [(sha256(manifest), manifest), (sha256(document), document)]
    planned = save.plan([(image, list(references))], annotations={MARK: own[0][0]})
    skipped = {layer.blob for layer in image.layers if layer.blob in without}
    found = {member.name: member for member in planned if member.blob is None or member.blob not in skipped}
    for digest, data in own:
        found[name_of(digest)] = Member(name_of(digest), len(data), data)
    for extra in extras:
        found.setdefault(name_of(extra.digest), Member(name_of(extra.digest), extra.size, None, path=extra.path))
    head = [name for name in found if not name.startswith("blobs/")]
    return [found[name] for name in [*head, *sorted(found.keys() - set(head))]]


def name_of(digest: Digest) -> str:
    """Where a blob is in the tar."""
    return f"blobs/sha256/{hex_of(digest)}"


def _manifest(image: Image, document: bytes, document_type: str, extras: Sequence[Extra]) -> bytes:
    about = save.manifest_of(image)
    unique = {extra.digest: extra for extra in extras}
    layers: list[dict[str, Any]] = [
        {"mediaType": extra.media_type, "digest": extra.digest, "size": extra.size}
        | ({"annotations": dict(extra.annotations)} if extra.annotations else {})
        for extra in unique.values()
    ]
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.OCI_MANIFEST,
            "artifactType": document_type,
            "config": {"mediaType": document_type, "digest": sha256(document), "size": len(document)},
            "layers": layers,
            "subject": {"mediaType": oci.OCI_MANIFEST, "digest": sha256(about), "size": len(about)},
        }
    )


class Found(Struct, frozen=True, kw_only=True):
    """What such a tar holds: the image ready to be loaded, the document, the descriptors of the blobs beside it."""

    image: PlannedImage
    image_id: Digest
    document: bytes
    blobs: dict[str, oci.Descriptor]


def read(spool: Spool, document_type: str) -> Found:
    """Read an unpacked tar. Raises InvalidArgument, DataCorrupt (a document that is not what its digest says)."""
    index = oci.parse_manifest(spool.read(_INDEX, oci.MAX_MANIFEST), oci.OCI_INDEX)
    mark = (index.annotations or {}).get(MARK, "")
    if not mark or not isinstance(index, oci.Index):
        raise InvalidArgument("there is no container in this archive", hint="`tare load` reads archives of images")
    digest = parse_digest(mark)
    raw = spool.read(_path(digest), oci.MAX_MANIFEST)
    oci.verify_descriptor(raw, oci.Descriptor("", digest, len(raw)), what="the container's manifest")
    manifest = oci.parse_manifest(raw, oci.OCI_MANIFEST)
    if not isinstance(manifest, oci.Manifest) or manifest.config.mediaType != document_type:
        raise InvalidArgument("invalid archive: the container's manifest is about something else")
    document = spool.read(_path(parse_digest(manifest.config.digest)), oci.MAX_CONFIG)
    oci.verify_descriptor(document, manifest.config, what="the container's document")
    for descriptor in index.manifests:  # the plan may come from manifest.json, which does not name it
        path = _path(parse_digest(descriptor.digest))
        oci.verify_descriptor(spool.read(path, oci.MAX_MANIFEST), descriptor, what=path)
    planned = read_plan(spool)
    if len(planned) != 1:
        raise InvalidArgument("invalid archive: not one image beside the container")
    blobs = {descriptor.digest: descriptor for descriptor in manifest.layers}
    return Found(image=planned[0], image_id=sha256(planned[0].raw), document=document, blobs=blobs)


def _path(digest: Digest) -> str:
    algorithm, _, text = digest.partition(":")
    return f"blobs/{algorithm}/{text}"


__all__ = ["MARK", "Extra", "Found", "members", "name_of", "read"]
