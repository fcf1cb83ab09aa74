"""Pulling: a reference becomes an image of this engine, told step by step in dockerd's words.

`Pulls.begin` finds out what is meant (so that "no such image" is an answer, not a message in a stream), the stream it
returns does the work:

    manifest ─► platform ─► config ─► layers, side by side (`intake`) ─► image, tags and manifest recorded

Everything is verified on the way down: each document by the digest that led to it, each layer by its digest and diffID.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct
from msgspec.structs import replace

from tare.aio import failpoints
from tare.base.digest import Digest, chain_id, parse_digest
from tare.base.errors import Conflict, InvalidArgument, NotFound, Unauthorized
from tare.base.ids import short_id
from tare.base.reference import Reference
from tare.images import carry
from tare.images.artifacts import Artifact, read_artifact
from tare.images.carry import Progress
from tare.images.documents import config_of_image
from tare.images.intake import Intake, Job, Step, WantedLayer, forget
from tare.images.layers import Lease
from tare.images.manifests import Manifests, StoredIndex, StoredManifest
from tare.images.records import Layer
from tare.images.service import Image, Images
from tare.oci import image as oci
from tare.oci import platform as platforms
from tare.oci.image import Descriptor, ImageConfig, Manifest, Platform
from tare.oci.platform import is_attestation
from tare.registry.challenge import Refusal
from tare.registry.credentials import ANONYMOUS, Credentials
from tare.registry.downloads import Downloads, Opened
from tare.registry.remote import Remote, RemoteManifest, remote_for
from tare.registry.transport import Transport, Unreachable


class Resolved(Struct, frozen=True, kw_only=True):
    """What a reference means at its registry. digest: of what the tag names, the index if it is one."""

    reference: Reference
    digest: Digest
    manifest: RemoteManifest
    index: RemoteManifest | None
    image_id: Digest
    config: bytes
    layers: tuple[WantedLayer, ...]


class ResolvedArtifact(Struct, frozen=True, kw_only=True):
    """What a reference means at its registry, where that is no image."""

    reference: Reference
    digest: Digest
    artifact: Artifact


class UpToDate(Struct, frozen=True, kw_only=True):
    """The registry's tag is the image we have under it."""

    reference: Reference
    digest: Digest
    image: Image


_Found = Resolved | ResolvedArtifact | UpToDate


