"""From a stream of bytes to files, digests and a blob: everything that touches each byte, in parallel threads.

    read, inflate ──┬── hash the plain bytes (diffID)
                    ├── extract (the calling thread)
                    └── deflate, hash, write the blob        only if a blob is wanted and the input is not one itself

hashlib, isal, zstandard and the system calls release the interpreter lock on our blocks of 1 MiB.
"""

from __future__ import annotations

import bz2
import errno
import hashlib
import lzma
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import zstandard
from isal import isal_zlib
from msgspec import Struct, field

from tare.drivers import linux
from tare.drivers.archive import tar
from tare.drivers.archive.extract import Extractor, Totals
from tare.drivers.archive.tar import UNEXPECTED_EOF, ArchiveError, Source

BLOCK_BYTES = 1024 * 1024
_BLOCKS_AHEAD = 16
_LEVEL = 1
_GZIP = 31  # wbits: gzip framing; isal writes mtime 0 and no name, so equal input gives equal bytes
_MAX_RATIO = 200
_RATIO_FREE = 64 * 1024 * 1024
_MAX_PLAIN = 64 * 1024**3
_XZ_MEMORY = 256 * 1024 * 1024
_ZSTD_WINDOW = 128 * 1024 * 1024

Block = bytes | bytearray
_GzipError: type[Exception] = isal_zlib.error  # type: ignore[assignment]


class Options(Struct, frozen=True, kw_only=True):
    """How to extract. `whiteouts`, `devices`, `owners`: see Extractor. `sync`: write back before answering.

    blob: "none", or "write": recompress into the blob descriptor unless the input is gzip or zstd, which is a blob
    already and is copied through as it came. `allow_empty`: no bytes at all count as an archive without members.
    `extract`: False reads and counts the members only; the blob alone is synced then.
    `merge`, `keeps_kinds`, `owner`: see Extractor. `is_own`: it is a layer of the store, which may expand to any number of
    times its size: a step that writes zeros makes such.
    """

    extract: bool = True
    whiteouts: bool = True
    devices: bool = True
    owners: bool = True
    sync: bool = True
    blob: str = "none"
    allow_empty: bool = False
    merge: bool = False
    keeps_kinds: bool = False
    owner: Sequence[int] | None = None
    is_own: bool = False


class Result(Struct, kw_only=True):
    """What was found out. Digests as `sha256:hex`; sizes in bytes. `blob_*` are empty without a blob.

    `has_root`: the archive has an entry for its root. `input_*` describe the bytes as they came, `plain_*` after decompression. `compression` is of the input.
    """

    compression: str
    input_digest: str
    input_size: int
    plain_digest: str
    plain_size: int
    blob_digest: str = ""
    blob_size: int = 0
    blob_compression: str = ""
    entries: int = 0
    files_bytes: int = 0
    has_root: bool = False
    opaque: list[str] = field(default_factory=list)


class _Inflater(Protocol):
    def feed(self, data: Block) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


class _Zlib:
    """gzip, possibly several members one after the other, possibly padded with zeros."""

    def __init__(self) -> None:
        self._object = isal_zlib.decompressobj(_GZIP)
        self._between = False

    def feed(self, data: Block) -> Iterator[bytes]:
        pending: bytes = bytes(data)
        while pending:
            if self._between:
                pending = pending.lstrip(b"\0")
                if not pending:
                    return
                self._object = isal_zlib.decompressobj(_GZIP)
                self._between = False
            try:
                plain = self._object.decompress(pending, BLOCK_BYTES)
            except _GzipError as error:
                raise ArchiveError(f"gzip: {error}") from None
            if plain:
                yield plain
            if self._object.eof:
                pending = self._object.unused_data
                self._between = True
            else:
                pending = self._object.unconsumed_tail
                if not pending and len(plain) < BLOCK_BYTES:
                    return
                if not pending:
                    yield from self._rest()
                    return

    def _rest(self) -> Iterator[bytes]:
        """What the decompressor still holds when the output filled the block exactly."""
        while True:
            plain = self._object.decompress(b"", BLOCK_BYTES)
            if plain:
                yield plain
            if self._object.eof:
                self._between = True
                return
            if len(plain) < BLOCK_BYTES:
                return

    def finish(self) -> None:
        if not self._between:
            raise ArchiveError(UNEXPECTED_EOF)


