"""`load`: archives of docker (new and old), of skopeo, podman and buildah, into images.

The outer tar is unpacked by the confined worker into an ingest directory (no devices, no owners, no whiteouts), then
its documents are read strictly, then each layer goes through the worker once more. Every digest promised is checked:
names in blobs/, descriptors, diffIDs. Nothing is recorded before all layers of an image are right.
Source: image-spec image-layout.md; moby image tarball formats v1 and v1.2.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from tare.aio import failpoints
from tare.aio.threads import in_thread
from tare.base.digest import Digest, chain_id, parse_digest, sha256
from tare.base.errors import Conflict, DataCorrupt, InvalidArgument, NotFound
from tare.base.ids import is_full_id
from tare.base.reference import Reference, parse_reference
from tare.drivers import linux
from tare.drivers.archive.client import Archiver, Options
from tare.images.artifacts import Artifact, Artifacts, read_artifact
from tare.images.documents import host_architecture
from tare.images.layers import Lease
from tare.images.manifests import Manifests, StoredIndex, StoredManifest
from tare.images.records import Layer
from tare.images.service import Images
from tare.oci import image as oci
from tare.oci import platform as platforms
from tare.oci.image import Platform
from tare.oci.platform import is_attestation

_MAX_DOCUMENT = oci.MAX_MANIFEST
_COPY = 1024 * 1024
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class Progress(Struct, frozen=True, kw_only=True):
    """One thing to tell the client: a line (`stream`), or how far a layer (`about`) is."""

    stream: str = ""
    status: str = ""
    about: str = ""
    current: int | None = None
    total: int | None = None


class PlannedLayer(Struct, frozen=True):
    """A layer file in the spool and what it must turn out to be."""

    path: str
    diff_id: Digest
    digest: Digest | None = None


class PlannedImage(Struct, frozen=True):
    """An image of the archive, ready to be loaded."""

    raw: bytes
    layers: tuple[PlannedLayer, ...]
    references: tuple[Reference, ...]


class Spool:
    """The unpacked outer archive. Every name in it is data: resolved beneath its directory, regular files only."""

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd

    def open(self, path: str) -> int:
        """A descriptor of a regular file. Raises InvalidArgument."""
        try:
            fd = linux.open_beneath(self._root, path.removeprefix("./"), _READ_FLAGS)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise InvalidArgument(f"invalid archive: open {path[:200]}: {reason}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidArgument(f"invalid archive: {path[:200]} is not a file")
        return fd

    def has(self, path: str) -> bool:
        """Whether there is such a regular file."""
        try:
            os.close(self.open(path))
        except InvalidArgument:
            return False
        return True

    def read(self, path: str, limit: int) -> bytes:
        """A whole document. Raises InvalidArgument for one that is too long."""
        with os.fdopen(self.open(path), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise InvalidArgument(f"invalid archive: {path[:200]} is larger than {limit} bytes")
        return data

    def json(self, path: str) -> object:
        """A strict JSON document."""
        return oci.load_json(self.read(path, _MAX_DOCUMENT), limit=_MAX_DOCUMENT, what=path)


# --- reading what is in the archive ----------------------------------------------------------------------------------


def read_plan(spool: Spool) -> list[PlannedImage]:
    """What the archive holds. Raises InvalidArgument, DataCorrupt (a document that is not what its digest says)."""
    if spool.has("manifest.json"):
        return _docker_archive(spool)
    if spool.has("index.json"):
        return _oci_layout(spool)
    if spool.has("repositories"):
        return _legacy(spool)
    raise InvalidArgument(
        "invalid archive: does not contain a manifest.json",
        hint="load reads what save wrote; a plain file system goes through import",
    )


def _text_list(value: object, what: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidArgument(f"invalid manifest.json: {what}")
    return value


def _named_digest(path: str) -> Digest | None:
    """The digest a name in blobs/ promises."""
    parts = path.removeprefix("./").split("/")
    if len(parts) == 3 and parts[:2] == ["blobs", "sha256"] and is_full_id(parts[2]):
        return Digest(f"sha256:{parts[2]}")
    return None


def _check_named(raw: bytes, path: str) -> None:
    promised = _named_digest(path)
    stem = path.removesuffix(".json")
    if promised is None and is_full_id(stem):
        promised = Digest(f"sha256:{stem}")
    if promised is not None:
        oci.verify_descriptor(raw, oci.Descriptor("", promised, len(raw)), what=path)


def _docker_archive(spool: Spool) -> list[PlannedImage]:
    listing = spool.json("manifest.json")
    if not isinstance(listing, list) or not all(isinstance(item, dict) for item in listing):
        raise InvalidArgument("invalid manifest.json: not a list of images")
    planned = []
    for item in listing:
        config = item.get("Config")
        if not isinstance(config, str):
            raise InvalidArgument("invalid manifest.json: Config is missing")
        raw = spool.read(config, oci.MAX_CONFIG)
        _check_named(raw, config)
        document = oci.parse_config(raw)
        layers = _text_list(item.get("Layers"), "Layers")
        references = tuple(
            parse_reference(name).with_default_tag() for name in _text_list(item.get("RepoTags"), "RepoTags")
        )
        planned.append(PlannedImage(raw, _pair(document, layers, [_named_digest(p) for p in layers]), references))
    return planned


def _pair(document: oci.ImageConfig, paths: list[str], digests: list[Digest | None]) -> tuple[PlannedLayer, ...]:
    diff_ids = document.diff_ids()
    if len(paths) != len(diff_ids):
        raise InvalidArgument(f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(paths)}")
    return tuple(
        PlannedLayer(path, diff_id, digest) for path, diff_id, digest in zip(paths, diff_ids, digests, strict=True)
    )


def _blob_path(digest: str) -> str:
    parsed = parse_digest(digest)
    algorithm, _, text = parsed.partition(":")
    return f"blobs/{algorithm}/{text}"


def _oci_layout(spool: Spool) -> list[PlannedImage]:
    planned: dict[bytes, PlannedImage] = {}
    raw = spool.read("index.json", _MAX_DOCUMENT)
    index = oci.parse_manifest(raw, oci.OCI_INDEX)
    if not isinstance(index, oci.Index):
        raise InvalidArgument("invalid index.json: not an index")
    for descriptor in index.manifests:
        found = _oci_image(spool, descriptor, 1)
        if found is None:
            continue
        name = _annotated_name(descriptor)
        known = planned.get(found.raw)
        names = (*(known.references if known else ()), *((name,) if name else ()))
        planned[found.raw] = PlannedImage(found.raw, found.layers, tuple(dict.fromkeys(names)))
    if not planned and not read_artifacts(spool):
        raise InvalidArgument(f"invalid archive: no image for linux/{host_architecture()} in it")
    return list(planned.values())


def _annotated_name(descriptor: oci.Descriptor) -> Reference | None:
    annotations = descriptor.annotations or {}
    for key in ("io.containerd.image.name", "org.opencontainers.image.ref.name"):
        text = annotations.get(key, "")
        if ":" in text or "/" in text:  # a bare word is a tag without its repository
            try:
                return parse_reference(text).with_default_tag()
            except InvalidArgument:
                continue
    return None


def _oci_image(spool: Spool, descriptor: oci.Descriptor, depth: int) -> PlannedImage | None:
    """The image a descriptor leads to; None when it is for other machines only."""
    if depth > oci.MAX_INDEX_DEPTH:
        raise InvalidArgument("invalid index: nested too deep")
    if descriptor.mediaType not in oci.MANIFESTS | oci.INDEXES:
        return None
    platform = descriptor.platform
    if platform and (platform.os, platform.architecture) != ("linux", host_architecture()) and platform.os:
        return None
    path = _blob_path(descriptor.digest)
    raw = spool.read(path, _MAX_DOCUMENT)
    oci.verify_descriptor(raw, descriptor, what=path)
    document = oci.parse_manifest(raw, descriptor.mediaType)
    if _is_artifact(descriptor, document):
        return None
    if isinstance(document, oci.Index):
        for inner in document.manifests:
            if (found := _oci_image(spool, inner, depth + 1)) is not None:
                return found
        return None
    config_path = _blob_path(document.config.digest)
    config = spool.read(config_path, oci.MAX_CONFIG)
    oci.verify_descriptor(config, document.config, what=config_path)
    paths = [_blob_path(layer.digest) for layer in document.layers]
    digests: list[Digest | None] = [parse_digest(layer.digest) for layer in document.layers]
    return PlannedImage(config, _pair(oci.parse_config(config), paths, digests), ())


def _legacy(spool: Spool) -> list[PlannedImage]:
    """Version 1: one directory per layer, linked by `parent`; no digests, so the diffIDs are computed first."""
    listing = spool.json("repositories")
    if not isinstance(listing, dict):
        raise InvalidArgument("invalid archive: repositories is not an object")
    names: dict[str, list[Reference]] = {}
    for repository, tags in listing.items():
        if not isinstance(tags, dict):
            raise InvalidArgument("invalid archive: repositories")
        for tag, top in tags.items():
            if not isinstance(top, str) or not is_full_id(top):
                raise InvalidArgument(f"invalid archive: repositories names image {str(top)[:80]!r}")
            names.setdefault(top, []).append(parse_reference(repository).with_tag(tag))
    return [_legacy_image(spool, top, tuple(references)) for top, references in names.items()]


def _legacy_image(spool: Spool, top: str, references: tuple[Reference, ...]) -> PlannedImage:
    chain: list[dict[str, Any]] = []
    above: object = top
    while above:
        if not isinstance(above, str) or not is_full_id(above) or len(chain) >= oci.MAX_LAYERS:
            raise InvalidArgument("invalid archive: wrong parent")
        found = spool.json(f"{above}/json")
        if not isinstance(found, dict) or found.get("id", above) != above:
            raise InvalidArgument(f"invalid archive: {above}/json is not about {above}")
        chain.append({**found, "id": above})
        above = found.get("parent")
    chain.reverse()
    layers = []
    history = []
    for document in chain:
        path = f"{document['id']}/layer.tar"
        layers.append(PlannedLayer(path, _plain_digest(spool, path)))
        step: dict[str, Any] = {"created": document.get("created")}
        container = document.get("container_config")
        command = container.get("Cmd") if isinstance(container, dict) else None
        if isinstance(command, list):
            step["created_by"] = " ".join(map(str, command))
        step |= {key: document[key] for key in ("author", "comment") if document.get(key)}
        history.append(step)
    dropped = {"id", "parent", "Size", "parent_id", "layer_id", "throwaway"}
    config = {key: value for key, value in chain[-1].items() if key not in dropped}
    config["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    config["history"] = history
    raw = msgspec.json.encode(config)
    oci.parse_config(raw)
    return PlannedImage(raw, tuple(layers), references)


def _plain_digest(spool: Spool, path: str) -> Digest:
    with os.fdopen(spool.open(path), "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise InvalidArgument(f"invalid archive: {path} is compressed")
        file.seek(0)
        return Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())


# --- loading ---------------------------------------------------------------------------------------------------------


class PlannedMember(Struct, frozen=True):
    """An image of an index in the archive, with the documents that lead to it. name: of the index, if it has one."""

    index: StoredIndex
    digest: Digest
    media_type: str
    raw: bytes
    image: PlannedImage
    name: Reference | None


def read_members(spool: Spool) -> list[PlannedMember]:
    """Every image of every index that index.json names; those whose files are not in the archive are left out.

    Raises InvalidArgument, DataCorrupt.
    """
    if not spool.has("index.json"):
        return []
    top = oci.parse_manifest(spool.read("index.json", _MAX_DOCUMENT), oci.OCI_INDEX)
    out: list[PlannedMember] = []
    for outer in top.manifests if isinstance(top, oci.Index) else ():
        if outer.mediaType not in oci.INDEXES or not spool.has(path := _blob_path(outer.digest)):
            continue
        raw = spool.read(path, _MAX_DOCUMENT)
        oci.verify_descriptor(raw, outer, what=path)
        document = oci.parse_manifest(raw, outer.mediaType)
        if _is_artifact(outer, document):
            continue
        index = StoredIndex(parse_digest(outer.digest), outer.mediaType, raw)
        for entry in document.manifests if isinstance(document, oci.Index) else ():
            if entry.mediaType not in oci.MANIFESTS or is_attestation(entry):
                continue
            if not spool.has(inner := _blob_path(entry.digest)):
                continue
            manifest = spool.read(inner, _MAX_DOCUMENT)
            image = _oci_image(spool, msgspec.structs.replace(entry, platform=None), 1)
            if image is not None:
                digest = parse_digest(entry.digest)
                out.append(PlannedMember(index, digest, entry.mediaType, manifest, image, _annotated_name(outer)))
    return out


class FoundArtifact(Struct, frozen=True):
    """An artifact of the archive. holder: digest of the index that lists it, "" for none. parts: what it lists."""

    artifact: Artifact
    name: Reference | None = None
    holder: str = ""
    parts: tuple[Artifact, ...] = ()


def _is_artifact(entry: oci.Descriptor, document: oci.Manifest | oci.Index) -> bool:
    """Whether an entry of index.json is no image: it says so, or the document does, or it is an index without a name
    about something."""
    if entry.artifactType or oci.is_artifact(document):
        return True
    return isinstance(document, oci.Index) and document.subject is not None and _annotated_name(entry) is None


def read_artifacts(spool: Spool) -> list[FoundArtifact]:
    """What index.json, and the indexes it names, list beside images. Raises InvalidArgument, DataCorrupt."""
    found = []
    for entry, raw, document, holder in _listed(spool):
        if _is_artifact(entry, document):
            artifact = read_artifact(raw, entry.mediaType)
            name = _annotated_name(entry) if not holder else None
            found.append(FoundArtifact(artifact, name, holder, _parts(spool, artifact)))
    return found


def _parts(spool: Spool, artifact: Artifact) -> tuple[Artifact, ...]:
    """What an artifact lists, and what that lists, as far as it is in the archive."""
    found: dict[str, Artifact] = {}
    pending = [(entry, 1) for entry in artifact.parts]
    while pending:
        entry, depth = pending.pop(0)
        if entry.digest in found or entry.mediaType not in oci.MANIFESTS | oci.INDEXES or depth > oci.MAX_INDEX_DEPTH:
            continue
        if not spool.has(path := _blob_path(entry.digest)):
            continue
        raw = spool.read(path, _MAX_DOCUMENT)
        oci.verify_descriptor(raw, entry, what=path)
        part = found[entry.digest] = read_artifact(raw, entry.mediaType)
        pending += [(inner, depth + 1) for inner in part.parts]
    return tuple(found.values())


def read_originals(spool: Spool) -> list[StoredManifest]:
    """The manifests of images that an artifact in the archive is about: they must go out as they are in it."""
    subjects = {found.artifact.subject for found in read_artifacts(spool)}
    return [
        StoredManifest(
            digest=sha256(raw), image=parse_digest(document.config.digest), media_type=entry.mediaType, raw=raw
        )
        for entry, raw, document, holder in _listed(spool)
        if isinstance(document, oci.Manifest) and not holder and entry.digest in subjects
        if not _is_artifact(entry, document)
    ]


def _listed(spool: Spool) -> Iterator[tuple[oci.Descriptor, bytes, oci.Manifest | oci.Index, str]]:
    """Every manifest of the archive that index.json names, or an index it names: entry, bytes, document, that index.

    An index that is an artifact is told as one thing.
    """
    if not spool.has("index.json"):
        return
    top = oci.parse_manifest(spool.read("index.json", _MAX_DOCUMENT), oci.OCI_INDEX)
    pending = [(entry, "") for entry in top.manifests] if isinstance(top, oci.Index) else []
    for entry, holder in pending:
        if entry.mediaType not in oci.MANIFESTS | oci.INDEXES or not spool.has(path := _blob_path(entry.digest)):
            continue
        raw = spool.read(path, _MAX_DOCUMENT)
        oci.verify_descriptor(raw, entry, what=path)
        document = oci.parse_manifest(raw, entry.mediaType)
        if isinstance(document, oci.Manifest) or _is_artifact(entry, document):
            yield entry, raw, document, holder
        elif not holder:
            pending += [(inner, entry.digest) for inner in document.manifests]


def for_platform(
    planned: list[PlannedImage], members: list[PlannedMember], wanted: Platform
) -> tuple[list[PlannedImage], list[PlannedMember]]:
    """What is for the platform. An image of an index takes the name that the index has. Raises NotFound for nothing."""

    def fits(image: PlannedImage) -> bool:
        document = oci.parse_config(image.raw)
        return platforms.runs_on(Platform(document.architecture, document.os, document.variant), wanted)

    kept = [image for image in planned if fits(image)]
    chosen = [member for member in members if fits(member.image)]
    known = {image.raw for image in kept}
    for member in chosen:
        if member.image.raw not in known:
            kept.append(replace_names(member.image, (member.name,) if member.name else ()))
    if not kept:
        raise NotFound(f"no image for {platforms.text_of(wanted)} in the archive")
    return kept, chosen


def replace_names(image: PlannedImage, names: tuple[Reference, ...]) -> PlannedImage:
    """The same image under other names."""
    return PlannedImage(image.raw, image.layers, names)


async def load(
    images: Images,
    archiver: Archiver,
    stream: AsyncIterator[bytes],
    *,
    quiet: bool,
    manifests: Manifests,
    platform: Platform | None = None,
) -> AsyncIterator[Progress]:
    """Load every image of the archive, telling how far it is.

    manifests: where an index and its manifests are kept, so that its images stay together. platform: only images for it.
    Raises InvalidArgument (wrong archive), DataCorrupt (a digest that lies). Images before the wrong one stay.
    """
    ingest = images.blobs.new_ingest()
    try:
        fd = os.open(ingest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            options = Options(whiteouts=False, devices=False, owners=False, sync=False)
            await archiver.unpack(stream, fd, options=options)
            failpoints.hit("load.spooled")
            spool = Spool(fd)
            planned = await in_thread(read_plan, spool)
            members = await in_thread(read_members, spool)
            if platform is not None:
                planned, members = for_platform(planned, members, platform)
            for item in planned:
                async for progress in _load_image(images, spool, item, quiet=quiet):
                    yield progress
            shown = {item.raw for item in planned}
            for member in members:
                if member.image.raw not in shown:
                    if member.name is None:
                        continue  # nothing would lead to it
                    named = replace_names(member.image, (member.name.with_digest(member.digest),))
                    async for progress in _load_image(images, spool, named, quiet=quiet):
                        yield progress
                stored = StoredManifest(
                    digest=member.digest,
                    image=sha256(member.image.raw),
                    media_type=member.media_type,
                    raw=member.raw,
                    led_by=member.index.digest,
                )
                await manifests.keep(stored, index=member.index, repository="", blobs=[])
            for original in await in_thread(read_originals, spool):
                if images.find(original.image) is not None:
                    await manifests.keep(original, repository="", blobs=[])
            async for progress in _load_artifacts(images, spool, manifests.artifacts):
                yield progress
        finally:
            os.close(fd)
    finally:
        images.discard(ingest)


async def _load_artifacts(images: Images, spool: Spool, artifacts: Artifacts) -> AsyncIterator[Progress]:
    for found in await in_thread(read_artifacts, spool):
        artifact = found.artifact
        if found.name is not None and found.name in images.all_references():
            raise Conflict(f"{found.name.familiar()} is an image here, and an artifact in the archive")
        holder = found.holder or artifact.subject
        if found.name is None and not holder:
            continue  # nothing would lead to it
        with artifacts.in_use(artifact, *found.parts):
            for one in (*found.parts, artifact):
                for blob in one.blobs:
                    await in_thread(_adopt, spool, artifacts, blob)
            await artifacts.keep(artifact, reference=found.name, holder=holder, parts=found.parts)
        artifacts.tell("load", artifact, artifact.digest)
        if found.name is not None:
            yield Progress(stream=f"Loaded artifact: {found.name.familiar()}\n")


def _adopt(spool: Spool, artifacts: Artifacts, blob: oci.Descriptor) -> None:
    if artifacts.has(blob):
        return
    try:
        with (
            artifacts.blobs.writer(expected=parse_digest(blob.digest), size=blob.size) as writer,
            os.fdopen(spool.open(_blob_path(blob.digest)), "rb") as file,
        ):
            while chunk := file.read(_COPY):
                writer.write(chunk)
            writer.commit()
    except DataCorrupt as error:
        raise InvalidArgument(f"invalid archive: {error.message}") from None


async def bring_layers(
    images: Images, spool: Spool, item: PlannedImage, lease: Lease, stack: list[Layer], *, quiet: bool
) -> AsyncIterator[Progress]:
    """Make the layers of an image of the archive known, base first, into `stack`; those known already are not read.

    A blob that is not in the archive may be in the store. Raises InvalidArgument.
    """
    for layer in item.layers:
        chain = chain_id([stack[-1].chain_id, layer.diff_id]) if stack else layer.diff_id
        known = images.layers.find(lease, chain)
        if known is None:
            fd = await in_thread(_open_layer, images, spool, layer)
            try:
                size = os.fstat(fd).st_size
                if not quiet:
                    short = layer.diff_id.removeprefix("sha256:")[:12]
                    yield Progress(status="Loading layer", about=short, current=0, total=size)
                try:
                    known = await images.layers.add(
                        lease,
                        fd,
                        parent=stack[-1] if stack else None,
                        diff_id=layer.diff_id,
                        input_digest=layer.digest,
                        allow_empty=True,
                    )
                except DataCorrupt as error:
                    raise InvalidArgument(f"invalid archive: {layer.path}: {error.message}") from None
                if not quiet:
                    yield Progress(status="Loading layer", about=short, current=size, total=size)
            finally:
                os.close(fd)
        stack.append(known)


def _open_layer(images: Images, spool: Spool, layer: PlannedLayer) -> int:
    if layer.digest is not None and not spool.has(layer.path) and images.blobs.exists(layer.digest):
        return images.blobs.open(layer.digest)
    return spool.open(layer.path)


async def _load_image(images: Images, spool: Spool, item: PlannedImage, *, quiet: bool) -> AsyncIterator[Progress]:
    async with images.lease() as lease:
        stack: list[Layer] = []
        async for progress in bring_layers(images, spool, item, lease, stack, quiet=quiet):
            yield progress
        before = {reference: images.all_references().get(reference) for reference in item.references}
        image = await images.add_image(item.raw, stack, references=item.references)
        for reference, old in before.items():
            if old is not None and old != image.id:
                yield Progress(
                    stream=f"The image {reference.familiar()} already exists, renaming the old one with ID {old}"
                    " to empty string\n"
                )
    images.tell("load", image, image.id)
    for reference in item.references:
        yield Progress(stream=f"Loaded image: {reference.familiar()}\n")
    if not item.references:
        yield Progress(stream=f"Loaded image ID: {image.id}\n")


__all__ = ["PlannedImage", "PlannedLayer", "Progress", "Spool", "bring_layers", "load", "read_plan"]
