"""The bytes: whether a blob is what its digest says, and a snapshot what unpacking its blob made.

Reading and comparing is done in a worker of low priority, one layer after the other, so that whoever works meanwhile
hardly notices. What is looked at is leased.
"""

from __future__ import annotations

import hashlib
import os

from tare.aio.threads import in_thread
from tare.base.digest import hex_of
from tare.base.errors import InternalError, NotFound
from tare.engine.check import findings as kinds
from tare.engine.check.findings import FETCH, FORGET, UNPACK, Finding
from tare.engine.engine import Engine
from tare.images.records import Layer

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


async def look_at(engine: Engine, layer: Layer) -> list[Finding]:
    """Compare one layer's blob with its digest and its files with its blob. The layer may go meanwhile: then nothing."""
    async with engine.images.lease() as lease:
        if engine.images.layers.find(lease, layer.chain_id) is None:
            return []
        try:
            blob = engine.images.blobs.open(layer.blob)
        except NotFound:
            return []  # told by `layers_have_blobs`
        try:
            if os.fstat(blob).st_size != layer.blob_size:
                return []  # the same
            return await _compare(engine, layer, blob)
        finally:
            os.close(blob)


async def in_artifacts(engine: Engine) -> list[Finding]:
    """Compare the blobs of what is here beside images with their digests."""
    wrong = await in_thread(engine.manifests.artifacts.damaged)
    text = "a blob of an artifact is missing, or its bytes have another digest"
    return [Finding(kind=kinds.ARTIFACT_DAMAGED, subject=digest, text=text, remedy=FORGET) for digest in wrong]


async def _compare(engine: Engine, layer: Layer, blob: int) -> list[Finding]:
    name = hex_of(layer.chain_id)
    try:
        files = os.open(engine.snapshots.upper(name), _DIRECTORY)
    except (NotFound, OSError):  # not unpacked, or told by `snapshots_know_their_parents`
        digest = await in_thread(file_digest, blob)
        return [] if digest == layer.blob else [_damaged(layer, f"its bytes have the digest {digest}")]
    try:
        answer = await engine.archiver.verify(blob, files)
    except InternalError as error:
        return [_snapshot(name, f"it cannot be read: {error.message}")]
    finally:
        os.close(files)
    if answer["wrong"]:
        return [_damaged(layer, str(answer["wrong"]))]
    if answer["input_digest"] != layer.blob:
        return [_damaged(layer, f"its bytes have the digest {answer['input_digest']}")]
    if answer["plain_digest"] != layer.diff_id:
        return [_damaged(layer, f"it unpacks to {answer['plain_digest']} instead of {layer.diff_id}")]
    if not answer["count"]:
        return []
    first = "; ".join(f"{path}: {what}" for path, what in answer["problems"][:3])
    more = f" and {answer['count'] - 3} more" if answer["count"] > 3 else ""
    return [_snapshot(name, f"{first}{more}")]


def _damaged(layer: Layer, text: str) -> Finding:
    return Finding(kind=kinds.BLOB_DAMAGED, subject=layer.blob, text=text, remedy=FETCH)


def _snapshot(name: str, text: str) -> Finding:
    return Finding(kind=kinds.SNAPSHOT_DAMAGED, subject=name, text=text, remedy=UNPACK)


def file_digest(fd: int) -> str:
    """The sha256 of an open file, from its start. Blocking."""
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
