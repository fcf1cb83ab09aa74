"""Artifacts on their way from and to registries, byte by byte: by name, with an index that lists them, or as referrers.

The blobs of one artifact go one after the other: they are few, and mostly small. A download goes on where it was, like
that of a layer, and is shared by everybody who wants the blob.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import AsyncExitStack

from msgspec import Struct

from tare.aio.threads import in_thread
from tare.base.digest import Digest, parse_digest
from tare.base.errors import DataCorrupt, InvalidArgument
from tare.base.ids import short_id
from tare.base.reference import Reference
from tare.images.artifacts import Artifact, Artifacts, read_artifact
from tare.oci import image as oci
from tare.oci.platform import is_attestation, subject_of
from tare.registry.challenge import Refusal
from tare.registry.downloads import Download, Downloads, file_digest
from tare.registry.remote import Remote
from tare.registry.uploads import Uploads

log = logging.getLogger(__name__)

_EVERY_S = 0.1
_MAX_DEPTH = 4  # referrers of referrers


class Progress(Struct, frozen=True, kw_only=True):
    """One thing to tell. about: the layer or tag it is about; is_layer: a message that belongs into a row of its own."""

    status: str
    about: str = ""
    current: int | None = None
    total: int | None = None
    is_layer: bool = False


# --- from a registry


async def fetch(
    remote: Remote,
    artifacts: Artifacts,
    downloads: Downloads,
    artifact: Artifact,
    *,
    reference: Reference | None = None,
    holder: str = "",
) -> AsyncIterator[Progress]:
    """Bring an artifact, with every part of it where it is an index, and record it under a name, or as what travels with
    `holder`. A part that its registry lacks is passed over. Raises DataCorrupt, and as `Remote.open`."""
    parts: dict[str, Artifact] = {}
    pending = [(entry, 1) for entry in artifact.parts]
    while pending:
        entry, depth = pending.pop(0)
        if entry.digest in parts or entry.mediaType not in oci.MANIFESTS | oci.INDEXES or depth > oci.MAX_INDEX_DEPTH:
            continue
        if len(parts) >= oci.MAX_LAYERS:
            raise InvalidArgument(f"artifact {artifact.digest} has more than {oci.MAX_LAYERS} parts")
        try:
            part = await _look(remote, entry)
        except Refusal as error:
            if error.status != 404:
                raise
            yield Progress(status=f"Skipping {short_id(Digest(entry.digest))}: the registry does not have it")
            continue
        parts[entry.digest] = part
        pending += [(inner, depth + 1) for inner in part.parts]
    with artifacts.in_use(artifact, *parts.values()):
        for one in (*parts.values(), artifact):
            async for progress in _fetch_blobs(remote, artifacts, downloads, one):
                yield progress
        await artifacts.keep(artifact, reference=reference, holder=holder, parts=list(parts.values()))


async def _fetch_blobs(
    remote: Remote, artifacts: Artifacts, downloads: Downloads, artifact: Artifact
) -> AsyncIterator[Progress]:
    for blob in artifact.blobs:
        digest = parse_digest(blob.digest)
        if await in_thread(artifacts.has, blob):
            yield _row(digest, "Already exists")
            continue
        yield _row(digest, "Pulling fs layer")
        is_right = False
        while not is_right:
            async with downloads.fetch(
                digest,
                blob.size,
                source=lambda offset, digest=digest, size=blob.size: remote.blob(digest, offset=offset, size=size),  # type: ignore[misc]
                wait_after=remote.wait_after,
            ) as download:
                async for progress in _arriving(download):
                    yield progress
                is_right = await in_thread(file_digest, download.path, download.size) == digest
                if is_right:
                    await in_thread(artifacts.adopt, download.path, digest)
                downloads.forget(digest)
            if not is_right and not download.is_resumed:
                raise DataCorrupt(f"blob verification failed for digest {digest}")
        yield _row(digest, "Pull complete")


async def _arriving(download: Download) -> AsyncIterator[Progress]:
    loop = asyncio.get_running_loop()
    told_at = 0.0
    while not download.is_done:
        if download.error is not None:
            raise download.error
        if not download.is_waiting and loop.time() - told_at >= _EVERY_S:
            told_at = loop.time()
            yield _row(download.digest, "Downloading", download.have, download.size)
        else:
            await download.news()
    yield _row(download.digest, "Download complete")


async def fetch_listed(
    remote: Remote, artifacts: Artifacts, downloads: Downloads, index: bytes, digest: Digest, about: Collection[str]
) -> AsyncIterator[Progress]:
    """Bring the attestations an index has about some of its manifests; one that its registry lacks is passed over."""
    document = oci.parse_manifest(index)
    for entry in document.manifests if isinstance(document, oci.Index) else ():
        if not is_attestation(entry) or entry.mediaType not in oci.MANIFESTS or subject_of(entry) not in about:
            continue
        try:
            artifact = await _look(remote, entry)
            async for progress in fetch(remote, artifacts, downloads, artifact, holder=digest):
                yield progress
        except Refusal as error:
            if error.status != 404:
                raise
            log.info("attestation %s: %s", entry.digest, error.message)


async def fetch_referrers(
    remote: Remote, artifacts: Artifacts, downloads: Downloads, subjects: Iterable[str]
) -> AsyncIterator[Progress]:
    """Bring everything that is about these manifests, and what is about that."""
    pending = [(subject, 1) for subject in dict.fromkeys(subjects)]
    seen: set[str] = set()
    while pending:
        subject, depth = pending.pop(0)
        if subject in seen or depth > _MAX_DEPTH:
            continue
        seen.add(subject)
        for entry in await remote.referrers(subject):
            if entry.mediaType not in oci.MANIFESTS | oci.INDEXES:
                yield Progress(status=f"Skipping {short_id(parse_digest(entry.digest))}: it is no manifest")
                continue
            artifact = await _look(remote, entry)
            if artifact.subject != subject:
                yield Progress(status=f"Skipping {short_id(artifact.digest)}: it is not about {subject}")
                continue
            yield Progress(status=f"Pulling referrer {short_id(artifact.digest)}: {artifact.kind}")
            async for progress in fetch(remote, artifacts, downloads, artifact, holder=subject):
                yield progress
            pending.append((artifact.digest, depth + 1))


async def _look(remote: Remote, entry: oci.Descriptor) -> Artifact:
    found = await remote.manifest(entry.digest)
    oci.verify_descriptor(found.raw, entry, what="manifest")
    return read_artifact(found.raw, entry.mediaType)


# --- to a registry


async def send(
    remote: Remote, artifacts: Artifacts, uploads: Uploads, artifact: Artifact, *, tag: str = ""
) -> AsyncIterator[Progress]:
    """Send an artifact under its digest, or under a tag, after what it lists; where the registry keeps no list of
    referrers, into the index that stands in for it. Raises as `Remote.open`."""
    parts = artifacts.parts_of(artifact)
    with artifacts.in_use(artifact, *parts):
        for part in parts:
            async for progress in _send_blobs(remote, artifacts, uploads, part):
                yield progress
            await remote.put_manifest(part.digest, part.raw, part.media_type)
        async for progress in _send_blobs(remote, artifacts, uploads, artifact):
            yield progress
    is_noted = await remote.put_manifest(tag or artifact.digest, artifact.raw, artifact.media_type)
    if artifact.subject and not is_noted:
        await remote.add_referrer(artifact.subject, descriptor_of(artifact))


async def _send_blobs(
    remote: Remote, artifacts: Artifacts, uploads: Uploads, artifact: Artifact
) -> AsyncIterator[Progress]:
    for blob in artifact.blobs:
        digest = parse_digest(blob.digest)
        yield _row(digest, "Preparing")
        if await remote.has_blob(digest):
            uploads.forget(remote, digest)
            yield _row(digest, "Layer already exists")
            continue
        yield _row(digest, "Pushing", 0, blob.size)
        async with AsyncExitStack() as stack:
            file = await in_thread(artifacts.blobs.open, digest)
            stack.callback(os.close, file)
            location = "" if uploads.recall(remote, digest) else await remote.begin_upload()
            await uploads.send(remote, digest, blob.size, file=file, location=location, report=lambda _: None)
        yield _row(digest, "Pushed")


def descriptor_of(artifact: Artifact) -> oci.Descriptor:
    """How an index lists the artifact among the referrers of what it is about."""
    return oci.Descriptor(
        mediaType=artifact.media_type,
        digest=artifact.digest,
        size=len(artifact.raw),
        annotations=artifact.document.annotations,
        artifactType=oci.artifact_type(artifact.document),
    )


def _row(digest: Digest, status: str, current: int | None = None, total: int | None = None) -> Progress:
    return Progress(status=status, about=short_id(digest), current=current, total=total, is_layer=True)


__all__ = ["Progress", "descriptor_of", "fetch", "fetch_listed", "fetch_referrers", "send"]
