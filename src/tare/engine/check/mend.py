"""Mending what a check found: bytes come back from the registry or from the files made of them, files from their bytes;
what nobody owns goes. Each step looks again before it acts, since others went on meanwhile.
"""

from __future__ import annotations

import os
import sqlite3

from tare.aio.threads import in_thread
from tare.base.digest import Digest, hex_of
from tare.base.errors import DataCorrupt, InvalidArgument, NotFound, TareError
from tare.base.reference import parse_reference
from tare.drivers import trees
from tare.drivers.archive.client import Options
from tare.engine.check import findings as kinds
from tare.engine.check.facts import due_of, is_moving
from tare.engine.check.findings import Finding
from tare.engine.engine import Engine, directory_of
from tare.images.records import Layer
from tare.networks import records as network_records
from tare.registry.remote import remote_for

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


async def mend(engine: Engine, finding: Finding) -> str:
    """Do what `finding.remedy` says. "" when it is mended, else why it is not."""
    if not finding.remedy:
        return "nothing here can mend it"
    try:
        match finding.remedy:
            case kinds.FETCH:
                return await _bring_back(engine, finding)
            case kinds.UNPACK:
                return await _unpack(engine, finding)
            case kinds.REMOVE:
                return await _remove(engine, finding)
            case kinds.FORGET:
                return await _forget(engine, finding)
            case _:
                return await _make(engine, finding)
    except (TareError, OSError) as error:
        return str(error)


# -- bytes ------------------------------------------------------------------------------------------------------------


async def _bring_back(engine: Engine, finding: Finding) -> str:
    layers = [layer for layer in engine.images.layers.known.values() if layer.blob == finding.subject]
    if not layers:
        return ""  # the image was removed meanwhile
    async with engine.images.lease() as lease:
        for layer in layers:
            engine.images.layers.take(lease, layer)
        for layer in layers:
            if await _rebuild(engine, layer):
                return ""
        return await _fetch(engine, layers[0])


