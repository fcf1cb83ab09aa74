"""`save`: images as one tar that is a docker-archive and an OCI layout at once.

    blobs/sha256/<hex>    configs, manifests, layers (as stored: compressed, so nothing is computed here)
    index.json, oci-layout
    manifest.json         what docker load reads

Equal images give equal bytes: sorted, and the one time is that of a config, which is when its image was created.
Source: image-spec image-layout.md; moby image tarball format v1.2 (`manifest.json`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tare.aio.threads import in_thread
from tare.base.digest import Digest, hex_of, sha256
from tare.base.errors import InvalidArgument, NotFound
from tare.base.reference import Reference, parse_reference
from tare.drivers.archive import tar
from tare.images import platforms as platforms_of
from tare.images.artifacts import Artifact, Artifacts
from tare.images.manifests import Manifests, StoredManifest
from tare.images.naming import created_ns
from tare.images.platforms import Family, family_of
from tare.images.records import Image
from tare.images.service import Images
from tare.oci.image import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Manifest,
    Platform,
    artifact_type,
    parse_manifest,
)
from tare.store.blobs import Blobs

_CHUNK = 1024 * 1024
_SECOND = 1_000_000_000
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Member(Struct, frozen=True):
    """One file of the tar: bytes at hand, a blob of the store, or a file at `path`."""

    name: str
    size: int
    data: bytes | None
    blob: Digest | None = None
    path: Path | None = None
    mtime_ns: int = 0


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
    chosen: Sequence[tuple[Image, list[Reference]]],
    families: Mapping[Digest, Family | None] | None = None,
    *,
    annotations: Mapping[str, str] | None = None,
    originals: Mapping[Digest, StoredManifest] | None = None,
    artifacts: Artifacts | None = None,
    parcels: Sequence[tuple[Artifact, Sequence[Reference]]] = (),
) -> list[Member]:
    """The members of the tar, in order. annotations: of index.json.

    families: by image, the index that is saved in its place, as it came. originals: by image, the manifest it came with,
    to be saved instead of one of our own. parcels: artifacts of `artifacts` to add, with their names.
    """
    blobs: dict[str, Member] = {}
    index: list[dict[str, Any]] = []
    listing: list[dict[str, Any]] = []

    def add(digest: Digest, size: int, data: bytes | None, path: Path | None = None, *, mtime_ns: int = 0) -> str:
        name = f"blobs/sha256/{hex_of(digest)}"
        blobs[name] = Member(name, size, data, None if data is not None or path is not None else digest, path, mtime_ns)
        return name

    def add_artifact(artifact: Artifact) -> dict[str, Any]:
        assert artifacts is not None
        for one in (artifact, *artifacts.parts_of(artifact)):
            add(one.digest, len(one.raw), one.raw)
            for blob in one.blobs:
                digest = Digest(blob.digest)
                add(digest, blob.size, None, artifacts.blobs.path(digest))
        kind = {"artifactType": text} if (text := artifact_type(artifact.document)) else {}
        return {"mediaType": artifact.media_type, "digest": artifact.digest, "size": len(artifact.raw), **kind}

    def named(entry: dict[str, Any], tags: Sequence[Reference]) -> list[dict[str, Any]]:
        return [
            {
                **entry,
                "annotations": {
                    "io.containerd.image.name": tag.canonical(),
                    "org.opencontainers.image.ref.name": tag.tag,
                },
            }
            for tag in tags
        ] or [entry]

    for image, references in chosen:
        original = (originals or {}).get(image.id)
        manifest, media_type = (original.raw, original.media_type) if original else (manifest_of(image), OCI_MANIFEST)
        digest = sha256(manifest)
        add(digest, len(manifest), manifest)
        config = add(image.id, len(image.raw), image.raw, mtime_ns=created_ns(image) // _SECOND * _SECOND)
        layers = [add(layer.blob, layer.blob_size, None) for layer in image.layers]
        tags = [reference for reference in references if reference.tag]
        listing.append({"Config": config, "RepoTags": [tag.familiar() for tag in tags] or None, "Layers": layers})
        entry: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": len(manifest)}
        if (family := (families or {}).get(image.id)) is not None:
            entry = _add_family(add, add_artifact, family)
            blobs.pop(f"blobs/sha256/{hex_of(digest)}") if digest not in known_digests(family) else None
        elif image.document.os and image.document.architecture:
            entry["platform"] = {"architecture": image.document.architecture, "os": image.document.os}
        index += named(entry, tags)
    for artifact, names in parcels:
        index += named(add_artifact(artifact), [name for name in names if name.tag])
    whole: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index}
    documents = {
        "index.json": msgspec.json.encode(whole | ({"annotations": dict(annotations)} if annotations else {})),
        "manifest.json": msgspec.json.encode(listing),
        "oci-layout": LAYOUT,
    }
    # What tells a reader what to expect comes first: it need not keep the blobs to know their roles.
    head = [Member(name, len(data), data) for name, data in documents.items()]
    return head + [blobs[name] for name in sorted(blobs)]


def _open(member: Member, blobs: Blobs) -> int:
    if member.path is not None:
        return os.open(member.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    assert member.blob is not None
    return blobs.open(member.blob)


def known_digests(family: Family) -> set[str]:
    """The digests of an index's manifests."""
    return {member.descriptor.digest for member in family.members}