class _Zstd:
    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._object = self._context.decompressobj(write_size=BLOCK_BYTES)
        self._ended = False

    def feed(self, data: Block) -> Iterator[bytes]:
        pending: bytes = bytes(data)
        while pending:
            if self._ended:
                self._object = self._context.decompressobj(write_size=BLOCK_BYTES)
                self._ended = False
            # A frame may expand a thousandfold: hand it over in pieces small enough to be bounded in memory.
            piece, pending = pending[:65536], pending[65536:]
            try:
                plain = self._object.decompress(piece)
            except zstandard.ZstdError as error:
                raise ArchiveError(f"zstd: {error}") from None
            if plain:
                yield plain
            if self._object.eof:
                self._ended = True
                pending = self._object.unused_data + pending

    def finish(self) -> None:
        if not self._ended:
            raise ArchiveError(UNEXPECTED_EOF)


class _Bounded:
    """bzip2 and xz from the standard library, which share an interface."""

    def __init__(self, name: str, make: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> None:
        self._name = name
        self._make = make
        self._object = make()

    def feed(self, data: Block) -> Iterator[bytes]:
        pending: bytes = bytes(data)
        while True:
            if self._object.eof:
                if not pending.strip(b"\0"):
                    return
                self._object = self._make()
            try:
                plain = self._object.decompress(pending, BLOCK_BYTES)
            except (OSError, ValueError, lzma.LZMAError) as error:
                raise ArchiveError(f"{self._name}: {error}") from None
            if plain:
                yield plain
            if self._object.eof:
                pending = self._object.unused_data
            elif self._object.needs_input:
                return
            else:
                pending = b""

    def finish(self) -> None:
        if not self._object.eof:
            raise ArchiveError(UNEXPECTED_EOF)


class _Plain:
    def feed(self, data: Block) -> Iterator[Block]:
        yield data

    def finish(self) -> None:
        return


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=_XZ_MEMORY)