async def _rebuild(engine: Engine, layer: Layer) -> bool:
    """Pack the layer's files; whether that gave the very bytes."""
    if not engine.images.layers.is_unpacked(layer):
        return False
    try:
        files = os.open(engine.snapshots.upper(hex_of(layer.chain_id)), _DIRECTORY)
    except (NotFound, OSError):
        return False
    ingest = engine.images.blobs.new_ingest()
    try:
        place = os.open(ingest, _DIRECTORY)
        blob = os.open(ingest / "blob", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            async with engine.archiver.pack(files, overlay=True) as reader:
                options = Options(blob="write", extract=False, allow_empty=True)
                result = await engine.archiver.unpack(reader, place, blob_fd=blob, options=options)
        finally:
            os.close(blob)
            os.close(place)
        if result.blob_digest != layer.blob:
            return False
        await in_thread(lambda: engine.images.blobs.publish(ingest / "blob", layer.blob, synced=False))
        return True
    finally:
        os.close(files)
        engine.images.discard(ingest)


async def _fetch(engine: Engine, layer: Layer) -> str:
    """Fetch the blob from a repository that had it."""

    def homes(db: sqlite3.Connection) -> list[str]:
        rows = db.execute("SELECT repository FROM blob_homes WHERE blob=? ORDER BY repository", (layer.blob,))
        return [row[0] for row in rows]

    reasons = []
    for repository in await engine.db.read(homes):
        remote = remote_for(engine.transport, parse_reference(repository))
        try:
            async with remote.blob(layer.blob, size=layer.blob_size) as (start, chunks):
                if start:
                    raise DataCorrupt(f"{repository} answers with a part of it")
                with engine.images.blobs.writer(expected=layer.blob, size=layer.blob_size) as writer:
                    async for chunk in chunks:
                        await in_thread(writer.write, bytes(chunk))
                    await in_thread(writer.commit)
            return ""
        except TareError as error:
            reasons.append(f"{repository}: {error.message}")
    if reasons:
        return f"no registry gives it again: {'; '.join(reasons)}"
    return "no registry is known to have it, and its files do not give the same bytes: remove the image, then load or pull it again"


async def _unpack(engine: Engine, finding: Finding) -> str:
    layer = _layer_meant(engine, finding)
    if layer is None:
        return ""
    path = engine.settings.data_root / "snapshots" / hex_of(layer.chain_id) / "fs"

    def users() -> list[str]:
        busy = [record.target for record in engine.image_mounts.values()]
        for slot in engine.containers:
            container = slot.container
            if not (container.is_running or slot.lock.locked()):
                continue
            stands = engine.snapshots.exists(container.id) and path in engine.snapshots.lowers(container.id)
            if stands or any(point.type == "image" for point in container.all_mounts):
                busy.append(container.name)
        return busy

    def is_free() -> bool:
        return not users() and engine.images.layers.leases[layer.chain_id] <= 1  # the one is ours

    async with engine.images.lease() as lease:
        engine.images.layers.take(lease, layer)
        if await engine.images.layers.unpack_again(layer, is_free=is_free):
            return ""
    busy = users()
    return f"in use: stop {', '.join(busy[:3])} and repeat" if busy else "an operation in flight needs it: repeat later"


def _layer_meant(engine: Engine, finding: Finding) -> Layer | None:
    name = finding.subject
    if finding.kind == kinds.CONTAINER_SNAPSHOT:
        root = engine.settings.data_root / "snapshots"
        while name and (root / name).is_dir():
            name = (root / name / "parent").read_text()
    return engine.images.layers.known.get(Digest(f"sha256:{name}"))


# -- files and records ------------------------------------------------------------------------------------------------


async def _remove(engine: Engine, finding: Finding) -> str:
    owned = {slot.container.id for slot in engine.containers} | engine.creating
    match finding.kind:
        case kinds.BLOB_ORPHAN:
            await engine.images.sweep_unknown(blobs=[finding.subject])
        case kinds.SNAPSHOT_ORPHAN:
            if finding.subject not in owned:
                await engine.images.sweep_unknown(snapshots=[finding.subject])
        case kinds.CONTAINER_ORPHAN:
            area, _, name = finding.subject.rpartition("/")
            if name in owned:
                return ""
            path = {
                "containers": engine.settings.data_root / "containers",
                "run/containers": engine.monitor.exec_root / "containers",
                "run/exits": engine.monitor.exits(),
            }[area] / name
            if path.is_dir():
                engine.snapshots.unmount(path / "rootfs")
                await in_thread(trees.discard, path)
            else:
                path.unlink(missing_ok=True)
        case kinds.LINK_ORPHAN:
            return await engine.networks.strays.remove_link(finding.subject)
        case kinds.RULE_ORPHAN | kinds.PUBLISHED_ORPHAN:
            return await _remove_rule(engine, finding.subject)
        case _:
            area, _, name = finding.subject.partition("/")
            path = engine.settings.data_root / area / name
            if path.is_dir() and not path.is_symlink():
                await in_thread(trees.discard, path)
            else:
                path.unlink(missing_ok=True)
    return ""


async def _remove_rule(engine: Engine, said: str) -> str:
    if engine.creating or any(is_moving(slot) for slot in engine.containers):
        return "an operation in flight may have it: repeat later"
    if not any(said in wanted for wanted in due_of(engine).rules.values()):
        await engine.networks.strays.remove_rule(said)
    return ""


async def _forget(engine: Engine, finding: Finding) -> str:
    match finding.kind:
        case kinds.TAG_DANGLING:
            await engine.images.forget_tag(finding.subject)
        case kinds.HOLD_ORPHAN:
            await engine.images.release(finding.subject)
        case kinds.LEASE_ORPHAN:
            chain = Digest(finding.subject)
            if engine.images.layers.leases[chain] >= 1:
                return "an operation in flight may have it"
            del engine.images.layers.leases[chain]
        case kinds.CACHE_DANGLING:
            await engine.build_cache.remove([finding.subject])
        case kinds.ARTIFACT_DAMAGED:
            await engine.manifests.artifacts.forget_blob(Digest(finding.subject))
        case kinds.MANIFEST_DAMAGED:
            await engine.db.write(
                lambda db: db.execute("DELETE FROM manifests WHERE digest=?", (finding.subject,)) and None
            )
        case kinds.ADDRESS_ORPHAN | kinds.ADDRESS_NETWORK:
            if any(slot.container.id == finding.subject and slot.container.is_running for slot in engine.containers):
                return "its container runs"
            await engine.db.write(lambda db: network_records.release(db, finding.subject))
    return ""


async def _make(engine: Engine, finding: Finding) -> str:
    if finding.kind == kinds.CONTAINER_FILES:
        directory_of(engine, finding.subject).mkdir(mode=0o700, exist_ok=True)
        return ""
    try:
        path = engine.volumes.path(finding.subject)
    except (NotFound, InvalidArgument):
        return ""
    path.parent.mkdir(mode=0o701, exist_ok=True)
    path.mkdir(mode=0o755, exist_ok=True)
    return ""
