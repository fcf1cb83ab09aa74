"""The images of this engine: what is known, what is made, what is removed.

Memory is authoritative; every change is written through durably before it is answered. Mutations are short and happen
under one lock; the long work (unpacking) happens before it, under a lease, so that a removal meanwhile never takes
what an operation in flight stands on, and an operation that fails leaves nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tare.aio import failpoints
from tare.aio.tasks import finish, settle
from tare.aio.threads import in_thread
from tare.base.clock import Nanos, now, rfc3339nano
from tare.base.digest import Digest, hex_of, sha256
from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound
from tare.base.news import News, Publish
from tare.base.reference import Reference
from tare.drivers.archive.client import Archiver
from tare.drivers.snapshots import Snapshotter
from tare.drivers.snapshots.difference import Directories, Pile, difference
from tare.images import naming, records, removal
from tare.images.documents import config_document, config_of_image, parse_platform
from tare.images.drafts import Drafts
from tare.images.layers import Layers, Lease, chain_of
from tare.images.records import Image, ImageUse, Inventory, Layer
from tare.images.removal import Removal
from tare.images.usage import Usage
from tare.oci.image import parse_config
from tare.store.blobs import Blobs
from tare.store.db import Database
from tare.wire.changes import apply_changes
from tare.wire.config import ContainerConfig

log = logging.getLogger(__name__)
T = TypeVar("T")


class ImageOptions(Struct, frozen=True, kw_only=True):
    """What an administrator decides. `allow_private_sources`: imports by URL may reach private addresses."""

    allow_private_sources: bool = False
    max_source_bytes: int = 64 * 1024**3
    max_source_seconds: float = 3600


class Step(Struct, frozen=True, kw_only=True):
    """One line of what `history` shows. `id` is None for steps whose image is not known here."""

    id: Digest | None
    created_ns: int
    created_by: str
    comment: str
    size_bytes: int
    tags: tuple[Reference, ...] = ()


class Images:
    """See the module. `restore` first."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        snapshots: Snapshotter,
        archiver: Archiver,
        publish: Publish,
        options: ImageOptions | None = None,
        clock: Callable[[], Nanos] = now,
    ) -> None:
        self.options = options or ImageOptions()
        self.blobs = blobs
        self._db = database
        self._snapshots = snapshots
        self._archiver = archiver
        self._publish = publish
        self._clock = clock
        self._images: dict[Digest, Image] = {}
        self._tags: dict[Reference, Digest] = {}
        self._by_image: dict[Digest, list[Reference]] = {}
        self._holds: dict[str, frozenset[Digest]] = {}
        self._lock = asyncio.Lock()
        self.layers = Layers(blobs=blobs, snapshots=snapshots, archiver=archiver, lock=self._lock)
        self.drafts = Drafts(layers=self.layers, blobs=blobs, snapshots=snapshots, archiver=archiver, lock=self._lock)
        self.usage = Usage(database, clock)
        self.also_kept: Callable[[], Iterable[Digest]] = tuple  # file systems somebody else stands on: the build cache
        self.refuse_other: Callable[[str], None] = _nothing  # raises for a name of something that is no image
        self.when_removed: Callable[[], Awaitable[object]] | None = None  # what travelled with images may go now

    def __repr__(self) -> str:
        return f"Images({len(self._images)} images, {len(self.layers.known)} layers, {len(self._tags)} tags)"

    async def restore(self, active: set[str]) -> None:
        """Read the records and sweep what no record names. `active`: keys of the containers' snapshots, to keep.

        What `also_kept` names is kept too.
        """
        loaded = await self._db.read(records.load_all)
        for image_id, raw, parent, tagged_at, imported_at in loaded.images:
            self._images[image_id] = image = _image_of(
                raw, loaded.layers, parent=parent, tagged_at=tagged_at, imported_at=imported_at
            )
            for layer in image.layers:
                self.layers.known[layer.chain_id] = layer
        self._holds = {key: chains for key, chains in loaded.holds.items() if key in active}
        for chain in self._kept():
            above: Digest | None = chain
            while above is not None and (found := loaded.layers.get(above)) is not None:
                self.layers.known[above] = found
                above = found.parent
        await self.usage.load(self._images)
        for reference, image_id in loaded.tags.items():
            self._set_tag(reference, image_id)
        lost = [chain for chain in loaded.layers if chain not in self.layers.known]
        gone = [key for key in loaded.holds if key not in self._holds]

        def forget(db: sqlite3.Connection) -> None:
            records.delete(db, references=(), images=(), layers=lost)
            records.delete_holds(db, gone)

        if lost or gone:
            await self._db.write(forget)
        await in_thread(self._snapshots.sweep, {hex_of(chain) for chain in self.layers.known} | active)
        await in_thread(self.blobs.sweep, {layer.blob for layer in self.layers.known.values()})

    # -- looking ------------------------------------------------------------------------------------------------------

    def resolve(self, text: str) -> Image:
        """The image `text` means. Raises NotFound (`No such image: name:tag`), InvalidArgument."""
        return self.look_up(text)[0]

    def look_up(self, text: str) -> tuple[Image, Reference | None]:
        """The image, and the reference that led to it (None when `text` was an ID). Raises like `resolve`."""
        try:
            image_id, reference = naming.find(text, self._images, self._tags)
        except NotFound:
            self.refuse_other(text)
            raise
        return self._images[image_id], reference

    def get(self, image_id: str) -> Image:
        """The image with exactly this ID. Raises NotFound."""
        try:
            return self._images[Digest(image_id)]
        except KeyError:
            raise NotFound(f"No such image: {image_id}") from None

    def find(self, image_id: Digest) -> Image | None:
        """The image with exactly this ID, or None."""
        return self._images.get(image_id)

    def references(self, image_id: Digest) -> list[Reference]:
        """Its tags and digest references, sorted."""
        return sorted(self._by_image.get(image_id, ()), key=Reference.canonical)

    def all_references(self) -> dict[Reference, Digest]:
        """Every reference and its image."""
        return dict(self._tags)

    def children(self, image_id: Digest) -> list[Digest]:
        """Images committed from this one."""
        return [image.id for image in self._images.values() if image.parent == image_id]

    def list_images(self, filters: naming.Filters, *, include_all: bool = False) -> list[Image]:
        """Chosen by filters, newest first; without `include_all` untagged parents are left out."""
        parents = {image.parent for image in self._images.values()}
        shown = (
            image
            for image in self._images.values()
            if include_all or image.id not in parents or self._by_image.get(image.id)
        )
        chosen = naming.choose(shown, filters, self._view(), known=naming.LIST_FILTERS)
        return sorted(chosen, key=naming.created_ns, reverse=True)

    def shared_bytes(self, image: Image) -> int:
        """Bytes of its layers that other images have too."""
        return sum(
            layer.size_bytes
            for layer in image.layers
            if any(other.id != image.id and layer in other.layers for other in self._images.values())
        )

    def layers_bytes(self) -> int:
        """Bytes of all layers, each counted once."""
        return sum(layer.size_bytes for layer in self.layers.known.values())

    def history(self, image: Image) -> list[Step]:
        """The steps that made the image, newest first."""
        steps: list[Step] = []
        layers = iter(image.layers)
        for entry in image.document.history or ():
            layer = None if entry.empty_layer else next(layers, None)
            steps.append(
                Step(
                    id=None,
                    created_ns=naming.time_ns(entry.created or ""),
                    created_by=entry.created_by,
                    comment=entry.comment,
                    size_bytes=layer.size_bytes if layer else 0,
                )
            )
        steps.reverse()
        known: Image | None = image
        for position, step in enumerate(steps):
            if known is None:
                break
            steps[position] = replace(step, id=known.id, tags=tuple(self.references(known.id)))
            known = self._images.get(known.parent) if known.parent else None
        return steps

    async def inventory(self) -> Inventory:
        """Everything known, at a moment when no change of it is half done."""
        async with self._lock:
            return Inventory(
                layers=dict(self.layers.known),
                images=dict(self._images),
                tags=dict(self._tags),
                holds=dict(self._holds),
                leases=dict(self.layers.leases),
                drafts=frozenset(self.drafts.live),
                stored=await self._db.read(records.load_all),
            )

    def _view(self) -> naming.View:
        return naming.View(self.references, self.resolve, self._clock(), self.last_use)

    def last_use(self, image: Image) -> int:
        """When it was used last, in ns; when it came where it never was."""
        return max(self.usage.at(image.id), image.imported_at)

    # -- making -------------------------------------------------------------------------------------------------------

    async def import_(
        self,
        stream: AsyncIterator[bytes],
        *,
        reference: Reference | None = None,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
    ) -> Image:
        """Make an image of one layer from a tar (plain or compressed). Cancellation leaves nothing.

        platform: `os/arch[/variant]`, "" for this machine. Raises InvalidArgument (wrong tar, changes, platform).
        """
        config = apply_changes(ContainerConfig(), changes)
        chosen = parse_platform(platform)
        if reference is not None and reference.digest:
            raise InvalidArgument("cannot import digest reference")
        async with self.lease() as lease:
            layer = await self.layers.add(lease, stream, parent=None, allow_empty=True)
            created = rfc3339nano(self._clock())
            history = {"created": created, "comment": message or "Imported from -"}
            raw = config_document(
                config, created=created, layers=(layer,), history=[history], platform=chosen, comment=message
            )
            image = await self.add_image(raw, (layer,), references=[reference] if reference else [])
        self._publish(News(type="image", action="import", id=image.id, attributes={"name": image.id}))
        return image

    async def commit(
        self,
        key: str,
        base: Image | None,
        config: ContainerConfig,
        *,
        author: str = "",
        comment: str = "",
        changes: Sequence[str] = (),
        reference: Reference | None = None,
        created_by: str = "",
        created_ns: int | None = None,
    ) -> Image:
        """Make an image from what the container's active snapshot `key` changed; without a layer if that is nothing.

        base: the container's image, None when that was removed: its layers, which the container keeps, stay below, and
        the history says no more of them. config: the container's, to which `changes` are applied. The caller pauses the
        container if it wants to. created_ns: the time to say, None for now; no file in the layer is newer then, so that
        the same state gives the same image. Raises NotFound, InvalidArgument.
        """
        config = apply_changes(config, changes)
        upper = await in_thread(self._snapshots.upper, key)
        base_layers = base.layers if base else self._below(key)
        async with self.lease() as lease:
            for layer in base_layers:
                self.layers.take(lease, layer)
            fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                empty = await in_thread(_is_unchanged, upper, self._snapshots.lowers(key))
                layers = base_layers
                if not empty or not base_layers:
                    async with self._archiver.pack(fd, overlay=True, newest_ns=created_ns) as reader:
                        parent = base_layers[-1] if base_layers else None
                        # The bytes are of our own making, so the layer is complete only if the packer says so, which
                        # leaving the block checks; the lease drops the layer if it does not. Its files are unpacked
                        # when something stands on them: making them costs more than all the rest.
                        layers = (*base_layers, await self.layers.unpack(lease, reader, parent, extract=False))
            finally:
                os.close(fd)
            failpoints.hit("commit.packed")
            created = "1970-01-01T00:00:00Z" if created_ns == 0 else rfc3339nano(created_ns or self._clock())
            words = config.Cmd if isinstance(config.Cmd, list) else [config.Cmd or ""]
            step: dict[str, Any] = {"created": created, "created_by": created_by or " ".join(words)}
            step |= {"author": author} if author else {}
            step |= {"comment": comment} if comment else {}
            step |= {"empty_layer": True} if layers is base_layers else {}
            before: list[dict[str, Any]] = [{"comment": "of an image that was removed"} for _ in base_layers]
            if base is not None:
                before = [msgspec.to_builtins(entry) for entry in (base.document.history or ())]
            raw = config_document(
                config,
                created=created,
                layers=layers,
                history=[*before, step],
                platform=(base.document.os, base.document.architecture, base.document.variant) if base else None,
                author=author,
                comment=comment,
            )
            parent_id = base.id if base else None
            return await self.add_image(raw, layers, references=[reference] if reference else [], parent=parent_id)

    def _below(self, key: str) -> tuple[Layer, ...]:
        """The layers an active snapshot stands on, base first. Raises Conflict for one that is unknown."""
        stack = []
        for path in reversed(self._snapshots.lowers(key)[1:]):  # the first one is what every container gets
            layer = self.layers.known.get(Digest(f"sha256:{path.parent.name}"))
            if layer is None:
                raise Conflict(
                    f"the image of container {key} was removed, and its layers are not known any more",
                    hint="export the container and import the result instead",
                )
            stack.append(layer)
        return tuple(stack)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Lease]:
        """What is taken inside the block is not collected before its end; what is unused then goes."""
        lease = Lease()
        try:
            yield lease
        finally:
            for chain in lease.chains:
                self.layers.leases[chain] -= 1
                if not self.layers.leases[chain]:
                    del self.layers.leases[chain]
            await finish(self._collect(lease.chains), name="collect unused layers")

    @asynccontextmanager
    async def standing(self, image: Image) -> AsyncIterator[None]:
        """Inside the block the image's files are there to be mounted, even if the image is removed meanwhile."""
        self.usage.note(image.id)
        if image.chain_id is None:
            yield
            return
        try:
            async with self.layers.standing(image.chain_id):
                yield
        finally:
            if image.id not in self._images:
                await self.collect([image.chain_id])

    async def add_image(
        self,
        raw: bytes,
        layers: Sequence[Layer],
        *,
        references: Iterable[Reference] = (),
        parent: Digest | None = None,
        is_told: bool = True,
    ) -> Image:
        """Record an image whose layers are leased, and its references. Survives a power cut when it returns.

        is_told: publish the tagging.
        """
        known = {layer.chain_id: layer for layer in layers}
        image = _image_of(raw, known, parent=parent, tagged_at=0, imported_at=self._clock())
        wanted = [reference.with_default_tag() for reference in references]
        return await settle(self._record(image, wanted, is_told), name="record image")

    async def _record(self, image: Image, references: list[Reference], is_told: bool) -> Image:
        async with self._lock:
            at = self._clock()
            image = self._images.get(image.id, image)
            if references:
                image = replace(image, tagged_at=at)

            def write(db: sqlite3.Connection) -> None:
                records.insert_image(db, image)
                for reference in references:
                    records.set_tag(db, reference, image.id, at)

            failpoints.hit("image.record")
            await self._db.write(write)
            failpoints.passed("image.recorded")
            self._images[image.id] = image
            for reference in references:
                self._set_tag(reference, image.id)
        for reference in references if is_told else ():
            self.tell("tag", image, reference.familiar())
        return image

    async def tag(self, image: Image, reference: Reference) -> None:
        """Give the image one more name; a name that another image had moves. Raises InvalidArgument."""
        if reference.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        if reference.familiar_name == "sha256":
            raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
        await finish(self._tag_known(image.id, reference.with_default_tag()), name="tag image")

    async def _tag_known(self, image_id: Digest, reference: Reference) -> None:
        async with self._lock:
            image = replace(self.get(image_id), tagged_at=self._clock())
            failpoints.hit("image.tag")
            await self._db.write(lambda db: records.set_tag(db, reference, image.id, image.tagged_at))
            failpoints.passed("image.tagged")
            self._images[image.id] = image
            self._set_tag(reference, image.id)
        self.tell("tag", image, reference.familiar())

    # -- removing -----------------------------------------------------------------------------------------------------

    async def remove(
        self, text: str, *, uses: Sequence[ImageUse], force: bool = False, prune: bool = True
    ) -> list[tuple[str, str]]:
        """Untag and delete as dockerd does: ("Untagged", name) and ("Deleted", id) in order.

        prune: also delete untagged parents. Raises NotFound, Conflict.
        """
        return await finish(self._remove(text, uses, force, prune), name="remove image")

    async def _remove(self, text: str, uses: Sequence[ImageUse], force: bool, prune: bool) -> list[tuple[str, str]]:
        async with self._lock:
            image_id, reference = naming.find(text, self._images, self._tags)
            plan = removal.plan(
                text,
                image_id,
                reference,
                removal.World(images=self._images, references=self._by_image, uses=uses),
                force=force,
                prune=prune,
            )
            return await self._carry_out(plan, uses)

    async def remove_unnamed(self, image_id: Digest, *, uses: Sequence[ImageUse]) -> None:
        """Delete an image that has no name, no container and no image above it; otherwise leave it."""

        async def act() -> None:
            async with self._lock:
                is_used = any(use.image_id == image_id for use in uses)
                if image_id not in self._images or self._by_image.get(image_id) or self.children(image_id) or is_used:
                    return
                world = removal.World(images=self._images, references=self._by_image, uses=uses)
                plan = removal.plan(image_id, image_id, None, world, force=False, prune=False)
                await self._carry_out(plan, uses)

        await finish(act(), name="remove image")

    async def prune(self, filters: naming.Filters, *, uses: Sequence[ImageUse]) -> tuple[list[tuple[str, str]], int]:
        """Delete images no container uses: untagged ones, or with dangling=false all. The records and bytes freed."""
        return await finish(self._prune(filters, uses), name="prune images")

    async def _prune(self, filters: naming.Filters, uses: Sequence[ImageUse]) -> tuple[list[tuple[str, str]], int]:
        only_dangling = naming.truth(filters["dangling"], "dangling") if filters.get("dangling") else True
        rest = {key: values for key, values in filters.items() if key != "dangling"}
        done: list[tuple[str, str]] = []
        async with self._lock:
            before = self.layers_bytes()
            used = {use.image_id for use in uses}
            view = self._view()
            waiting = naming.choose(list(self._images.values()), rest, view, known=naming.PRUNE_FILTERS)
            while waiting:  # an image goes only after those that were made from it
                chosen = [image for image in waiting if not self.children(image.id)]
                done_with = {image.id for image in chosen}
                waiting = [image for image in waiting if image.id not in done_with] if chosen else []
                for image in chosen:
                    is_named = only_dangling and bool(self._by_image.get(image.id))
                    if image.id in used or image.id not in self._images or is_named:
                        continue
                    world = removal.World(images=self._images, references=self._by_image, uses=uses)
                    done += await self._carry_out(
                        removal.plan(image.id, image.id, None, world, force=True, prune=True), uses
                    )
            return done, before - self.layers_bytes()

    async def _carry_out(self, plan: Removal, uses: Sequence[ImageUse]) -> list[tuple[str, str]]:
        """Do what was planned, under the lock: records first, then files."""
        images = [self._images[image_id] for image_id in plan.deleted]
        holds = [
            (use.container_id, image.chain_id)
            for image in images
            for use in uses
            if use.image_id == image.id and image.chain_id
        ]
        before = dict(self._holds)
        for image in images:
            del self._images[image.id]
        for container, chain in holds:
            self._holds[container] = self._holds.get(container, frozenset()) | {chain}
        doomed = self._unused(layer.chain_id for image in images for layer in image.layers)
        layers = [self.layers.known.pop(chain) for chain in doomed]

        def write(db: sqlite3.Connection) -> None:
            records.delete(db, references=plan.untagged, images=plan.deleted, layers=doomed)
            records.insert_holds(db, holds)

        try:
            await self._db.write(write)
        except BaseException:
            self._images.update({image.id: image for image in images})
            self.layers.known.update({layer.chain_id: layer for layer in layers})
            self._holds = before
            raise
        done: list[tuple[str, str]] = []
        names = {reference: self._tags[reference] for reference in plan.untagged}
        owners = {image.id: image for image in images}
        for reference, image_id in names.items():
            self._drop_tag(reference)
            done.append(("Untagged", reference.familiar()))
            self.tell("untag", owners.get(image_id) or self._images[image_id], image_id)
        for image in images:
            done.append(("Deleted", image.id))
            done += [("Deleted", chain) for chain in doomed if chain in {layer.chain_id for layer in image.layers}]
            self.tell("delete", image, image.id)
        await self._drop_files(layers)
        if images and self.when_removed is not None:
            await self.when_removed()
        return done

    async def keep_layers(self, top: Layer) -> None:
        """Record a layer, and those below it, that no image has; `also_kept` says for whom."""
        stack: list[Layer] = []
        above: Digest | None = top.chain_id
        while above is not None and (known := self.layers.known.get(above)) is not None:
            stack.append(known)
            above = known.parent
        await self._db.write(lambda db: records.insert_layers(db, stack), durable=False)

    async def collect(self, chains: Iterable[Digest]) -> int:
        """Drop those file systems that nobody stands on any more, from the top down; the bytes freed."""
        before = self.layers_bytes()
        doomed: dict[Digest, None] = {}
        for chain in chains:
            above: Digest | None = chain
            while above is not None and (known := self.layers.known.get(above)) is not None:
                doomed[above] = None
                above = known.parent
        await finish(self._collect(list(doomed)), name="collect unused layers")
        return before - self.layers_bytes()

    async def release(self, container_id: str) -> None:
        """The container is gone: drop the layers that were kept for it alone, if its image was removed before."""
        if container_id not in self._holds:
            return
        chains = self._holds.pop(container_id)
        await self._db.write(lambda db: records.delete_holds(db, [container_id]))
        await self.collect(chains)

    def _kept(self) -> list[Digest]:
        """File systems that need no image."""
        return [*(chain for chains in self._holds.values() for chain in chains), *self.also_kept()]

    async def _collect(self, chains: Iterable[Digest]) -> None:
        async with self._lock:
            doomed = self._unused(chains)
            if not doomed:
                return
            layers = [self.layers.known.pop(chain) for chain in doomed]
            await self._db.write(lambda db: records.delete(db, references=(), images=(), layers=doomed))
            await self._drop_files(layers)

    def _unused(self, chains: Iterable[Digest]) -> list[Digest]:
        """Those of `chains` that nothing stands on, top-most first."""
        needed: set[Digest] = set()
        for image in self._images.values():
            needed.update(layer.chain_id for layer in image.layers)
        for chain in [*self.layers.leases, *self._kept()]:
            above: Digest | None = chain
            while above is not None and above not in needed:
                needed.add(above)
                known = self.layers.known.get(above)
                above = known.parent if known else None
        doomed = [chain for chain in dict.fromkeys(chains) if chain in self.layers.known and chain not in needed]
        return doomed[::-1]

    async def _drop_files(self, layers: list[Layer]) -> None:
        kept = {layer.blob for layer in self.layers.known.values()}
        for layer in layers:
            try:
                failpoints.hit("layer.forgotten")
                self._snapshots.remove(hex_of(layer.chain_id))
                if layer.blob not in kept:
                    failpoints.hit("blob.forgotten")
                    self.blobs.remove(layer.blob)
            except OSError as error:  # the record is gone, and with it the image: the next start sweeps the files
                log.warning("files of layer %s are left: %s", layer.chain_id, error)

    async def sweep_unknown(self, *, blobs: Iterable[str] = (), snapshots: Iterable[str] = ()) -> None:
        """Remove blobs and snapshots that no record names. snapshots: the caller knows that no container has them."""
        async with self._lock:
            kept = {layer.blob for layer in self.layers.known.values()}
            for blob in blobs:
                if blob not in kept:
                    self.blobs.remove(Digest(blob))
            for name in snapshots:
                if Digest(f"sha256:{name}") not in self.layers.known and name not in self.drafts.live:
                    self._snapshots.remove(name)

    async def forget_tag(self, text: str) -> None:
        """Drop a name that leads to no image any more."""
        async with self._lock:
            gone = [
                known for known, image in self._tags.items() if known.familiar() == text and image not in self._images
            ]
            await self._db.write(lambda db: records.delete(db, references=gone, images=(), layers=()))
            for reference in gone:
                self._drop_tag(reference)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _set_tag(self, reference: Reference, image_id: Digest) -> None:
        self._drop_tag(reference)
        self._tags[reference] = image_id
        self._by_image.setdefault(image_id, []).append(reference)

    def _drop_tag(self, reference: Reference) -> None:
        image_id = self._tags.pop(reference, None)
        if image_id is not None:
            self._by_image[image_id].remove(reference)
            if not self._by_image[image_id]:
                del self._by_image[image_id]

    def discard(self, ingest: Path) -> None:
        """Drop an operation's ingest directory."""
        self._snapshots.discard(ingest)

    def tell(self, action: str, image: Image, name: str, *, about: str = "") -> None:
        """Publish news about an image: Docker's action word and name attribute, with the image's labels.

        about: what stands where the image's ID does otherwise; pull and push say the reference.
        """
        if action in ("delete", "untag"):
            self.usage.forget(image.id) if action == "delete" else None
        else:
            self.usage.note(image.id)
        attributes = {**(image.config.Labels or {}), "name": name}
        self._publish(News(type="image", action=action, id=about or image.id, attributes=attributes))


def _nothing(_text: str) -> None:
    return


def _is_unchanged(upper: Path, lowers: Sequence[Path]) -> bool:
    """Whether a container's directory has nothing but directories that were written in and are as before, or nothing."""
    with Directories() as directories:
        found = difference(Pile(directories, lowers), Pile(directories, [upper, *lowers]))
        return all(change.is_time_only and old is not None and old.is_directory for change, old, _ in found)


def _image_of(
    raw: bytes, layers: dict[Digest, Layer], *, parent: Digest | None, tagged_at: int, imported_at: int
) -> Image:
    document = parse_config(raw)
    diff_ids = document.diff_ids()
    stack: list[Layer] = []
    for diff_id in diff_ids:
        layer = layers.get(chain_of(stack[-1] if stack else None, diff_id))
        if layer is None:
            raise InternalError(f"image {sha256(raw)} misses a layer")
        stack.append(layer)
    return Image(
        id=sha256(raw),
        raw=raw,
        document=document,
        config=config_of_image(document),
        layers=tuple(stack),
        parent=parent,
        tagged_at=tagged_at,
        imported_at=imported_at,
    )


__all__ = ["Image", "ImageOptions", "ImageUse", "Images", "Layer", "Lease", "Step"]
