"""`save`: images as one tar that is a docker-archive and an OCI layout at once.

    blobs/sha256/<hex>    configs, manifests, layers (as stored: compressed, so nothing is computed here)
    index.json, oci-layout
    manifest.json         what docker load reads

Equal images give equal bytes: sorted, without times.
Source: image-spec image-layout.md; moby image tarball format v1.2 (`manifest.json`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tare.aio.threads import in_thread
from tare.base.digest import Digest, hex_of, sha256
from tare.base.errors import InvalidArgument, NotFound
from tare.base.reference import Reference, parse_reference
from tare.drivers.archive import tar
from tare.images.records import Image
from tare.images.service import Images
from tare.oci.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from tare.store.blobs import Blobs

_CHUNK = 1024 * 1024
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the tar: bytes at hand, a blob of the store, or a file at `path`."""

    name: str
    size: int
    data: bytes | None
    blob: Digest | None = None
    path: Path | None = None


def layer_type(compression: str) -> str:
    """OCI's media type of a layer blob."""
    return OCI_LAYER if compression == "plain" else f"{OCI_LAYER}+{compression}"


def manifest_of(image: Image) -> bytes:
    """The OCI manifest of an image as stored here; always the same bytes for the same image."""
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": image.id, "size": len(image.raw)},
            "layers": [
                {"mediaType": layer_type(layer.compression), "digest": layer.blob, "size": layer.blob_size}
                for layer in image.layers
            ],
        }
    )


def choose(images: Images, names: Sequence[str]) -> list[tuple[Image, list[Reference]]]:
    """The images named, with the references to write beside each. A bare repository means all of its tags.

    Raises NotFound, InvalidArgument.
    """
    if not names:
        raise InvalidArgument("no images specified to save")
    chosen: dict[Digest, list[Reference]] = {}
    for name in names:
        for image_id, reference in _meant(images, name):
            known = chosen.setdefault(image_id, [])
            if reference is not None and reference not in known:
                known.append(reference)
    return [(images.get(image_id), references) for image_id, references in chosen.items()]


def _meant(images: Images, name: str) -> list[tuple[Digest, Reference | None]]:
    try:
        bare = parse_reference(name)
    except InvalidArgument:
        bare = None
    if bare is not None and bare.tag is None and bare.digest is None:
        found: list[tuple[Digest, Reference | None]] = [
            (image_id, reference)
            for reference, image_id in sorted(images.all_references().items(), key=lambda item: item[0].canonical())
            if reference.name == bare.name and reference.tag
        ]
        if found:
            return found
    image, reference = images.look_up(name)
    return [(image.id, reference)]


def plan(
    chosen: Sequence[tuple[Image, list[Reference]]], *, annotations: Mapping[str, str] | None = None
) -> list[Member]:
    """The members of the tar, in order. annotations: of index.json."""
    blobs: dict[str, Member] = {}
    index: list[dict[str, Any]] = []
    listing: list[dict[str, Any]] = []

    def add(digest: Digest, size: int, data: bytes | None) -> str:
        name = f"blobs/sha256/{hex_of(digest)}"
        blobs[name] = Member(name, size, data, None if data is not None else digest)
        return name

    for image, references in chosen:
        manifest = manifest_of(image)
        digest = sha256(manifest)
        add(digest, len(manifest), manifest)
        config = add(image.id, len(image.raw), image.raw)
        layers = [add(layer.blob, layer.blob_size, None) for layer in image.layers]
        tags = [reference for reference in references if reference.tag]
        listing.append({"Config": config, "RepoTags": [tag.familiar() for tag in tags] or None, "Layers": layers})
        entry: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(manifest)}
        if image.document.os and image.document.architecture:
            entry["platform"] = {"architecture": image.document.architecture, "os": image.document.os}
        index += [
            {
                **entry,
                "annotations": {
                    "io.containerd.image.name": tag.canonical(),
                    "org.opencontainers.image.ref.name": tag.tag,
                },
            }
            for tag in tags
        ] or [entry]
    whole: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index}
    documents = {
        "index.json": msgspec.json.encode(whole | ({"annotations": dict(annotations)} if annotations else {})),
        "manifest.json": msgspec.json.encode(listing),
        "oci-layout": _LAYOUT,
    }
    # What tells a reader what to expect comes first: it need not keep the blobs to know their roles.
    head = [Member(name, len(data), data) for name, data in documents.items()]
    return head + [blobs[name] for name in sorted(blobs)]


def _open(member: Member, blobs: Blobs) -> int:
    if member.path is not None:
        return os.open(member.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    assert member.blob is not None
    return blobs.open(member.blob)


async def stream(members: Sequence[Member], blobs: Blobs) -> AsyncIterator[bytes]:
    """The tar, in chunks of up to 1 MiB."""
    directories = b"".join(tar.header_of(tar.Entry(name, tar.DIR, 0o755)) for name in (b"blobs/", b"blobs/sha256/"))
    pending = [directories]
    for member in members:
        pending.append(tar.header_of(tar.Entry(member.name.encode(), tar.FILE, 0o644, size=member.size)))
        if member.data is not None:
            pending.append(member.data)
        else:
            yield b"".join(pending)
            pending = []
            fd = await in_thread(_open, member, blobs)
            try:
                sent = 0
                while chunk := await in_thread(os.read, fd, _CHUNK):
                    sent += len(chunk)
                    yield chunk
                if sent != member.size:
                    raise NotFound(f"blob {member.blob} has {sent} bytes instead of {member.size}")
            finally:
                os.close(fd)
        pending.append(tar.padding(member.size))
    yield b"".join(pending) + tar.TRAILER


async def save(images: Images, names: Sequence[str]) -> AsyncIterator[bytes]:
    """The stream for `names`, which were resolved before this returns. Raises NotFound, InvalidArgument.

    The layers are leased until the stream ends, so a removal meanwhile does not cut it.
    """
    chosen = choose(images, names)

    async def chunks() -> AsyncIterator[bytes]:
        async with images.lease() as lease:
            for image, _ in chosen:
                for layer in image.layers:
                    if images.layers.find(lease, layer.chain_id) is None:
                        raise NotFound(f"No such image: {image.id}")
            async for chunk in stream(plan(chosen), images.blobs):
                yield chunk
            for image, _ in chosen:
                images.tell("save", image, image.id)

    return chunks()
