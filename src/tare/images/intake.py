"""Layers from registries: fetched, verified and unpacked while they arrive, each once however many pulls want it.

A layer is unpacked without knowing what lies below it (in overlayfs each is a directory of its own), so all layers of an
image are worked at side by side; only their admission, a rename, goes from the base up. Who wants a layer takes part in
its `Job`; the first starts it, the last to leave stops it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from tare.aio.tasks import spawn
from tare.aio.threads import in_thread
from tare.base.digest import Digest
from tare.base.errors import DataCorrupt, InternalError, InvalidArgument, Unavailable
from tare.images.layers import Lease, Staged
from tare.images.records import Layer
from tare.images.service import Images
from tare.registry.downloads import Download, Downloads, Open, WaitAfter, file_digest
from tare.registry.transport import Unreachable

_EVERY_S = 0.1  # how often numbers are told
_UNPACKING = 8  # at most; twice the processors, since at the end of each layer one waits for the disk
_COMPRESSIONS = frozenset({"gzip", "zstd", "plain"})


class WantedLayer(Struct, frozen=True, kw_only=True):
    """A layer as manifest and config name it; `chain_id` is its place in the stack, `parent` what it stands on."""

    digest: Digest
    size: int
    diff_id: Digest
    chain_id: Digest
    parent: Digest | None
    urls: tuple[str, ...] = ()


class Step(Struct, frozen=True):
    """News of a layer: a status of Docker's, and how far it is where that is a number."""

    status: str
    current: int | None = None
    total: int | None = None


Watcher = Callable[[Step], None]


class Job:
    """One layer in the making. `layer` resolves when it is known; it is kept as long as somebody takes part."""

    def __init__(self, wanted: WantedLayer) -> None:
        self.wanted = wanted
        self.layer: asyncio.Future[Layer] = asyncio.get_running_loop().create_future()
        self.watchers: list[Watcher] = []
        self.left = asyncio.Event()
        self.fetched = asyncio.Event()  # set when the last word about the download was told
        self.users = 0
        self.task: asyncio.Task[None] | None = None
        self.last = Step("Pulling fs layer")

    def __repr__(self) -> str:
        return f"Job({self.wanted.digest}, {self.last.status})"

    def tell(self, status: str, current: int | None = None) -> None:
        """Hand news to everybody who watches."""
        self.last = Step(status, current, None if current is None else self.wanted.size)
        for watcher in self.watchers:
            watcher(self.last)