class Pulls:
    """The pulls of an engine; see the module."""

    def __init__(self, images: Images, manifests: Manifests, *, transport: Transport, downloads: Downloads) -> None:
        self.intake = Intake(images, downloads)
        self._images = images
        self._manifests = manifests
        self._transport = transport

    def __repr__(self) -> str:
        return f"Pulls({self.intake!r})"

    async def begin(
        self,
        reference: Reference,
        *,
        platform: Platform | None = None,
        credentials: Credentials = ANONYMOUS,
        every_platform: bool = False,
        with_referrers: bool = False,
    ) -> AsyncIterator[Progress]:
        """Resolve the reference; without tag and digest it means every tag. Returns the stream that pulls.

        every_platform: all images of an index; the reference shows the one for this machine, or the first.
        with_referrers: and the artifacts that are about them at the registry.

        Raises NotFound (dockerd's texts), Unauthorized, InvalidArgument, DataCorrupt, Unavailable.
        """
        remote = remote_for(self._transport, reference, credentials)
        if every_platform:
            if not (reference.tag or reference.digest):
                raise InvalidArgument("every platform of one tag can be pulled, not of every tag")
            try:
                everything = await self._look_at_all(remote, reference)
                return self._stream(remote, everything, reference, with_referrers=with_referrers)
            except (Refusal, Unauthorized) as error:
                raise _Words(reference)(error) from None
        if reference.tag or reference.digest:
            resolved = await self._resolve(remote, reference, platform)
            return self._stream(remote, [resolved], reference, with_referrers=with_referrers)
        with_words = _Words(reference)
        try:
            tags = await remote.tags()
        except (Refusal, Unauthorized) as error:
            raise with_words(error) from None
        if not tags:
            raise NotFound(f"repository {reference.familiar()} has no tags")
        found: list[_Found] = []
        failure: NotFound | None = None
        for tag in tags:
            try:
                found.append(await self._resolve(remote, reference.with_tag(tag), platform))
            except _NoMatch as error:
                failure = error
        if failure is not None and not found:
            raise failure
        return self._stream(remote, found, reference, with_referrers=with_referrers)

    # -- finding out --------------------------------------------------------------------------------------------------

    async def _resolve(self, remote: Remote, reference: Reference, platform: Platform | None) -> _Found:
        try:
            known = await self._known(remote, reference, platform)
            if known is not None:
                return known
            return await self._look(remote, reference, platform)
        except (Refusal, Unauthorized) as error:
            raise _Words(reference)(error) from None

    async def _known(self, remote: Remote, reference: Reference, platform: Platform | None) -> UpToDate | None:
        """Whether we have the very thing. A digest needs no registry for that, a tag costs a HEAD."""
        named = self._images.all_references()
        have = named.get(reference)
        if have is None:
            return None
        image = self._images.get(have)
        if platform is not None and not platforms.runs_on(_platform_of(image.document), platform):
            return None
        if reference.digest is not None:
            return UpToDate(reference=reference, digest=reference.digest, image=image)
        head = await remote.head(reference.tag or "")
        if head is None:
            return None
        try:
            by_digest = reference.with_digest(parse_digest(head.digest))
        except InvalidArgument:
            return None
        if named.get(by_digest) != have:
            return None
        assert by_digest.digest is not None
        return UpToDate(reference=reference, digest=by_digest.digest, image=image)

    async def _look(
        self, remote: Remote, reference: Reference, platform: Platform | None
    ) -> Resolved | ResolvedArtifact:
        top = await remote.manifest(reference.digest or reference.tag or "")
        wanted = platform or platforms.host_platform()
        manifest, document = top, oci.parse_manifest(top.raw, top.media_type)
        depth = 0
        while isinstance(document, oci.Index) and not oci.is_artifact(document):
            depth += 1
            if depth > oci.MAX_INDEX_DEPTH:
                raise InvalidArgument(f"{reference.familiar()}: its index is nested too deep")
            entry = _entry(document, wanted, is_asked=platform is not None)
            if entry is None:
                raise _NoMatch(
                    f"no matching manifest for {platforms.text_of(wanted)} in the manifest list entries: "
                    "no match for platform in manifest: not found"
                )
            manifest = await remote.manifest(entry.digest)
            oci.verify_descriptor(manifest.raw, entry, what="manifest") if entry.digest.startswith("sha256:") else None
            document = oci.parse_manifest(manifest.raw, entry.mediaType)
        return await self._described(remote, reference, top, manifest, document, platform)

    async def _look_at_all(self, remote: Remote, reference: Reference) -> list[_Found]:
        """Every image of an index, the one that the reference will show last."""
        top = await remote.manifest(reference.digest or reference.tag or "")
        document = oci.parse_manifest(top.raw, top.media_type)
        if not isinstance(document, oci.Index) or oci.is_artifact(document):
            return [await self._look(remote, reference, None)]
        entries = [
            entry for entry in document.manifests if entry.mediaType in oci.MANIFESTS and not is_attestation(entry)
        ]
        if not entries:
            raise _NoMatch(f"no image in the index of {reference.familiar()}")
        shown = _entry(document, platforms.host_platform(), is_asked=False)
        shown = shown if shown in entries else entries[0]
        found: list[_Found] = []
        for entry in [*(entry for entry in entries if entry is not shown), shown]:
            manifest = await remote.manifest(entry.digest)
            oci.verify_descriptor(manifest.raw, entry, what="manifest") if entry.digest.startswith("sha256:") else None
            inner = oci.parse_manifest(manifest.raw, entry.mediaType)
            assert isinstance(inner, Manifest)
            resolved = await self._described(remote, reference, top, manifest, inner, None)
            if isinstance(resolved, ResolvedArtifact):
                raise InvalidArgument(
                    f"{reference.familiar()} is an index of artifacts: pull them one by one, by digest"
                )
            if entry is not shown:
                resolved = replace(resolved, reference=reference.with_digest(manifest.digest), digest=manifest.digest)
            found.append(resolved)
        return found

    async def _described(
        self,
        remote: Remote,
        reference: Reference,
        top: RemoteManifest,
        manifest: RemoteManifest,
        document: Manifest | oci.Index,
        platform: Platform | None,
    ) -> Resolved | ResolvedArtifact:
        if oci.is_artifact(document) or isinstance(document, oci.Index):
            artifact = read_artifact(manifest.raw, document.mediaType or manifest.media_type)
            return ResolvedArtifact(reference=reference, digest=top.digest, artifact=artifact)
        image_id = _stored(document.config)
        have = self._images.find(image_id)
        raw = have.raw if have else await remote.document(document.config, limit=oci.MAX_CONFIG)
        config = oci.parse_config(raw)
        config_of_image(config)
        if platform is not None and not platforms.runs_on(_platform_of(config), platform):
            raise _NoMatch(
                f"image with reference {reference.familiar()} was found but does not match the specified platform: "
                f"wanted {platforms.text_of(platform)}, actual: {platforms.text_of(_platform_of(config))}"
            )
        return Resolved(
            reference=reference,
            digest=top.digest,
            manifest=replace(manifest, media_type=document.mediaType or manifest.media_type or oci.OCI_MANIFEST),
            index=top if top is not manifest else None,
            image_id=image_id,
            config=raw,
            layers=plan_layers(document, config),
        )

    # -- fetching -----------------------------------------------------------------------------------------------------

    async def _stream(
        self, remote: Remote, found: Sequence[_Found], asked: Reference, *, with_referrers: bool
    ) -> AsyncIterator[Progress]:
        is_newer = False
        for item in found:
            yield Progress(
                status=f"Pulling from {_repository(asked)}", about=item.reference.digest or item.reference.tag or ""
            )
            if isinstance(item, Resolved):
                before = self._images.all_references().get(item.reference)
                async for progress in self._fetch(remote, item):
                    yield progress
                is_newer = is_newer or before != item.image_id
            elif isinstance(item, ResolvedArtifact):
                artifacts = self._manifests.artifacts
                is_newer = is_newer or artifacts.names().get(item.reference) != item.artifact
                async for progress in self._fetch_artifact(remote, item):
                    yield progress
            if with_referrers:
                subjects = await self._subjects(item)
                async for progress in carry.fetch_referrers(
                    remote, self._manifests.artifacts, self.intake.downloads, subjects
                ):
                    yield progress
            yield Progress(status=f"Digest: {item.digest}")
        last = found[-1]
        image = None
        if not isinstance(last, ResolvedArtifact):
            image = self._images.find(last.image_id if isinstance(last, Resolved) else last.image.id)
        if image is not None:
            self._images.tell("pull", image, asked.familiar_name, about=asked.familiar())
        if isinstance(last, ResolvedArtifact):
            self._manifests.artifacts.tell("pull", last.artifact, asked.familiar_name, about=asked.familiar())
        what = "Downloaded newer image" if is_newer else "Image is up to date"
        yield Progress(status=f"Status: {what} for {asked.familiar()}")

    async def _fetch(self, remote: Remote, item: Resolved) -> AsyncIterator[Progress]:
        async with self._images.lease() as lease:
            layers: list[Layer] = []
            known = self._images.find(item.image_id)
            if known is not None:
                layers = [
                    layer for wanted in item.layers if (layer := self._images.layers.find(lease, wanted.chain_id))
                ]
            if len(layers) != len(item.layers):
                layers = []
                board = _Board()
                async with self._taking_part(remote, item.layers, lease, board) as jobs:
                    async for progress in board.until_done(jobs):
                        yield progress
                    layers = [job if isinstance(job, Layer) else job.layer.result() for job in jobs]
                    for job in jobs:
                        if isinstance(job, Job):
                            self._images.layers.find(lease, job.wanted.chain_id)
            await self._record(item, layers)
        forget(self.intake.downloads, item.layers)
        if item.index is not None:
            async for progress in carry.fetch_listed(
                remote,
                self._manifests.artifacts,
                self.intake.downloads,
                item.index.raw,
                item.index.digest,
                {item.manifest.digest},
            ):
                yield progress

    async def _fetch_artifact(self, remote: Remote, item: ResolvedArtifact) -> AsyncIterator[Progress]:
        artifacts = self._manifests.artifacts
        if item.reference in self._images.all_references():
            raise Conflict(
                f"{item.reference.familiar()} is an image here, and an artifact at its registry",
                hint="remove the image, or give it another name, then repeat",
            )
        async for progress in carry.fetch(
            remote, artifacts, self.intake.downloads, item.artifact, reference=item.reference
        ):
            yield progress

    async def _subjects(self, item: _Found) -> list[str]:
        """What referrers may be about: the index and the manifest."""
        if isinstance(item, ResolvedArtifact):
            return [item.digest, item.artifact.digest]
        image = item.image_id if isinstance(item, Resolved) else item.image.id
        return [item.digest, *(known.digest for known in await self._manifests.of_image(image))]

    async def _record(self, item: Resolved, layers: Sequence[Layer]) -> None:
        reference = item.reference
        manifest, index = item.manifest, item.index
        await self._manifests.keep(
            StoredManifest(
                digest=manifest.digest,
                image=item.image_id,
                media_type=manifest.media_type,
                raw=manifest.raw,
                led_by=index.digest if index else "",
            ),
            index=StoredIndex(index.digest, index.media_type, index.raw) if index else None,
            repository=reference.name,
            blobs=[layer.digest for layer in item.layers],
        )
        failpoints.hit("pull.manifest")
        names = [reference.with_digest(item.digest)]
        if reference.digest is None:
            names.insert(0, reference)
        await self._images.add_image(item.config, layers, references=names, is_told=False)
        await self._manifests.artifacts.give_up(reference)

    @asynccontextmanager
    async def _taking_part(
        self, remote: Remote, wanted: Sequence[WantedLayer], lease: Lease, board: _Board
    ) -> AsyncIterator[list[Job | Layer]]:
        """Every layer, known already or in the making, base first."""
        async with AsyncExitStack() as stack:
            jobs: list[Job | Layer] = []
            for layer in wanted:
                about = short_id(layer.digest)
                known = self._images.layers.find(lease, layer.chain_id)
                if known is not None:
                    board.tell(about, Step("Already exists"))
                    jobs.append(known)
                    continue
                below = jobs[-1] if jobs else None
                jobs.append(
                    await stack.enter_async_context(
                        self.intake.take_part(
                            layer,
                            below=below if isinstance(below, Job) else None,
                            source=lambda offset, layer=layer: _open(remote, layer, offset),  # type: ignore[misc]
                            wait_after=remote.wait_after,
                            watcher=lambda step, about=about: board.tell(about, step),  # type: ignore[misc]
                        )
                    )
                )
            yield jobs


