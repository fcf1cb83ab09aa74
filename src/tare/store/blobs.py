"""The content store: bytes named by their digest.

    <data-root>/blobs/sha256/<hex>     complete, verified, on the disk
    <data-root>/ingest/<random>/       whatever an operation in flight needs; emptied at start

Promise: a name in blobs/ exists only for bytes that hashed to it and were synced before the rename; after `publish`
returns, the name survives a power cut. Plain `def`: callers in the loop use a thread.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path

from tare.aio import failpoints
from tare.base.digest import Digest, hex_of
from tare.base.errors import DataCorrupt, NotFound
from tare.store.reserve import check_room

_READ = 1024 * 1024


def fsync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    fsync(path, os.O_DIRECTORY)


def fsync(path: Path, flags: int = 0) -> None:
    """Make the bytes of a file, or the names in a directory, survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Blobs:
    """The store below a data root. `sweep` at start, before anything else."""

    def __init__(self, data_root: Path) -> None:
        self._root = data_root / "blobs"
        self._directory = self._root / "sha256"
        self._ingest = data_root / "ingest"
        for directory in (self._root, self._directory, self._ingest):
            directory.mkdir(mode=0o700, exist_ok=True)

    def __repr__(self) -> str:
        return f"Blobs({self._directory})"

    def path(self, digest: Digest) -> Path:
        """Where the blob is or would be; only sha256 is stored."""
        if not digest.startswith("sha256:"):
            raise NotFound(f"blob {digest} is not stored")
        return self._directory / hex_of(digest)

    def exists(self, digest: Digest) -> bool:
        """Whether the blob is there."""
        return self.path(digest).exists()

    def size(self, digest: Digest) -> int:
        """Its length in bytes. Raises NotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not stored") from None

    def open(self, digest: Digest) -> int:
        """A descriptor for reading, for the caller to close. Raises NotFound."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not stored") from None

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """The whole blob, verified. Raises NotFound, DataCorrupt when it is longer than `limit` or was changed."""
        fd = self.open(digest)
        with os.fdopen(fd, "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit or hashlib.sha256(data).hexdigest() != hex_of(digest):
            raise DataCorrupt(f"blob {digest} does not match its digest")
        return data

    def remove(self, digest: Digest) -> None:
        """Forget the blob; returning means that it is not there."""
        self.path(digest).unlink(missing_ok=True)

    def new_ingest(self) -> Path:
        """A fresh directory for one operation, for the caller to remove or to move out of. Raises Unavailable on a full disk."""
        check_room(self._ingest)
        path = self._ingest / secrets.token_hex(16)
        path.mkdir(mode=0o700)
        return path

    def publish(self, file: Path, digest: Digest, *, synced: bool) -> None:
        """Move a file whose bytes were hashed to `digest` into the store.

        synced: the file system was written back after the last byte (one syncfs serves many files).
        """
        if not synced:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        failpoints.hit("blob.written")
        os.chmod(file, 0o600)
        failpoints.hit("blob.synced")
        os.rename(file, self.path(digest))
        failpoints.hit("blob.renamed")
        fsync_directory(self._directory)

    def writer(self, *, expected: Digest | None = None, size: int | None = None) -> BlobWriter:
        """Write one blob from the daemon itself. Use as a context manager; what was not committed vanishes."""
        return BlobWriter(self, expected=expected, size=size)

    def sweep(self, keep: set[Digest]) -> list[Digest]:
        """At start: empty the ingest and remove blobs without a record. The removed digests."""
        for left in self._ingest.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        removed = []
        for name in sorted(os.listdir(self._directory)):
            digest = Digest(f"sha256:{name}")
            if digest not in keep:
                (self._directory / name).unlink()
                removed.append(digest)
        return removed


class BlobWriter:
    """Hashes while writing; `commit` checks what was promised and makes the blob visible."""

    def __init__(self, blobs: Blobs, *, expected: Digest | None, size: int | None) -> None:
        self._blobs = blobs
        self._expected, self._size = expected, size
        self._directory = blobs.new_ingest()
        self._file = self._directory / "blob"
        self._fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._sum = hashlib.sha256()
        self._written = 0

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        shutil.rmtree(self._directory, ignore_errors=True)

    def write(self, data: bytes) -> None:
        """Append. Raises DataCorrupt as soon as there are more bytes than promised."""
        self._written += len(data)
        if self._size is not None and self._written > self._size:
            raise DataCorrupt(f"blob {self._expected or ''} is longer than the {self._size} bytes promised")
        self._sum.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def commit(self) -> Digest:
        """Verify and publish. Raises DataCorrupt for a digest or size that lies."""
        digest = Digest("sha256:" + self._sum.hexdigest())
        if self._size is not None and self._written != self._size:
            raise DataCorrupt(f"blob {digest} has {self._written} bytes instead of {self._size}")
        if self._expected is not None and digest != self._expected:
            raise DataCorrupt(f"blob {digest} does not match its digest {self._expected}")
        self._blobs.publish(self._file, digest, synced=False)
        return digest
