"""Drafts: the file system a build step left, to be stood on at once while its layer is still packed and hashed.

A snapshot is sealed by renaming it; the next step mounts on top of it. When the layer's digest is known the snapshot
gets its chainID as its name, and both names are good until nothing stands on the draft by the first one any more.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from tare.aio import failpoints
from tare.aio.tasks import settle, spawn
from tare.aio.threads import in_thread
from tare.base.digest import hex_of
from tare.base.ids import random_id
from tare.drivers import linux
from tare.drivers.archive.client import Archiver, Options, Result
from tare.drivers.snapshots import Snapshotter
from tare.images.layers import Layers, Lease, layer_of
from tare.images.records import Layer
from tare.store.blobs import Blobs

_HASHING = 2  # layers packed and hashed at once: each keeps a core busy


class Draft(Struct, eq=False):
    """Files that can be stood on by the name `snapshot`. made: the layer, when its bytes have been hashed."""

    snapshot: str
    made: asyncio.Future[Layer]
    is_sealed: bool = False

    @property
    def layer(self) -> Layer | None:
        """The layer if it is known by now."""
        return self.made.result() if self.made.done() and not self.made.cancelled() else None


def done(layer: Layer) -> Draft:
    """A layer that is complete, as a draft."""
    made: asyncio.Future[Layer] = asyncio.get_running_loop().create_future()
    made.set_result(layer)
    return Draft(hex_of(layer.chain_id), made)


class Drafts:
    """Makes drafts of active snapshots. `lock` is that of the images."""

    def __init__(
        self, *, layers: Layers, blobs: Blobs, snapshots: Snapshotter, archiver: Archiver, lock: asyncio.Lock
    ) -> None:
        self._layers = layers
        self._blobs = blobs
        self._snapshots = snapshots
        self._archiver = archiver
        self._lock = lock
        self._hashing = asyncio.Semaphore(_HASHING)
        self.live: set[str] = set()  # names of sealed snapshots that somebody stands on

    def is_empty(self, key: str) -> bool:
        """Whether the active snapshot `key` changed nothing."""
        with os.scandir(self._snapshots.upper(key)) as members:
            return next(members, None) is None

    def seal(self, lease: Lease, key: str, below: Draft | None, *, newest_ns: int | None = None) -> Draft:
        """Make what the active snapshot `key` holds, not mounted any more, a draft on top of `below`.

        It can be stood on when this returns; the layer is taken into the lease when it is made. newest_ns: later
        modification times are written as this one. Raises NotFound.
        """
        name = random_id()
        self._snapshots.seal(key, name)
        self.live.add(name)
        making = self._make(lease, name, below, newest_ns)
        return Draft(name, spawn(making, name="hash layer", is_awaited=True), is_sealed=True)

    async def _make(self, lease: Lease, name: str, below: Draft | None, newest_ns: int | None) -> Layer:
        ingest = self._blobs.new_ingest()
        try:
            with ExitStack() as stack:
                upper = _open(stack, self._snapshots.upper(name), os.O_RDONLY | os.O_DIRECTORY)
                place = _open(stack, ingest, os.O_RDONLY | os.O_DIRECTORY)
                blob = _open(stack, ingest / "blob", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                async with self._hashing, self._archiver.pack(upper, overlay=True, newest_ns=newest_ns) as reader:
                    options = Options(blob="write", extract=False)
                    result = await self._archiver.unpack(reader, place, blob_fd=blob, options=options)
                await in_thread(linux.syncfs, upper)
            failpoints.hit("draft.hashed")
            parent = await below.made if below is not None else None
            return await settle(self._name(lease, ingest, name, parent, result), name="name layer")
        finally:
            self._snapshots.discard(ingest)

    async def _name(self, lease: Lease, ingest: Path, name: str, parent: Layer | None, result: Result) -> Layer:
        layer = layer_of(parent, result)

        def move() -> None:
            self._blobs.publish(ingest / "blob", layer.blob, synced=True)
            self._snapshots.settle(name, hex_of(layer.chain_id), hex_of(layer.parent) if layer.parent else None)

        async with self._lock:
            known = self._layers.known.get(layer.chain_id)
            if known is None:
                try:
                    await in_thread(move)
                except BaseException:
                    self._layers.forget_files(layer)
                    raise
                failpoints.passed("draft.named")
                known = self._layers.known.setdefault(layer.chain_id, layer)
            return self._layers.take(lease, known)

    def drop(self, draft: Draft) -> None:
        """Nothing stands on the draft by its first name any more."""
        if draft.is_sealed:
            self._snapshots.forget(draft.snapshot)
            self.live.discard(draft.snapshot)


def _open(stack: ExitStack, path: Path, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    return fd