def _add_family(
    add: Callable[[Digest, int, bytes | None], str],
    add_artifact: Callable[[Artifact], dict[str, Any]],
    family: Family,
) -> dict[str, Any]:
    """Everything an index needs; returns its entry for index.json."""
    for member in family.members:
        if member.artifact is not None:
            add_artifact(member.artifact)
            continue
        assert member.image is not None
        assert member.manifest is not None
        add(member.manifest.digest, len(member.manifest.raw), member.manifest.raw)
        add(member.image.id, len(member.image.raw), member.image.raw)
        for layer in member.image.layers:
            add(layer.blob, layer.blob_size, None)
    index = family.index
    add(index.digest, len(index.raw), index.raw)
    return {"mediaType": index.media_type, "digest": index.digest, "size": len(index.raw)}


async def stream(members: Sequence[Member], blobs: Blobs) -> AsyncIterator[bytes]:
    """The tar, in chunks of up to 1 MiB."""
    directories = b"".join(tar.header_of(tar.Entry(name, tar.DIR, 0o755)) for name in (b"blobs/", b"blobs/sha256/"))
    pending = [directories]
    for member in members:
        pending.append(
            tar.header_of(tar.Entry(member.name.encode(), tar.FILE, 0o644, size=member.size, mtime_ns=member.mtime_ns))
        )
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


class Chosen(Struct, frozen=True):
    """An image to save with its references, and the index to save with all of its images instead, if any."""

    image: Image
    references: list[Reference]
    family: Family | None = None

    def images(self) -> list[Image]:
        """Every image that goes into the tar."""
        if self.family is None:
            return [self.image]
        return [member.image for member in self.family.members if member.image is not None]


async def _with_platforms(
    images: Images,
    manifests: Manifests,
    chosen: Sequence[tuple[Image, list[Reference]]],
    wanted: Sequence[Platform],
) -> list[Chosen]:
    out: list[Chosen] = []
    for image, references in chosen:
        name = references[0].familiar() if references else image.id
        family = await family_of(images, manifests, image, references[0] if references else None)
        if wanted:
            picked = [platforms_of.choose(family, image, platform, name=name) for platform in wanted]
            out += [Chosen(one, references) for one in {one.id: one for one in picked}.values()]
        else:
            whole = family is not None and family.is_whole and bool(references)
            out.append(Chosen(image, references, family if whole else None))
    return out


_Parcels = dict[Digest, tuple[Artifact, list[Reference]]]


def _parcels(images: Images, artifacts: Artifacts, names: Sequence[str]) -> tuple[_Parcels, list[str]]:
    """The artifacts among the names, with those names, and the names of images."""
    parcels: _Parcels = {}
    rest: list[str] = []
    for name in names:
        found = artifacts.named(name)
        if found is None or found[1] in images.all_references():
            rest.append(name)
            continue
        _, references = parcels.setdefault(found[0].digest, (found[0], []))
        if found[1] is not None and found[1] not in references:
            references.append(found[1])
    return parcels, rest


async def _original(manifests: Manifests, image: Image) -> StoredManifest | None:
    """A manifest the image came with whose blobs are those of the store."""
    own = [layer.blob for layer in image.layers]
    for known in await manifests.of_image(image.id):
        document = parse_manifest(known.raw, known.media_type)
        if isinstance(document, Manifest) and [layer.digest for layer in document.layers] == own:
            return known
    return None


async def save(
    images: Images,
    names: Sequence[str],
    *,
    manifests: Manifests,
    platforms: Sequence[Platform] = (),
    with_referrers: bool = False,
) -> AsyncIterator[bytes]:
    """The stream for `names` of images and artifacts, resolved before this returns. Raises NotFound, InvalidArgument.

    with_referrers: and the artifacts that are about them; the images have the manifests they came with then.

    platforms: only those; without, an index that is here as a whole is saved as one. The layers are leased until the
    stream ends, so a removal meanwhile does not cut it.
    """
    parcels, rest = _parcels(images, manifests.artifacts, names)
    known = choose(images, rest) if rest or not parcels else []
    chosen = await _with_platforms(images, manifests, known, platforms)
    originals: dict[Digest, StoredManifest] = {}
    if with_referrers:
        subjects: list[str] = list(parcels)
        for item in chosen:
            if item.family is not None:
                subjects += [item.family.index.digest, *known_digests(item.family)]
            elif original := await _original(manifests, item.image):
                originals[item.image.id] = original
                subjects.append(original.digest)
        parcels = {one.digest: (one, []) for one in manifests.artifacts.about_all(subjects)} | parcels

    used = [artifact for artifact, _ in parcels.values()]
    for item in chosen:
        used += [member.artifact for member in (item.family.members if item.family else ()) if member.artifact]

    used += [part for artifact in list(used) for part in manifests.artifacts.parts_of(artifact)]

    async def chunks() -> AsyncIterator[bytes]:
        async with AsyncExitStack() as stack:
            lease = await stack.enter_async_context(images.lease())
            stack.enter_context(manifests.artifacts.in_use(*used))
            for image in [image for item in chosen for image in item.images()]:
                for layer in image.layers:
                    if images.layers.find(lease, layer.chain_id) is None:
                        raise NotFound(f"No such image: {image.id}")
            members = plan(
                [(item.image, item.references) for item in chosen],
                {item.image.id: item.family for item in chosen},
                originals=originals,
                artifacts=manifests.artifacts,
                parcels=list(parcels.values()),
            )
            async for chunk in stream(members, images.blobs):
                yield chunk
            for item in chosen:
                images.tell("save", item.image, item.image.id)
            for artifact, _ in parcels.values():
                manifests.artifacts.tell("save", artifact, artifact.digest)

    return chunks()