class Intake:
    """The jobs under way, by chainID."""

    def __init__(self, images: Images, downloads: Downloads) -> None:
        self.downloads = downloads
        self._images = images
        self._jobs: dict[Digest, Job] = {}
        self._unpacking = asyncio.Semaphore(max(2, min(_UNPACKING, 2 * (os.cpu_count() or 1))))

    def __repr__(self) -> str:
        return f"Intake({len(self._jobs)} layers under way)"

    @asynccontextmanager
    async def take_part(
        self,
        wanted: WantedLayer,
        *,
        below: Job | None,
        source: Open,
        wait_after: WaitAfter,
        watcher: Watcher,
    ) -> AsyncIterator[Job]:
        """Want a layer as long as the block lasts. below: the job of the layer it stands on, None for the lowest or
        when that one is known already (and leased by the caller). The caller takes part in it at least as long."""
        job = self._jobs.get(wanted.chain_id)
        if job is None or (job.layer.done() and job.layer.exception() is not None):
            job = Job(wanted)
            self._jobs[wanted.chain_id] = job
            job.task = spawn(self._run(job, below, source, wait_after), name=f"layer {wanted.digest}", is_awaited=True)
        job.users += 1
        job.watchers.append(watcher)
        watcher(Step("Pulling fs layer"))
        if job.last.status != "Pulling fs layer":
            watcher(job.last)
        try:
            yield job
        finally:
            job.users -= 1
            job.watchers.remove(watcher)
            if not job.users:
                await self._end(job)

    async def _end(self, job: Job) -> None:
        if self._jobs.get(job.wanted.chain_id) is job:
            del self._jobs[job.wanted.chain_id]
        job.left.set()
        if job.task is not None:
            if not job.layer.done():
                job.task.cancel()
            await asyncio.wait({job.task})
        if job.layer.done() and not job.layer.cancelled():
            job.layer.exception()  # seen: whoever cared has left

    async def _run(self, job: Job, below: Job | None, source: Open, wait_after: WaitAfter) -> None:
        try:
            async with self._images.lease() as lease:
                layer = self._images.layers.find(lease, job.wanted.chain_id)
                if layer is None:
                    layer = await self._make(lease, job, below, source, wait_after)
                job.tell("Pull complete")
                job.layer.set_result(layer)
                await job.left.wait()
        except asyncio.CancelledError:
            job.layer.cancel()
            raise
        except Exception as error:
            job.layer.set_exception(error)

    async def _make(self, lease: Lease, job: Job, below: Job | None, source: Open, wait_after: WaitAfter) -> Layer:
        staged = await self._stage(job, source, wait_after)
        try:
            parent = None
            if below is not None:
                parent = await asyncio.shield(below.layer)
            elif job.wanted.parent is not None:
                parent = self._images.layers.find(lease, job.wanted.parent)
                if parent is None:
                    raise InternalError(f"layer {job.wanted.digest} has lost what it stands on")
            return await self._images.layers.admit(lease, staged, parent)
        finally:
            self._images.layers.drop(staged)

    async def _stage(self, job: Job, source: Open, wait_after: WaitAfter) -> Staged:
        """Fetch and unpack. What was left of an earlier pull may be damaged: then once more, from the start."""
        made: list[Staged] = []
        try:
            while await self._attempt(job, source, wait_after, made) is not None:
                pass
            return made[0]
        except BaseException:
            for staged in made:  # it was made, and then somebody lost interest
                self._images.layers.drop(staged)
            raise

    async def _attempt(
        self, job: Job, source: Open, wait_after: WaitAfter, made: list[Staged]
    ) -> DataCorrupt | InvalidArgument | None:
        """Put the staged layer into `made`, or return what was wrong with it if bytes of an earlier pull are to blame."""
        wanted = job.wanted
        failure: DataCorrupt | InvalidArgument | None = None
        async with self.downloads.fetch(wanted.digest, wanted.size, source=source, wait_after=wait_after) as download:
            reporting = spawn(_report(job, download), name="progress of a download", is_awaited=True)
            try:
                made.append(await self._unpack(job, download))
            except (DataCorrupt, InvalidArgument) as error:
                failure = await self._verdict(download, error)
                self.downloads.forget(wanted.digest)
                job.fetched.clear()
            except Unavailable as error:
                if not isinstance(error, Unreachable) and "no space left" in error.message:
                    self.downloads.forget(wanted.digest)  # a full disk is not helped by a part of a layer
                raise
            finally:
                reporting.cancel()
                await asyncio.wait({reporting})
        if failure is not None and not download.is_resumed:
            raise failure
        return failure

    async def _verdict(self, download: Download, error: DataCorrupt | InvalidArgument) -> DataCorrupt | InvalidArgument:
        """The bytes are wrong, or they are as promised and what they say is wrong. Raises what ended the download."""
        if isinstance(error, DataCorrupt):
            return error
        await download.finished()
        if await in_thread(file_digest, download.path, download.size) != download.digest:
            return _lied(download.digest)
        return InvalidArgument(f"layer {download.digest}: {error.message}")

    async def _unpack(self, job: Job, download: Download) -> Staged:
        async with self._unpacking:
            staged = await self._images.layers.stage(_watched(job, download), download.path)
        try:
            result = staged.result
            if result.input_digest != job.wanted.digest:
                raise _lied(job.wanted.digest)
            if result.compression not in _COMPRESSIONS:
                raise InvalidArgument(f"it is compressed with {result.compression}, which layers may not be")
            if result.plain_digest != job.wanted.diff_id:
                raise DataCorrupt(
                    f"layer {job.wanted.digest} unpacks to {result.plain_digest}, its image says {job.wanted.diff_id}"
                )
        except BaseException:
            self._images.layers.drop(staged)
            raise
        return staged


def _lied(digest: Digest) -> DataCorrupt:
    return DataCorrupt(f"filesystem layer verification failed for digest {digest}")


async def _report(job: Job, download: Download) -> None:
    """Tell how the download goes, ten times a second at most."""
    loop = asyncio.get_running_loop()
    if download.is_waiting:
        job.tell("Waiting")
    told_at = 0.0
    while not download.is_done:
        await download.news()
        if download.error is not None:
            return
        if not download.is_done and not download.is_waiting and loop.time() - told_at >= _EVERY_S:
            told_at = loop.time()
            job.tell("Downloading", download.have)
    job.tell("Verifying Checksum")
    job.tell("Download complete")
    job.fetched.set()


async def _watched(job: Job, download: Download) -> AsyncIterator[bytes]:
    """The bytes for the unpacker; once all have come, its own progress is what is told."""
    loop = asyncio.get_running_loop()
    told_at, handed = 0.0, 0
    async for chunk in download.chunks():
        yield chunk
        handed += len(chunk)
        if job.fetched.is_set() and loop.time() - told_at >= _EVERY_S:
            told_at = loop.time()
            job.tell("Extracting", handed)
    await download.finished()
    await job.fetched.wait()
    job.tell("Extracting", handed)


def forget(downloads: Downloads, layers: Sequence[WantedLayer]) -> None:
    """An image that is recorded has these layers: their files are not needed any more."""
    for layer in layers:
        downloads.forget(layer.digest)


__all__ = ["Intake", "Job", "Step", "WantedLayer", "forget"]