class _Board:
    """What is still to be told to one client: the newest number of a layer replaces the one before."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str, str], Step] = {}
        self._event = asyncio.Event()

    def tell(self, about: str, step: Step) -> None:
        if step.current is None:
            self._steps.pop((about, step.status), None)
        self._steps[about, step.status] = step
        self._event.set()

    def _taken(self) -> list[Progress]:
        steps, self._steps = self._steps, {}
        self._event.clear()
        return [
            Progress(status=step.status, about=about, current=step.current, total=step.total, is_layer=True)
            for (about, _), step in steps.items()
        ]

    async def until_done(self, jobs: Sequence[Job | Layer]) -> AsyncIterator[Progress]:
        """Tell what there is until every job has its layer. Raises what the first failure says."""
        pending = {job.layer for job in jobs if isinstance(job, Job)}
        for future in pending:
            future.add_done_callback(lambda _: self._event.set())
        while True:
            for progress in self._taken():
                yield progress
            for future in [future for future in pending if future.done()]:
                pending.discard(future)
                future.result()
            if not pending:
                break
            await self._event.wait()
        for progress in self._taken():
            yield progress


@asynccontextmanager
async def _open(remote: Remote, layer: WantedLayer, offset: int) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
    """The bytes of a layer: from its own URLs if it has some, else from the registry."""
    async with AsyncExitStack() as stack:
        opened: tuple[int, AsyncIterator[bytes]] | None = None
        for url in layer.urls:
            try:
                opened = await stack.enter_async_context(remote.foreign(url, offset=offset, size=layer.size))
                break
            except (Refusal, Unreachable):
                continue
        if opened is None:
            context: Opened = remote.blob(layer.digest, offset=offset, size=layer.size)
            opened = await stack.enter_async_context(context)
        yield opened


def plan_layers(document: Manifest, config: ImageConfig) -> tuple[WantedLayer, ...]:
    """Manifest and config side by side, base first. Raises InvalidArgument when they do not fit."""
    diff_ids = config.diff_ids()
    if len(diff_ids) != len(document.layers):
        raise InvalidArgument(
            f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(document.layers)}"
        )
    out: list[WantedLayer] = []
    for descriptor, diff_id in zip(document.layers, diff_ids, strict=True):
        if descriptor.mediaType not in oci.LAYERS:
            raise InvalidArgument(f"invalid manifest: a layer of type {descriptor.mediaType[:100]!r}")
        parent = out[-1].chain_id if out else None
        out.append(
            WantedLayer(
                digest=_stored(descriptor),
                size=descriptor.size,
                diff_id=diff_id,
                chain_id=chain_id([parent, diff_id]) if parent else diff_id,
                parent=parent,
                urls=tuple(descriptor.urls or ()),
            )
        )
    return tuple(out)


def _stored(descriptor: Descriptor) -> Digest:
    digest = parse_digest(descriptor.digest)
    if not digest.startswith("sha256:"):
        raise InvalidArgument(f"blob {digest[:80]}: config and layers must be named by sha256")
    return digest


def _entry(document: oci.Index, wanted: Platform, *, is_asked: bool) -> Descriptor | None:
    """The entry to go on with; one that says no platform is taken when nothing else is there."""
    usable = [entry for entry in document.manifests if entry.mediaType in oci.MANIFESTS | oci.INDEXES]
    found = platforms.choose(usable, wanted, is_asked=is_asked)
    silent = [entry for entry in usable if entry.platform is None and not platforms.is_attestation(entry)]
    return found or (silent[0] if len(silent) == 1 else None)


def _platform_of(config: ImageConfig) -> Platform:
    return Platform(config.architecture, config.os, config.variant)


def _repository(reference: Reference) -> str:
    """dockerd's name of the repository in `Pulling from`: without the registry."""
    return reference.path


class _NoMatch(NotFound):
    """There is an image, for other machines."""


class _Words:
    """A registry's refusal in the words clients of dockerd look for (W8, W56)."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def __call__(self, error: Refusal | Unauthorized) -> Exception:
        name = self._reference.familiar_name
        if isinstance(error, Unauthorized) or error.is_denied:
            return NotFound(
                f"pull access denied for {name}, repository does not exist or may require 'docker login': {error.message}"
            )
        if error.code == "MANIFEST_UNKNOWN" or (error.status == 404 and error.code in ("", "NOT_FOUND")):
            return NotFound(f"manifest for {self._reference.familiar()} not found: {error.message}")
        if error.code in ("NAME_UNKNOWN", "NAME_INVALID") or error.status == 404:
            return NotFound(f"repository {name} not found: {error.message}")
        return error


__all__ = ["Progress", "Pulls", "Resolved", "plan_layers"]
