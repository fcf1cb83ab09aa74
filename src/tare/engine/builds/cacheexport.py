"""`--cache-to`: the steps of a build with their layers, and what is in its cache mounts, to a registry or to who built.

A build that is over is remembered by what it went through, not by bytes: what was pruned since is left out. The contents of
cache mounts are packed when they are asked for, into

    <data-root>/ingest/<random>/<random>     one tar for each, gone with the export
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct

from tare.base.digest import Digest, hex_of, sha256
from tare.base.errors import NotFound, TareError
from tare.base.ids import random_id
from tare.build.cachedoc import (
    MOUNT,
    Blob,
    Held,
    MountTar,
    Step,
    Target,
    chosen,
    encode,
    index_of,
    manifest_of,
    step_of,
)  # fmt: skip
from tare.drivers import userns
from tare.drivers.archive.client import Options
from tare.engine.builds.cachemounts import in_use
from tare.engine.engine import Engine
from tare.images.layers import Lease
from tare.images.push import Part
from tare.images.save import LAYOUT, Member, layer_type, stream
from tare.registry.credentials import Credentials

log = logging.getLogger(__name__)

_KEPT = 64
_BLOB = Options(blob="write", extract=False, allow_empty=True, sync=False)
_held: dict[str, Held] = {}
"""Builds that are over and whose client said that it will ask for the cache, the oldest first."""


def hold(build_id: str, held: Held) -> None:
    """Remember a build for `export`; the oldest is forgotten."""
    _held[build_id] = held
    while len(_held) > _KEPT:
        del _held[next(iter(_held))]


class _Content(Struct, frozen=True):
    """What goes out: documents, and blobs of the store or in files."""

    document: bytes
    manifest: bytes
    blobs: dict[Digest, Blob]
    files: dict[Digest, Path]


async def to_registry(
    engine: Engine,
    held: Held,
    target: Target,
    *,
    credentials: Credentials,
    tell: Callable[[str], None],
) -> None:
    """Push the cache. Raises Unauthorized, Unavailable, …"""
    assert target.reference is not None
    ingest = engine.images.blobs.new_ingest()
    try:
        async with engine.images.lease() as lease:
            content = await _content(engine, held, target, lease, ingest, tell)
            parts = [Part(blob.digest, blob.size, content.files.get(blob.digest)) for blob in content.blobs.values()]
            await engine.pushes.send(
                target.reference,
                credentials=credentials,
                parts=parts,
                config=content.document,
                manifest=content.manifest,
            )
    finally:
        engine.images.discard(ingest)


async def export(engine: Engine, build_id: str, target: Target, *, have: Collection[str]) -> AsyncIterator[bytes]:
    """The cache of a build as the tar of an OCI layout, `index.json` last. have: digests that need not be sent.

    Raises NotFound before the first piece, which is empty.
    """
    held = _held.get(build_id)
    if held is None:
        raise NotFound(f"no cache is kept of build {build_id[:80]}", hint="build with --cache-to type=local,dest=DIR")
    ingest = engine.images.blobs.new_ingest()
    try:
        async with engine.images.lease() as lease:
            content = await _content(engine, held, target, lease, ingest, log.warning)
            yield b""
            async for piece in stream(_members(content, have), engine.images.blobs):
                yield piece
    finally:
        engine.images.discard(ingest)


def _members(content: _Content, have: Collection[str]) -> list[Member]:
    found = [
        Member(_name(digest), blob.size, None, blob=digest, path=content.files.get(digest))
        for digest, blob in content.blobs.items()
        if digest not in have
    ]
    for document in (content.document, content.manifest):
        if sha256(document) not in have:
            found.append(Member(_name(sha256(document)), len(document), document))
    found.append(Member("oci-layout", len(LAYOUT), LAYOUT))
    index = index_of(content.manifest)
    return [*found, Member("index.json", len(index), index)]


def _name(digest: Digest) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


async def _content(
    engine: Engine, held: Held, target: Target, lease: Lease, ingest: Path, tell: Callable[[str], None]
) -> _Content:
    records = engine.build_cache.known(held.keys)
    keys = chosen(held.top, records) if target.mode == "min" else [key for key in held.keys if key in records]
    blobs: dict[Digest, Blob] = {}
    steps: list[Step] = []
    for key in dict.fromkeys(keys):
        record = records[key]
        if record.is_empty:
            steps.append(step_of(record, diff_id="", layer=""))
            continue
        layer = engine.images.layers.find(lease, record.chain) if record.chain is not None else None
        if layer is None:
            continue  # collected since
        blobs[layer.blob] = Blob(digest=layer.blob, size=layer.blob_size, media_type=layer_type(layer.compression))
        steps.append(step_of(record, diff_id=layer.diff_id, layer=layer.blob))
    files: dict[Digest, Path] = {}
    mounts: list[MountTar] = []
    for name, mount_id in sorted(held.mounts.items()) if target.mounts else ():
        directory = engine.settings.data_root / "buildcache" / name
        if not directory.is_dir():
            continue
        try:
            blob, path = await _pack(engine, name, directory, ingest)
        except TareError as error:
            tell(f"[Warning] the cache mount {mount_id} is not exported: {error.message}\n")
            continue
        blobs[blob.digest], files[blob.digest] = blob, path
        mounts.append(MountTar(name=name, id=mount_id, layer=blob.digest))
    document = encode(steps, mounts)
    return _Content(document, manifest_of(document, list(blobs.values())), blobs, files)


async def _pack(engine: Engine, name: str, directory: Path, ingest: Path) -> tuple[Blob, Path]:
    """The content of a cache mount as a compressed tar, with the ids that a container sees."""
    path = ingest / random_id()
    async with AsyncExitStack() as stack:
        stack.enter_context(in_use(name))
        mapping = engine.settings.id_mapping
        user = None
        if mapping is not None:
            space = await userns.make(mapping)
            stack.callback(space.close)
            user = space.user_fd
        source = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, source)
        root = os.open(ingest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, fd)
        async with engine.archiver.pack(source, one_file_system=True, user_fd=user) as reader:
            result = await engine.archiver.unpack(reader, root, blob_fd=fd, options=_BLOB)
    digest = Digest(result.blob_digest)
    return Blob(digest=digest, size=result.blob_size, media_type=MOUNT), path


__all__ = ["export", "hold", "to_registry"]
