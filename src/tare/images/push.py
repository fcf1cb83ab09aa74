"""Pushing: an image of this engine becomes a tag of a registry, told in dockerd's words.

An image that came from a registry goes out as it came in, byte by byte, so that its digest stays what it was; any other
is described by a schema 2 manifest of the very blobs in the store (nothing is compressed for a push), or by an OCI one
where a blob is such that schema 2 has no word for it. For each blob, in this order: the repository has it; another one
of the registry has it (mount); it is sent. Then the config, then the manifest, then the tag.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
from msgspec import Struct

from tare.aio import failpoints
from tare.aio.tasks import spawn
from tare.aio.threads import in_thread
from tare.base.digest import Digest, sha256
from tare.base.errors import InvalidArgument, NotFound, Unauthorized, Unavailable
from tare.base.ids import short_id
from tare.base.reference import Reference
from tare.images import carry
from tare.images.artifacts import Artifact
from tare.images.carry import Progress
from tare.images.manifests import Manifests, StoredIndex, StoredManifest
from tare.images.platforms import Family, choose, family_of
from tare.images.records import Layer
from tare.images.save import manifest_of
from tare.images.service import Image, Images
from tare.oci import image as oci
from tare.oci.image import Descriptor, Platform
from tare.registry.challenge import Refusal
from tare.registry.credentials import ANONYMOUS, Credentials
from tare.registry.remote import Remote, remote_for
from tare.registry.transport import Transport
from tare.registry.uploads import Uploads

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_EVERY_S = 0.1
_MOUNTS = 3  # how many repositories are asked for a blob before it is sent


class Pushed(Struct, frozen=True):
    """A tag that is at the registry now."""

    tag: str
    digest: Digest
    size: int


class InsteadOfIndex(Struct, frozen=True):
    """Not all of an index is here, so the tag names one of its manifests at the registry now."""

    index: Descriptor
    manifest: Descriptor


class Part(Struct, frozen=True):
    """A blob of something that is no image: one of the store, or in a file."""

    digest: Digest
    size: int
    path: Path | None = None


class _Row(Struct):
    """What is to be told about one layer."""

    about: str
    status: str = "Preparing"
    current: int | None = None
    total: int | None = None
    is_news: bool = True


class Pushes:
    """The pushes of an engine; see the module."""

    def __init__(self, images: Images, manifests: Manifests, *, transport: Transport, uploads: Uploads) -> None:
        self._images = images
        self._manifests = manifests
        self._transport = transport
        self._uploads = uploads
        self._slots = asyncio.Semaphore(transport.options.uploads)

    def __repr__(self) -> str:
        return "Pushes()"

    def begin(
        self,
        reference: Reference,
        *,
        credentials: Credentials = ANONYMOUS,
        platform: Platform | None = None,
        with_referrers: bool = False,
    ) -> AsyncIterator[Progress | Pushed | InsteadOfIndex]:
        """The stream that pushes the reference, or every tag of its repository if it has none.

        An image that came through an index goes out with it, if all of the index is here. platform: only that image.
        What went in the place of an index is told.
        with_referrers: and every artifact here that is about what was pushed.

        Raises InvalidArgument for a digest. What goes wrong at the registry, or is not here, is raised by the stream.
        """
        if reference.digest:
            raise InvalidArgument("cannot push a digest reference")
        remote = remote_for(self._transport, reference, credentials, push=True)
        return self._stream(remote, reference, platform, with_referrers=with_referrers)

    async def send(
        self,
        reference: Reference,
        *,
        credentials: Credentials,
        parts: Sequence[Part],
        config: bytes,
        manifest: bytes,
    ) -> None:
        """Push something that is no image: its blobs, its config, then its OCI manifest under the tag.

        Raises Unauthorized, Unavailable, NotFound (a blob that went away).
        """
        remote = remote_for(self._transport, reference, credentials, push=True)
        try:
            await remote.ping()
            for part in parts:
                await self._send_part(remote, part)
            await self._send_bytes(remote, sha256(config), config)
            await remote.put_manifest(reference.tag or sha256(manifest), manifest, oci.OCI_MANIFEST)
        except (Refusal, Unauthorized) as error:
            raise _in_words(error, reference) from None

    async def _send_part(self, remote: Remote, part: Part) -> None:
        async with self._slots:
            if await remote.has_blob(part.digest):
                return
            if part.path is not None:
                file = await in_thread(os.open, part.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            else:
                file = await in_thread(self._images.blobs.open, part.digest)
            try:
                await self._uploads.send(remote, part.digest, part.size, file=file, location="", report=lambda _: None)
            finally:
                os.close(file)

    async def _stream(
        self, remote: Remote, reference: Reference, platform: Platform | None, *, with_referrers: bool
    ) -> AsyncIterator[Progress | Pushed | InsteadOfIndex]:
        yield Progress(status=f"The push refers to repository [{reference.name}]")
        named, artifacts = self._images.all_references(), self._manifests.artifacts.names()
        known = named.keys() | artifacts.keys()
        if reference.tag:
            chosen = [reference] if reference in known else []
        else:
            chosen = sorted((r for r in known if r.name == reference.name and r.tag), key=Reference.canonical)
        if not chosen:
            if reference.tag and any(one.name == reference.name for one in known):
                raise NotFound(f"tag does not exist: {reference.familiar()}")
            raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
        try:
            await remote.ping()
            for target in chosen:
                if target not in named:
                    async for progress in self._push_artifact(remote, target, artifacts[target]):
                        yield progress
                    if with_referrers:
                        async for progress in self._push_referrers(remote, [artifacts[target].digest]):
                            yield progress
                    continue
                image = self._images.get(named[target])
                family = await family_of(self._images, self._manifests, image, target)
                if platform is not None:
                    image, family = choose(family, image, platform, name=target.familiar()), None
                whole = family is not None and family.is_whole
                steps = (
                    self._push_index(remote, target, family) if family and whole else self._push(remote, target, image)
                )
                subjects = [member.descriptor.digest for member in family.members] if family and whole else []
                async for progress in steps:
                    yield progress
                    if isinstance(progress, Pushed):
                        subjects.append(progress.digest)
                        if family is not None and not whole:
                            yield await self._instead(family.index, progress, image)
                if with_referrers:
                    async for progress in self._push_referrers(remote, subjects):
                        yield progress
                self._images.tell("push", image, target.familiar_name, about=target.familiar())
        except (Refusal, Unauthorized) as error:
            raise _in_words(error, reference) from None

    async def _instead(self, index: StoredIndex, pushed: Pushed, image: Image) -> InsteadOfIndex:
        known = {one.digest: one.media_type for one in await self._manifests.of_image(image.id)}
        return InsteadOfIndex(
            Descriptor(mediaType=index.media_type, digest=index.digest, size=len(index.raw)),
            Descriptor(mediaType=known.get(pushed.digest, oci.OCI_MANIFEST), digest=pushed.digest, size=pushed.size),
        )

    async def _push_artifact(
        self, remote: Remote, target: Reference, artifact: Artifact
    ) -> AsyncIterator[Progress | Pushed]:
        async for progress in carry.send(
            remote, self._manifests.artifacts, self._uploads, artifact, tag=target.tag or ""
        ):
            yield progress
        self._manifests.artifacts.tell("push", artifact, target.familiar_name, about=target.familiar())
        yield Progress(status=f"{target.tag}: digest: {artifact.digest} size: {len(artifact.raw)}")
        yield Pushed(target.tag or "", artifact.digest, len(artifact.raw))

    async def _push_referrers(self, remote: Remote, subjects: Sequence[str]) -> AsyncIterator[Progress]:
        for artifact in self._manifests.artifacts.about_all(subjects):
            async for progress in carry.send(remote, self._manifests.artifacts, self._uploads, artifact):
                yield progress
            yield Progress(status=f"referrer: digest: {artifact.digest} size: {len(artifact.raw)}")

    async def _push(self, remote: Remote, target: Reference, image: Image) -> AsyncIterator[Progress | Pushed]:
        async with self._images.lease() as lease:
            for layer in image.layers:
                if self._images.layers.find(lease, layer.chain_id) is None:
                    raise NotFound(f"No such image: {image.id}")
            manifest = await self._describe(image, target)
            async for progress in self._send_layers(remote, image.layers):
                yield progress
            failpoints.hit("push.manifest")
            await self._send_config(remote, image)
            try:
                await remote.put_manifest(target.tag or manifest.digest, manifest.raw, manifest.media_type)
            except Refusal as error:
                if manifest.media_type != oci.OCI_MANIFEST and error.status in (400, 415):
                    manifest = _oci_manifest(image)  # a registry that knows OCI only
                    await remote.put_manifest(target.tag or manifest.digest, manifest.raw, manifest.media_type)
                else:
                    raise
            blobs = [layer.blob for layer in image.layers]
            await self._manifests.keep(manifest, repository=target.name, blobs=blobs)
            await self._images.add_image(
                image.raw,
                image.layers,
                references=[target.with_digest(manifest.digest)],
                parent=image.parent,
                is_told=False,
            )
        yield Progress(status=f"{target.tag}: digest: {manifest.digest} size: {len(manifest.raw)}")
        yield Pushed(target.tag or "", manifest.digest, len(manifest.raw))

    async def _push_index(self, remote: Remote, target: Reference, family: Family) -> AsyncIterator[Progress | Pushed]:
        """Every image of the index by its digest, then the index by its tag, each as it came."""
        async with self._images.lease() as lease:
            for member in family.here:
                assert member.image is not None
                for layer in member.image.layers:
                    if self._images.layers.find(lease, layer.chain_id) is None:
                        raise NotFound(f"No such image: {member.image.id}")
            for member in family.members:
                if member.artifact is not None:
                    artifacts = self._manifests.artifacts
                    async for progress in carry.send(remote, artifacts, self._uploads, member.artifact):
                        yield progress
                    continue
                image, manifest = member.image, member.manifest
                assert image is not None
                assert manifest is not None
                async for progress in self._send_layers(remote, image.layers):
                    yield progress
                await self._send_config(remote, image)
                await remote.put_manifest(manifest.digest, manifest.raw, manifest.media_type)
                await self._manifests.keep(
                    manifest, index=family.index, repository=target.name, blobs=[layer.blob for layer in image.layers]
                )
            await remote.put_manifest(target.tag or family.index.digest, family.index.raw, family.index.media_type)
            shown = self._images.all_references().get(target)
            for member in family.here:
                image, manifest = member.image, member.manifest
                assert image is not None
                assert manifest is not None
                digest = family.index.digest if image.id == shown else manifest.digest
                await self._images.add_image(
                    image.raw,
                    image.layers,
                    references=[target.with_digest(digest)],
                    parent=image.parent,
                    is_told=False,
                )
        size = len(family.index.raw)
        yield Progress(status=f"{target.tag}: digest: {family.index.digest} size: {size}")
        yield Pushed(target.tag or "", family.index.digest, size)

    async def _describe(self, image: Image, target: Reference) -> StoredManifest:
        """The manifest to push: a known one whose blobs are those of the store, else a new one."""
        own = [layer.blob for layer in image.layers]
        usable = [known for known in await self._manifests.of_image(image.id) if _blobs_of(known) == own]
        here = {reference.digest for reference in self._images.references(image.id) if reference.name == target.name}
        for known in usable:
            if known.digest in here:
                return known
        return usable[0] if usable else new_manifest(image)

    async def _send_layers(self, remote: Remote, layers: Sequence[Layer]) -> AsyncIterator[Progress]:
        """All layers side by side, each blob once. Nothing goes on when one of them fails or the client leaves."""
        changed = asyncio.Event()
        rows: dict[Digest, list[_Row]] = {}
        for layer in layers:
            rows.setdefault(layer.blob, []).append(_Row(short_id(layer.diff_id)))
        tasks: dict[Digest, asyncio.Task[None]] = {}
        try:
            for layer in layers:
                if layer.blob not in tasks:
                    work = self._send_layer(remote, layer, rows[layer.blob], changed)
                    tasks[layer.blob] = spawn(work, name=f"push {layer.blob}", is_awaited=True)
            for task in tasks.values():
                task.add_done_callback(lambda _: changed.set())
            while True:
                changed.clear()
                for row in [row for same in rows.values() for row in same]:
                    if row.is_news:
                        row.is_news = False
                        yield Progress(
                            status=row.status, about=row.about, current=row.current, total=row.total, is_layer=True
                        )
                for task in tasks.values():
                    if task.done():
                        task.result()
                if all(task.done() for task in tasks.values()) and not changed.is_set():
                    return
                await changed.wait()
        finally:
            for task in tasks.values():
                task.cancel()
            if tasks:
                await asyncio.wait(tasks.values())

    async def _send_layer(self, remote: Remote, layer: Layer, rows: list[_Row], changed: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        told_at = 0.0

        def tell(status: str, current: int | None = None) -> None:
            nonlocal told_at
            told_at = loop.time()
            for row in rows:
                row.status, row.current, row.is_news = status, current, True
                row.total = None if current is None else layer.blob_size
            changed.set()

        def report(sent: int) -> None:
            if loop.time() - told_at >= _EVERY_S or sent == layer.blob_size:
                tell("Pushing", sent)

        await asyncio.sleep(0)  # every layer is announced before the first of them goes
        if self._slots.locked():
            tell("Waiting")
        async with self._slots:
            if await remote.has_blob(layer.blob):
                self._uploads.forget(remote, layer.blob)
                return tell("Layer already exists")
            location = ""
            if not self._uploads.recall(remote, layer.blob):
                source, location = await self._mount(remote, layer.blob)
                if source:
                    return tell(f"Mounted from {source}")
            async with AsyncExitStack() as stack:
                failpoints.hit("push.blob")
                file = await in_thread(self._images.blobs.open, layer.blob)
                stack.callback(os.close, file)
                tell("Pushing", 0)
                await self._uploads.send(
                    remote, layer.blob, layer.blob_size, file=file, location=location, report=report
                )
        return tell("Pushed")

    async def _mount(self, remote: Remote, blob: Digest) -> tuple[str, str]:
        """The repository the registry took the blob from, or the URL of the upload it offers instead."""
        location = ""
        homes = [path for path in await self._manifests.homes(blob, domain=remote.domain) if path != remote.path]
        for path in homes[:_MOUNTS]:
            try:
                location = await remote.begin_upload(mount=blob, source=path)
            except (Refusal, Unauthorized):
                continue  # we may write here and not read there
            if not location:
                return path, ""
            await self._manifests.has_left(blob, repository=f"{remote.domain}/{path}")
        return "", location or await remote.begin_upload()

    async def _send_config(self, remote: Remote, image: Image) -> None:
        await self._send_bytes(remote, image.id, image.raw)

    async def _send_bytes(self, remote: Remote, digest: Digest, data: bytes) -> None:
        if await remote.has_blob(digest):
            return
        fd = os.memfd_create("config", os.MFD_CLOEXEC)
        try:
            _write_all(fd, data)
            location = await remote.begin_upload()
            await self._uploads.send(remote, digest, len(data), file=fd, location=location, report=lambda _: None)
        finally:
            os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def new_manifest(image: Image) -> StoredManifest:
    """A manifest of the image as it is stored: schema 2, or OCI for blobs schema 2 does not know. Always the same."""
    if any(layer.compression != "gzip" for layer in image.layers):
        return _oci_manifest(image)
    raw = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.DOCKER_MANIFEST,
            "config": {"mediaType": oci.DOCKER_CONFIG, "size": len(image.raw), "digest": image.id},
            "layers": [
                {"mediaType": DOCKER_LAYER, "size": layer.blob_size, "digest": layer.blob} for layer in image.layers
            ],
        }
    )
    return StoredManifest(digest=sha256(raw), image=image.id, media_type=oci.DOCKER_MANIFEST, raw=raw)


def _oci_manifest(image: Image) -> StoredManifest:
    raw = manifest_of(image)
    return StoredManifest(digest=sha256(raw), image=image.id, media_type=oci.OCI_MANIFEST, raw=raw)


def _blobs_of(manifest: StoredManifest) -> list[str]:
    document = oci.parse_manifest(manifest.raw, manifest.media_type)
    return [layer.digest for layer in document.layers] if isinstance(document, oci.Manifest) else []


def _in_words(error: Refusal | Unauthorized, reference: Reference) -> Exception:
    if isinstance(error, Unauthorized):
        return error
    if error.status in (401, 403):
        return Unauthorized(f"denied: {error.message}" if "denied" not in error.message else error.message)
    if error.status in (404, 405):
        return Unavailable(f"{reference.domain} does not take images: {error.message}")
    return error


__all__ = ["InsteadOfIndex", "Part", "Pushed", "Pushes", "new_manifest"]
