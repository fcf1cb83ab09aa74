"""`--cache-from type=…`: steps and cache mounts that another engine exported, each taken in when a build comes to it.

Only the document is read at the beginning; a layer is fetched when the step that made it is due and the file system below
it is here, and verified like one that is pulled. What cannot be had is told, and the step is done.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from msgspec import Struct

from tare.aio.threads import in_thread
from tare.base.digest import Digest, parse_digest
from tare.base.errors import DataCorrupt, InvalidArgument, NotFound
from tare.build.cachedoc import Document, MountTar, Source, Step, read_document, read_manifest
from tare.build.tree import FILE
from tare.drivers import userns
from tare.drivers.archive.client import Options
from tare.engine.builds.context import Spool
from tare.engine.engine import Engine
from tare.images.intake import WantedLayer
from tare.images.layers import Lease
from tare.images.records import Layer
from tare.oci import image as oci
from tare.registry.challenge import Refusal
from tare.registry.credentials import Credentials
from tare.registry.remote import Remote, remote_for

_READ = 1024 * 1024
Opened = AbstractAsyncContextManager[AsyncIterator[bytes]]


class Imported(Struct, frozen=True):
    """A cache to take from. remote: the repository it is in; else `open` reads its blobs."""

    document: Document
    sizes: dict[str, int]
    open: Callable[[str, int], Opened]
    remote: Remote | None = None

    async def layer(self, engine: Engine, lease: Lease, step: Step, parent: Layer | None) -> Layer:
        """The layer of a step, on top of `parent`, into the lease. Raises DataCorrupt, InvalidArgument, Unavailable, …"""
        digest, size = parse_digest(step.layer), self.sizes[step.layer]
        chain = step.chain
        assert chain is not None, "a step with a layer has a file system"
        layers = engine.images.layers
        if (known := layers.find(lease, chain)) is not None:
            return known
        if engine.images.blobs.exists(digest):
            fd = await in_thread(engine.images.blobs.open, digest)
            try:
                return await layers.add(lease, fd, parent=parent, diff_id=Digest(step.diff_id), input_digest=digest)
            finally:
                os.close(fd)
        if self.remote is not None:
            return await self._fetched(engine, lease, self.remote, step, parent)
        async with self.open(step.layer, size) as chunks:
            return await layers.add(lease, chunks, parent=parent, diff_id=Digest(step.diff_id), input_digest=digest)

    async def _fetched(self, engine: Engine, lease: Lease, remote: Remote, step: Step, parent: Layer | None) -> Layer:
        """By the same way as a pull's: it goes on after a cut, and builds that want it fetch it once."""
        digest, size, chain = parse_digest(step.layer), self.sizes[step.layer], step.chain
        assert chain is not None
        intake = engine.pulls.intake
        wanted = WantedLayer(
            digest=digest,
            size=size,
            diff_id=Digest(step.diff_id),
            chain_id=chain,
            parent=parent.chain_id if parent else None,
        )
        async with intake.take_part(
            wanted,
            below=None,
            source=lambda offset: remote.blob(digest, offset=offset, size=size),
            wait_after=remote.wait_after,
            watcher=lambda _: None,
        ) as job:
            layer = engine.images.layers.take(lease, await asyncio.shield(job.layer))
        intake.downloads.forget(digest)
        return layer

    async def fill(self, engine: Engine, mount: MountTar, place: Path) -> None:
        """The content of a cache mount into the empty directory `place`. Raises as `layer`."""
        async with AsyncExitStack() as stack:
            mapping = engine.settings.id_mapping
            user = None
            if mapping is not None:
                space = await userns.make(mapping)
                stack.callback(space.close)
                user = space.user_fd
                os.chown(place, *mapping.outside(0, 0))  # who unpacks is root of that namespace only
            chunks = await stack.enter_async_context(self.open(mount.layer, self.sizes[mount.layer]))
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            options = Options(whiteouts=False, devices=False, sync=False, allow_empty=True)
            result = await engine.archiver.unpack(chunks, fd, user_fd=user, options=options)
            if result.input_digest != mount.layer:
                raise DataCorrupt(f"a cache mount has digest {result.input_digest} instead of {mount.layer}")


async def load(
    engine: Engine, source: Source, *, spools: dict[str, Spool], credentials: Callable[..., Credentials]
) -> Imported:
    """Read what a cache holds. spools: those that came with the context, by place. Raises NotFound, …"""
    if source.reference is None:
        spool = spools.get(source.place)
        if spool is None:
            raise NotFound(f"the context has no directory {source.place}")
        return await in_thread(_from_spool, spool)
    remote = remote_for(engine.transport, source.reference, credentials(source.reference))
    try:
        raw = (await remote.manifest(source.reference.digest or source.reference.tag or "latest")).raw
        manifest = read_manifest(raw)
        document = await remote.document(manifest.config, limit=oci.MAX_CONFIG)
    except Refusal as error:
        if error.status == 404:
            raise NotFound(f"{source.reference.familiar()} is not there") from None
        raise
    return Imported(read_document(document, manifest), _sizes(manifest), _from_registry(remote), remote)


def _sizes(manifest: oci.Manifest) -> dict[str, int]:
    return {descriptor.digest: descriptor.size for descriptor in manifest.layers}


def _from_registry(remote: Remote) -> Callable[[str, int], Opened]:
    @asynccontextmanager
    async def opened(digest: str, size: int) -> AsyncIterator[AsyncIterator[bytes]]:
        async with remote.blob(digest, size=size) as (_, chunks):
            yield bounded(chunks, digest, size)

    return opened


async def bounded(chunks: AsyncIterator[bytes], digest: str, size: int) -> AsyncIterator[bytes]:
    """The same bytes, as many as were promised. Raises DataCorrupt."""
    left = size
    async for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            break
        yield chunk
    if left:
        raise DataCorrupt(f"blob {digest} does not have the {size} bytes promised")


def _from_spool(spool: Spool) -> Imported:
    """A directory as an export wrote it, taken apart. The hash of each member is known by now."""

    members = {member.name: member for member in spool.members if member.kind == FILE}

    def read(path: str, limit: int, digest: str = "") -> bytes:
        member = members.get(path)
        if member is None:
            raise NotFound(f"it has no {path[:100]}")
        if digest and f"sha256:{member.sha256}" != digest:
            raise DataCorrupt(f"{path} of the cache does not match its digest")
        return spool.read(member, limit=limit)

    index = oci.parse_manifest(read("index.json", oci.MAX_MANIFEST), oci.OCI_INDEX)
    if not isinstance(index, oci.Index) or len(index.manifests) != 1:
        raise InvalidArgument("index.json is not that of a build cache")
    entry = index.manifests[0]
    manifest = read_manifest(read(_path(entry.digest), oci.MAX_MANIFEST, entry.digest))
    document = read(_path(manifest.config.digest), oci.MAX_CONFIG, manifest.config.digest)

    @asynccontextmanager
    async def opened(digest: str, size: int) -> AsyncIterator[AsyncIterator[bytes]]:
        member = members.get(_path(digest))
        if member is None:
            raise NotFound(f"blob {digest} was not sent")
        if member.size != size or f"sha256:{member.sha256}" != digest:
            raise DataCorrupt(f"blob {digest} of the cache does not match its digest")

        async def chunks() -> AsyncIterator[bytes]:
            at = 0
            while at < size:
                count = min(_READ, size - at)
                yield await in_thread(os.pread, spool.data_fd, count, member.offset + at)
                at += count

        yield chunks()

    return Imported(read_document(document, manifest), _sizes(manifest), opened)


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


__all__ = ["Imported", "bounded", "load"]
