"""A tar taken apart (the bytes of its files in one file, an index of its members), and a tar put together from such.

A build's context is kept so: nothing is unpacked, a COPY picks members from the index and their bytes from the data.
The index is a JSON array with one array for each member; see `Member`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import astuple

from tare.drivers.archive import tar
from tare.drivers.archive.pipeline import plain_blocks
from tare.drivers.archive.tar import ArchiveError, Entry, Source

_BUFFER = 1024 * 1024
_SENDFILE_FROM = 256 * 1024


class Member(Struct):
    """One member: as `tar.Entry`, with text for names (surrogates stand for bytes that are none), its path cleaned.

    offset: where its bytes are in the data. sha256: of its bytes, hex. Both mean something for files only.
    """

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    linkname: str = ""
    major: int = 0
    minor: int = 0
    offset: int = 0
    sha256: str = ""
    xattrs: dict[str, str] = field(default_factory=dict)  # values in hex

    def row(self) -> list[Any]:
        """For the index."""
        return list(astuple(self))


def spool(input_fd: int, data_fd: int, index_fd: int, *, is_own: bool = False) -> dict[str, int]:
    """Take the tar apart. `entries` and `bytes` of files. Raises ArchiveError, OSError for a failing disk.

    is_own: it is a layer of the store, so nothing is said against how far it expands.
    """
    next_block, close = plain_blocks(input_fd, is_own=is_own)
    source = Source(next_block)
    rows: list[list[Any]] = []
    pending: list[bytes] = []
    pending_bytes = offset = 0

    def flush() -> None:
        nonlocal pending_bytes
        view = memoryview(b"".join(pending))
        pending.clear()
        pending_bytes = 0
        while view:
            view = view[os.write(data_fd, view) :]

    try:
        for entry in tar.read_entries(source):
            parts = tar.clean_name(entry.name)
            if not parts:
                continue
            member = _member(entry, b"/".join(parts))
            if entry.kind == tar.FILE:
                member.offset = offset
                digest = hashlib.sha256()
                for span in source.spans(entry.size):
                    digest.update(span)
                    pending.append(bytes(span))
                    pending_bytes += len(span)
                    if pending_bytes >= _BUFFER:
                        flush()
                offset += entry.size
                member.sha256 = digest.hexdigest()
            elif entry.kind == tar.LINK:
                member.linkname = os.fsdecode(b"/".join(tar.clean_name(entry.linkname)))
            rows.append(member.row())
        source.drain()
        flush()
    finally:
        close()
    _write_all(index_fd, json.dumps(rows, separators=(",", ":")).encode())
    return {"entries": len(rows), "bytes": offset}


def _member(entry: Entry, name: bytes) -> Member:
    return Member(
        os.fsdecode(name),
        entry.kind.decode(),
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size if entry.kind == tar.FILE else 0,
        entry.mtime_ns,
        os.fsdecode(entry.linkname),
        entry.major,
        entry.minor,
        xattrs={os.fsdecode(key): value.hex() for key, value in entry.xattrs.items()},
    )


def read_index(data: bytes) -> list[Member]:
    """The members that `spool` found, in their order in the archive."""
    return [Member(*row) for row in json.loads(data)]


class Part(Struct):
    """A member of a tar to be made: the member, and which of the data files holds its bytes (`text` where none does)."""

    member: Member
    source: int = 0
    text: str | None = None


def write_plan(parts: Sequence[Part]) -> bytes:
    """The plan of a tar, for `compose`."""
    rows = [[*part.member.row(), part.source, part.text] for part in parts]
    return json.dumps(rows, separators=(",", ":")).encode()


def compose(plan_fd: int, data_fds: Sequence[int], out_fd: int) -> int:
    """Write the tar a plan describes; how many entries it has. Raises ArchiveError when bytes are missing, OSError."""
    with os.fdopen(os.dup(plan_fd), "rb") as file:
        file.seek(0)
        rows = json.loads(file.read())
    pending: list[bytes] = []
    pending_bytes = 0
    for *row, source, text in rows:
        member = Member(*row)
        data = text.encode("utf-8", "surrogateescape") if text is not None else b""
        entry = Entry(
            os.fsencode(member.name) + (b"/" if member.kind == tar.DIR.decode() else b""),
            member.kind.encode(),
            member.mode,
            member.uid,
            member.gid,
            len(data) if text is not None else member.size,
            member.mtime_ns,
            os.fsencode(member.linkname),
            member.major,
            member.minor,
            {os.fsencode(key): bytes.fromhex(value) for key, value in member.xattrs.items()},
        )
        pending.append(tar.header_of(entry))
        if entry.kind == tar.FILE and entry.size:
            if text is None and entry.size >= _SENDFILE_FROM:
                _write_all(out_fd, b"".join(pending))
                pending, pending_bytes = [], 0
                _send(out_fd, data_fds[source], member.offset, entry.size)
            else:
                if text is None:
                    data = os.pread(data_fds[source], entry.size, member.offset)
                    if len(data) != entry.size:
                        raise ArchiveError(f"the bytes of {member.name!r} are gone")
                pending.append(data)
                pending_bytes += len(data)
            pending.append(tar.padding(entry.size))
        pending_bytes += tar.BLOCK
        if pending_bytes >= _BUFFER:
            _write_all(out_fd, b"".join(pending))
            pending, pending_bytes = [], 0
    _write_all(out_fd, b"".join(pending) + tar.TRAILER)
    return len(rows)


def _send(out_fd: int, data_fd: int, offset: int, size: int) -> None:
    sent = 0
    while sent < size:
        count = os.sendfile(out_fd, data_fd, offset + sent, min(size - sent, 1 << 30))
        if not count:
            raise ArchiveError("the bytes of a file are gone")
        sent += count


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
