"""Layers: bytes that come in become a blob and, at once or when something first stands on them, a snapshot.

Who takes a layer into a lease keeps it from being collected until the operation is over.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from tare.aio import failpoints
from tare.aio.tasks import settle
from tare.aio.threads import in_thread
from tare.base.digest import Digest, chain_id, hex_of
from tare.base.errors import DataCorrupt
from tare.drivers.archive.client import Archiver, Options, Result
from tare.drivers.snapshots import Snapshotter
from tare.images.records import Layer
from tare.store.blobs import Blobs


class Lease:
    """Keeps layers from being collected until the operation that needs them is over."""

    def __init__(self) -> None:
        self.chains: list[Digest] = []


class Staged(Struct, frozen=True):
    """A layer unpacked in an ingest directory (`snapshot/`, `blob`), and what was found out about it."""

    ingest: Path
    result: Result


class Layers:
    """The layers of all images and containers. `known` and `leases` by chainID; `lock` is that of the images."""

    def __init__(self, *, blobs: Blobs, snapshots: Snapshotter, archiver: Archiver, lock: asyncio.Lock) -> None:
        self.known: dict[Digest, Layer] = {}
        self.leases: Counter[Digest] = Counter()
        self._blobs = blobs
        self._snapshots = snapshots
        self._archiver = archiver
        self._lock = lock
        self._unpacking: dict[Digest, asyncio.Lock] = {}

    def __repr__(self) -> str:
        return f"Layers({len(self.known)} known, {len(self.leases)} leased)"

    def take(self, lease: Lease, layer: Layer) -> Layer:
        """Keep the layer, and with it those below, as long as the lease lives."""
        self.leases[layer.chain_id] += 1
        lease.chains.append(layer.chain_id)
        return layer

    def find(self, lease: Lease, chain: Digest) -> Layer | None:
        """The layer if it is known, taken into the lease."""
        layer = self.known.get(chain)
        return self.take(lease, layer) if layer else None

    async def add(
        self,
        lease: Lease,
        source: AsyncIterator[bytes] | int,
        *,
        parent: Layer | None,
        diff_id: Digest | None = None,
        input_digest: Digest | None = None,
        allow_empty: bool = False,
    ) -> Layer:
        """Unpack a layer on top of `parent` and make it known. Work for the same layer at the same time is done once.

        diff_id, input_digest: what the plain bytes and the bytes as they come must be; DataCorrupt if they are not.
        """
        if parent is not None:
            await self.make_ready(parent.chain_id)
        if diff_id is None:
            return await self.unpack(lease, source, parent, input_digest=input_digest, allow_empty=allow_empty)
        async with self._alone(chain_of(parent, diff_id)) as chain:
            return self.find(lease, chain) or await self.unpack(
                lease, source, parent, diff_id=diff_id, input_digest=input_digest, allow_empty=allow_empty
            )

    @asynccontextmanager
    async def _alone(self, chain: Digest) -> AsyncIterator[Digest]:
        """One at a time works at the layer `chain`."""
        guard = self._unpacking.setdefault(chain, asyncio.Lock())
        try:
            async with guard:
                yield chain
        finally:
            if not guard.locked():
                self._unpacking.pop(chain, None)

    async def unpack(
        self,
        lease: Lease,
        source: AsyncIterator[bytes] | int,
        parent: Layer | None,
        *,
        diff_id: Digest | None = None,
        input_digest: Digest | None = None,
        allow_empty: bool = False,
        extract: bool = True,
    ) -> Layer:
        """As `add`, for bytes nobody else brings. Without `extract` only the blob is kept; `make_ready` unpacks it."""
        ingest = self._blobs.new_ingest()  # not in a thread: one mkdir, and a cancelled thread would still make it
        try:
            options = Options(blob="write", allow_empty=allow_empty, extract=extract)
            with ExitStack() as opened:
                tree = self._begin(ingest, parent.chain_id if parent else None) if extract else ingest
                blob = _opened(opened, ingest / "blob", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                result = await self._archiver.unpack(
                    source, _opened(opened, tree, os.O_RDONLY | os.O_DIRECTORY), blob_fd=blob, options=options
                )
            if diff_id is not None and result.plain_digest != diff_id:
                raise DataCorrupt(f"layer has diffID {result.plain_digest} instead of {diff_id}")
            if input_digest is not None and result.input_digest != input_digest:
                raise DataCorrupt(f"layer has digest {result.input_digest} instead of {input_digest}")
            return await settle(self._admit(lease, ingest, parent, result), name="admit layer")
        finally:
            self._snapshots.discard(ingest)

    async def stage(self, source: AsyncIterator[bytes], file: Path) -> Staged:
        """Unpack the bytes of a layer whose place in a stack is not settled yet. They are also in `file`.

        When it returns everything is on the disk, `file` included, which stays the caller's. The result is not checked
        against anything. For `admit`, and then for `drop` in any case.
        """
        ingest = self._blobs.new_ingest()
        try:
            with ExitStack() as opened:
                tree = _opened(opened, self._begin(ingest, None), os.O_RDONLY | os.O_DIRECTORY)
                result = await self._archiver.unpack(source, tree, options=Options(allow_empty=True))
            failpoints.hit("layer.staged")
            os.link(file, ingest / "blob")
        except BaseException:
            self._snapshots.discard(ingest)
            raise
        result = replace(
            result,
            blob_digest=result.input_digest,
            blob_size=result.input_size,
            blob_compression=result.compression,
        )
        return Staged(ingest, result)

    async def admit(self, lease: Lease, staged: Staged, parent: Layer | None) -> Layer:
        """Make a staged layer known on top of `parent`, which is leased."""
        if parent is not None:
            await self.make_ready(parent.chain_id)
            if not staged.result.has_root:
                self._snapshots.inherit_root(staged.ingest / "snapshot", hex_of(parent.chain_id))
        return await settle(self._admit(lease, staged.ingest, parent, staged.result), name="admit layer")

    def drop(self, staged: Staged) -> None:
        """Forget what was staged and not admitted."""
        self._snapshots.discard(staged.ingest)

    def _begin(self, ingest: Path, parent: Digest | None) -> Path:
        return self._snapshots.begin(ingest / "snapshot", hex_of(parent) if parent else None)

    async def _admit(self, lease: Lease, ingest: Path, parent: Layer | None, result: Result) -> Layer:
        layer = layer_of(parent, result)

        def move() -> None:
            self._blobs.publish(ingest / "blob", layer.blob, synced=True)
            if (ingest / "snapshot").exists():
                self._adopt(ingest, layer, result)

        async with self._lock:
            if (known := self.known.get(layer.chain_id)) is not None:
                return self.take(lease, known)
            failpoints.hit("layer.admit")
            try:
                await in_thread(move)
            except BaseException:
                self.forget_files(layer)
                raise
            failpoints.passed("layer.admitted")
            self.known[layer.chain_id] = layer
            return self.take(lease, layer)

    def forget_files(self, layer: Layer) -> None:
        """Drop what a layer that never became known has on the disk. The caller has the lock."""
        self._snapshots.remove(hex_of(layer.chain_id))
        if all(other.blob != layer.blob for other in self.known.values()):
            self._blobs.remove(layer.blob)

    def _adopt(self, ingest: Path, layer: Layer, result: Result) -> None:
        self._snapshots.mark_opaque(ingest / "snapshot", result.opaque)
        parent = hex_of(layer.parent) if layer.parent else None
        self._snapshots.commit_from(ingest / "snapshot", hex_of(layer.chain_id), parent)

    def is_unpacked(self, layer: Layer) -> bool:
        """Whether the layer's files are there, or only its blob: nothing has stood on it since it was committed."""
        return self._snapshots.exists(hex_of(layer.chain_id))

    async def make_ready(self, chain: Digest) -> None:
        """Unpack what of the leased stack has not been yet. Raises DataCorrupt when a blob is not what it was."""
        missing: list[Layer] = []
        above: Digest | None = chain
        while above is not None and above in self.known:
            if not self.is_unpacked(self.known[above]):
                missing.append(self.known[above])
            above = self.known[above].parent
        for layer in reversed(missing):
            async with self._alone(layer.chain_id):
                if not self.is_unpacked(layer):
                    await self._restore_files(layer)

    @asynccontextmanager
    async def standing(self, chain: Digest) -> AsyncIterator[None]:
        """Inside the block the file system is unpacked and stays. The caller knows that it is kept until then."""
        self.leases[chain] += 1
        try:
            await self.make_ready(chain)
            yield
        finally:
            self.leases[chain] -= 1
            if not self.leases[chain]:
                del self.leases[chain]

    async def unpack_again(self, layer: Layer, *, is_free: Callable[[], bool]) -> bool:
        """Replace the files of a leased layer by what its blob holds.

        is_free: asked at the last moment; False if nothing was changed because it said no. Raises NotFound (no blob),
        DataCorrupt.
        """
        if layer.parent is not None:
            await self.make_ready(layer.parent)
        async with self._alone(layer.chain_id):
            return await self._restore_files(layer, is_free=is_free)

    async def _restore_files(self, layer: Layer, *, is_free: Callable[[], bool] | None = None) -> bool:
        ingest = self._blobs.new_ingest()
        try:
            with ExitStack() as opened:
                blob = self._blobs.open(layer.blob)
                opened.callback(os.close, blob)
                tree = _opened(opened, self._begin(ingest, layer.parent), os.O_RDONLY | os.O_DIRECTORY)
                options = Options(allow_empty=True, is_own=True)
                result = await self._archiver.unpack(blob, tree, options=options)
            if result.plain_digest != layer.diff_id:
                raise DataCorrupt(f"blob {layer.blob} holds {result.plain_digest} instead of {layer.diff_id}")
            if is_free is None:
                await settle(in_thread(self._adopt, ingest, layer, result), name="adopt unpacked layer")
                return True
            self._snapshots.mark_opaque(ingest / "snapshot", result.opaque)
            if not is_free():  # nothing is awaited from here on: nobody begins to stand on it
                return False
            parent = hex_of(layer.parent) if layer.parent else None
            self._snapshots.replace(ingest / "snapshot", hex_of(layer.chain_id), parent)
            return True
        finally:
            self._snapshots.discard(ingest)


def layer_of(parent: Layer | None, result: Result) -> Layer:
    """The record of a layer on top of `parent`, from what was found out about its bytes."""
    diff_id = Digest(result.plain_digest)
    return Layer(
        chain_id=chain_of(parent, diff_id),
        parent=parent.chain_id if parent else None,
        diff_id=diff_id,
        blob=Digest(result.blob_digest),
        blob_size=result.blob_size,
        compression=result.blob_compression,
        plain_size=result.plain_size,
        size_bytes=result.files_bytes,
    )


def chain_of(parent: Layer | None, diff_id: Digest) -> Digest:
    """The chainID of a layer on top of `parent`."""
    return chain_id([parent.chain_id, diff_id]) if parent else diff_id


def _opened(stack: ExitStack, path: Path, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    return fd