def sniff(head: bytes) -> str:
    """The compression a stream begins with: gzip, zstd, bzip2, xz or plain."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    if head.startswith(b"BZh"):
        return "bzip2"
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz"
    return "plain"


def _inflater(compression: str) -> _Inflater:
    if compression == "gzip":
        return _Zlib()
    if compression == "zstd":
        return _Zstd()
    if compression == "bzip2":
        return _Bounded("bzip2", bz2.BZ2Decompressor)
    if compression == "xz":
        return _Bounded("xz", _xz)
    return _Plain()  # type: ignore[return-value]


def read_blocks(fd: int) -> Iterator[bytearray]:
    """The bytes of a descriptor in full blocks (the last may be short)."""
    while True:
        block = bytearray(BLOCK_BYTES)
        view = memoryview(block)
        filled = 0
        while filled < BLOCK_BYTES:
            count = os.readv(fd, [view[filled:]])
            if not count:
                break
            filled += count
        view.release()
        if filled < BLOCK_BYTES:
            del block[filled:]
        if block:
            yield block
        if filled < BLOCK_BYTES:
            return


class _Consumer:
    """A thread fed through a bounded queue. After a failure it keeps emptying the queue so that nobody hangs."""

    def __init__(self, name: str, step: Callable[[Block], None], end: Callable[[], None]) -> None:
        self._queue: queue.Queue[Block | None] = queue.Queue(_BLOCKS_AHEAD)
        self._step, self._end = step, end
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, block: Block) -> None:
        if self.error is not None:
            raise self.error
        self._queue.put(block)

    def _run(self) -> None:
        while (block := self._queue.get()) is not None:
            self._guard(lambda block=block: self._step(block))  # type: ignore[misc]
        self._guard(self._end)

    def _guard(self, action: Callable[[], None]) -> None:
        if self.error is None:
            try:
                action()
            except BaseException as error:
                self.error = error

    def close(self) -> None:
        """Wait until everything put was consumed. Does not raise: look at `error`."""
        self._queue.put(None)
        self._thread.join()


class _Hash:
    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self.size = 0

    def step(self, block: Block) -> None:
        self._sum.update(block)
        self.size += len(block)

    @property
    def digest(self) -> str:
        return "sha256:" + self._sum.hexdigest()


class _Blob:
    """Writes blocks into a descriptor, compressed with gzip or as they are, hashing what is written."""

    def __init__(self, fd: int, *, compress: bool) -> None:
        self._fd = fd
        self._deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP) if compress else None
        self.hash = _Hash()

    def step(self, block: Block) -> None:
        self._write(self._deflate.compress(block) if self._deflate else block)

    def end(self) -> None:
        if self._deflate:
            self._write(self._deflate.flush())
        linux.start_writeback(self._fd)

    def _write(self, data: Block) -> None:
        self.hash.step(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


class _Feeder:
    """The thread that reads and inflates, and hands each plain block to the extractor and to the consumers."""

    def __init__(
        self, input_fd: int, consumers: Callable[[str], list[_Consumer]], *, max_ratio: int = _MAX_RATIO
    ) -> None:
        """max_ratio: how many times its size an archive may expand to, 0 for any number."""
        self._fd = input_fd
        self._max_ratio = max_ratio
        self._make = consumers
        self.blocks: queue.Queue[Block | None] = queue.Queue(_BLOCKS_AHEAD)
        self.compression = "plain"
        self.input = _Hash()
        self.plain_size = 0
        self.error: BaseException | None = None
        self.stop = False
        self.consumers: list[_Consumer] = []
        self.thread = threading.Thread(target=self._run, name="read", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._feed()
        except BaseException as error:
            self.error = error
        self._hand(None)

    def _hand(self, block: Block | None) -> None:
        while not self.stop:
            try:
                return self.blocks.put(block, timeout=0.2)
            except queue.Full:
                continue
        return None

    def _feed(self) -> None:
        inflater: _Inflater | None = None
        raw_copy: _Consumer | None = None
        for raw in read_blocks(self._fd):
            if inflater is None:
                self.compression = sniff(bytes(raw[:8]))
                inflater = _inflater(self.compression)
                self.consumers = self._make(self.compression)
                raw_copy = self.consumers.pop(0) if self.compression in ("gzip", "zstd") else None
            if self.compression != "plain":
                self.input.step(raw)
                if raw_copy is not None:
                    raw_copy.put(raw)
            for plain in inflater.feed(raw):
                self._bound(len(plain))
                for consumer in self.consumers:
                    consumer.put(plain)
                self._hand(plain)
                if self.stop:
                    break
            if self.stop:
                break
        if raw_copy is not None:
            self.consumers.append(raw_copy)
        if inflater is not None and not self.stop:
            inflater.finish()

    def _bound(self, coming: int) -> None:
        self.plain_size += coming
        if self.plain_size > _MAX_PLAIN:
            raise ArchiveError(f"archive is larger than {_MAX_PLAIN >> 30} GiB")
        if self.compression == "plain" or not self._max_ratio:
            return
        if self.plain_size > _RATIO_FREE + self._max_ratio * self.input.size:
            raise ArchiveError(f"archive expands to more than {self._max_ratio} times its size")

    def next_block(self) -> Block:
        block = self.blocks.get()
        if block is None:
            self.blocks.put(None)
            if self.error is not None:
                raise self.error
            return b""
        return block


def plain_blocks(input_fd: int, *, is_own: bool = False) -> tuple[Callable[[], Block], Callable[[], None]]:
    """The decompressed blocks of a descriptor, b"" at the end, and what to call when no more are wanted.

    is_own: see Options.
    """

    def consumers(compression: str) -> list[_Consumer]:
        return [_Consumer("none", _never, lambda: None)] if compression in ("gzip", "zstd") else []

    feeder = _Feeder(input_fd, consumers, max_ratio=0 if is_own else _MAX_RATIO)

    def close() -> None:
        feeder.stop = True
        feeder.thread.join()
        for consumer in feeder.consumers:
            consumer.close()

    return feeder.next_block, close


class Opened:
    """A layer being read, without being written anywhere. The digests are known once the source is drained.

    It may expand to any number of times its size: it is one of the store's, and a step that writes zeros makes such.
    """

    def __init__(self, input_fd: int) -> None:
        self._plain = _Hash()
        self._feeder = _Feeder(input_fd, self._consumers, max_ratio=0)
        self.source = Source(self._feeder.next_block)

    def _consumers(self, compression: str) -> list[_Consumer]:
        made = [_Consumer("none", _never, lambda: None)] if compression in ("gzip", "zstd") else []
        return [*made, _Consumer("hash", self._plain.step, lambda: None)]

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self._feeder.stop = True
        self._feeder.thread.join()
        for consumer in self._feeder.consumers:
            consumer.close()

    @property
    def plain_digest(self) -> str:
        """Of the decompressed bytes."""
        return self._plain.digest

    @property
    def input_digest(self) -> str:
        """Of the bytes as they came."""
        return self._plain.digest if self._feeder.compression == "plain" else self._feeder.input.digest

    @property
    def input_size(self) -> int:
        """How many bytes came."""
        return self._plain.size if self._feeder.compression == "plain" else self._feeder.input.size


def open_source(input_fd: int) -> Opened:
    """Read a (possibly compressed) tar from a descriptor and hash it on the way. Use as a context manager."""
    return Opened(input_fd)


def _count(source: Source) -> Totals:
    """Pass over the members of a layer and count them, with the bytes of its files."""
    totals = Totals()
    for entry in tar.read_entries(source):
        totals.entries += 1
        if entry.kind == tar.FILE:
            totals.files_bytes += entry.size
            source.skip(entry.size)
    return totals


def _never(_block: Block) -> None:
    return


def unpack(input_fd: int, root_fd: int, blob_fd: int | None, options: Options) -> Result:
    """Extract the (possibly compressed) tar that `input_fd` yields into `root_fd`, hash it, and write its blob.

    Raises ArchiveError for a wrong archive, OSError for a failing disk. Leaves the descriptors open.
    """
    plain = _Hash()
    blobs: list[_Blob] = []

    def consumers(compression: str) -> list[_Consumer]:
        made = []
        keep = compression in ("gzip", "zstd")
        if blob_fd is not None and options.blob == "write":
            blob = _Blob(blob_fd, compress=not keep)
            blobs.append(blob)
            made.append(_Consumer("blob", blob.step, blob.end))
        elif keep:
            made.append(_Consumer("none", _never, lambda: None))
        made.append(_Consumer("hash", plain.step, lambda: None))
        return made

    feeder = _Feeder(input_fd, consumers, max_ratio=0 if options.is_own else _MAX_RATIO)
    extractor = Extractor(
        root_fd,
        whiteouts=options.whiteouts,
        devices=options.devices,
        owners=options.owners,
        merge=options.merge,
        keeps_kinds=options.keeps_kinds,
        owner=options.owner,
    )
    source = Source(feeder.next_block)
    try:
        totals = extractor.run(source) if options.extract else _count(source)
        source.drain()
    finally:
        feeder.stop = True
        feeder.thread.join()
        for consumer in feeder.consumers:
            consumer.close()
    for consumer in feeder.consumers:
        if consumer.error is not None:
            raise consumer.error
    if not feeder.plain_size and not options.allow_empty:
        raise ArchiveError(UNEXPECTED_EOF)
    if options.sync and options.extract:
        linux.syncfs(root_fd)
    elif options.sync and blob_fd is not None:
        os.fsync(blob_fd)
    is_plain = feeder.compression == "plain"
    result = Result(
        compression=feeder.compression,
        input_digest=plain.digest if is_plain else feeder.input.digest,
        input_size=plain.size if is_plain else feeder.input.size,
        plain_digest=plain.digest,
        plain_size=plain.size,
        entries=totals.entries,
        files_bytes=totals.files_bytes,
        has_root=totals.has_root,
        opaque=totals.opaque,
    )
    if blob_fd is not None and options.blob == "write":
        if not blobs:  # not a single byte came: the blob is an empty gzip member
            blob = _Blob(blob_fd, compress=True)
            blob.end()
            blobs.append(blob)
        result.blob_digest = blobs[0].hash.digest
        result.blob_size = blobs[0].hash.size
        result.blob_compression = feeder.compression if feeder.compression in ("gzip", "zstd") else "gzip"
    return result


def is_disk_full(error: OSError) -> bool:
    """Whether the disk, and not the archive, is to blame."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
