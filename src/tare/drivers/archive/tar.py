"""The tar format: ustar, PAX and GNU headers read with bounds, PAX headers written.

Names stay bytes: what a tar calls a file need not be text. Sparse files are refused, since no image builder writes
them and half-right support would corrupt data.
Source: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator

from msgspec import Struct, field

BLOCK = 512
ZEROS = bytes(BLOCK)
TRAILER = bytes(2 * BLOCK)

MAX_NAME = 4096
MAX_DEPTH = 256
MAX_PAX = 1024 * 1024
MAX_XATTR = 64 * 1024
MAX_SIZE = 64 * 1024**3
MAX_ENTRIES = 2_000_000
_MAX_META_IN_A_ROW = 8

FILE, LINK, SYMLINK, CHAR, BLOCKDEV, DIR, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_KINDS = frozenset({FILE, LINK, SYMLINK, CHAR, BLOCKDEV, DIR, FIFO})
_XATTR = b"SCHILY.xattr."

INVALID_HEADER = "archive/tar: invalid tar header"
UNEXPECTED_EOF = "unexpected EOF"


class ArchiveError(Exception):
    """The archive is wrong; `str()` says how, in Docker's words where it has some."""


class Entry(Struct):
    """One member. `kind` is one of the seven POSIX type flags; sizes in bytes, time in ns since the epoch."""

    name: bytes
    kind: bytes = FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class Source:
    """Plain bytes cut into blocks by whoever feeds us, read as a stream. `position` counts what was consumed."""

    def __init__(self, next_block: Callable[[], bytes | bytearray | memoryview]) -> None:
        """`next_block` returns the next non-empty block, or b"" at the end (again and again)."""
        self._next = next_block
        self._block = memoryview(b"")
        self._at = 0
        self.position = 0

    def _refill(self) -> bool:
        self._block = memoryview(self._next())
        self._at = 0
        return len(self._block) > 0

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes, fewer only at the end of the stream. For small counts."""
        at = self._at
        if at + count <= len(self._block):
            self._at = at + count
            self.position += count
            return bytes(self._block[at : at + count])
        return b"".join(bytes(part) for part in self.spans(count, whole=False))

    def spans(self, count: int, *, whole: bool = True) -> Iterator[memoryview]:
        """`count` bytes as views, valid until the next call. Raises ArchiveError at a premature end if `whole`."""
        while count:
            available = len(self._block) - self._at
            if not available:
                if not self._refill():
                    if whole:
                        raise ArchiveError(UNEXPECTED_EOF)
                    return
                continue
            step = min(available, count)
            view = self._block[self._at : self._at + step]
            self._at += step
            self.position += step
            count -= step
            yield view

    def skip(self, count: int) -> None:
        """Pass over `count` bytes."""
        at = self._at + count
        if at <= len(self._block):
            self._at = at
            self.position += count
            return
        for _ in self.spans(count):
            pass

    def drain(self) -> int:
        """Read to the end of the stream; how many bytes that were."""
        before = self.position
        while True:
            self.position += len(self._block) - self._at
            if not self._refill():
                return self.position - before


def _number(raw: bytes) -> int:
    """An octal field, or GNU base-256. Raises ArchiveError."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=False)
        bits = 8 * len(raw)
        value &= (1 << (bits - 1)) - 1
        if raw[0] & 0x40:  # negative: two's complement in the bits after the marker
            value -= 1 << (bits - 1)
        return value
    text = raw.rstrip(b" \0").lstrip(b" ")
    if not text:
        return 0
    try:
        return int(text.partition(b"\0")[0], 8)
    except ValueError:
        raise ArchiveError(INVALID_HEADER) from None


def _check(header: bytes) -> None:
    try:
        want = _number(header[148:156])
    except ArchiveError:
        want = -1
    plain = sum(header) - sum(header[148:156]) + 8 * 0x20
    if plain != want:
        signed = plain - 256 * sum(byte > 127 for byte in header[:148] + header[156:])
        if signed != want:
            raise ArchiveError(INVALID_HEADER)


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 9)
        digits = data[at:space]
        if space < 0 or not digits.isdigit():
            raise ArchiveError(INVALID_HEADER)
        end = at + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1] != 0x0A or not equals or not key:
            raise ArchiveError(INVALID_HEADER)
        records[key] = value
        at = end
    return records


def _decimal(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise ArchiveError(INVALID_HEADER) from None


def _pax_time(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    sign = -1 if whole.startswith(b"-") else 1
    digits = (fraction + b"000000000")[:9]
    if not digits.isdigit():
        raise ArchiveError(INVALID_HEADER)
    return _decimal(whole or b"0") * 1_000_000_000 + sign * int(digits)


def _apply_pax(entry: Entry, records: dict[bytes, bytes]) -> None:
    for key, value in records.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.linkname = value
        elif key == b"size":
            entry.size = _decimal(value)
        elif key == b"uid":
            entry.uid = _decimal(value)
        elif key == b"gid":
            entry.gid = _decimal(value)
        elif key == b"mtime":
            entry.mtime_ns = _pax_time(value)
        elif key.startswith(b"GNU.sparse."):
            raise ArchiveError("archive/tar: sparse files are not supported")
        elif key.startswith(_XATTR):
            if len(value) > MAX_XATTR:
                raise ArchiveError("archive/tar: extended attribute too large")
            entry.xattrs[key[len(_XATTR) :]] = value


_V7_MODE, _U, _G, _S, _M = slice(100, 108), slice(108, 116), slice(116, 124), slice(124, 136), slice(136, 148)


def _parse(header: bytes) -> Entry:
    _check(header)
    name = header[:100].partition(b"\0")[0]
    kind = header[156:157]
    magic = header[257:263]
    if magic == b"ustar\0":
        prefix = header[345:500].partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    entry = Entry(
        name,
        kind,
        _number(header[_V7_MODE]) & 0o7777,
        _number(header[_U]),
        _number(header[_G]),
        _number(header[_S]),
        _number(header[_M]) * 1_000_000_000,
        header[157:257].partition(b"\0")[0],
    )
    if magic[:5] == b"ustar" and kind in (CHAR, BLOCKDEV):
        entry.major = _number(header[329:337])
        entry.minor = _number(header[337:345])
    return entry


def _pad(size: int) -> int:
    return -size % BLOCK


def _meta(source: Source, size: int) -> bytes:
    if not 0 <= size <= MAX_PAX:
        raise ArchiveError("archive/tar: header field too long")
    data = source.take(size)
    if len(data) != size:
        raise ArchiveError(UNEXPECTED_EOF)
    source.skip(_pad(size))
    return data


def read_entries(source: Source) -> Iterator[Entry]:
    """The members in order. Whatever the caller leaves of a member's `size` bytes of data is skipped.

    Raises ArchiveError for a wrong checksum, number, size, record, an early end, or more than a limit allows.
    """
    count = 0
    while True:
        pax: dict[bytes, bytes] = {}
        long_name = long_link = None
        entry = None
        for _ in range(_MAX_META_IN_A_ROW):
            header = source.take(BLOCK)
            if len(header) < BLOCK:
                if not header and not pax and long_name is None and long_link is None:
                    return
                raise ArchiveError(UNEXPECTED_EOF)
            if not header[0] and header == ZEROS:
                if pax or long_name is not None or long_link is not None:
                    raise ArchiveError(INVALID_HEADER)
                return
            entry = _parse(header)
            if entry.kind == b"x":
                pax.update(_pax_records(_meta(source, entry.size)))
            elif entry.kind == b"g":
                _pax_records(_meta(source, entry.size))
            elif entry.kind == b"L":
                long_name = _meta(source, entry.size).partition(b"\0")[0]
            elif entry.kind == b"K":
                long_link = _meta(source, entry.size).partition(b"\0")[0]
            else:
                break
        else:
            raise ArchiveError(INVALID_HEADER)
        assert entry is not None
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.linkname = long_link
        if pax:
            _apply_pax(entry, pax)
        count += 1
        _normalise(entry, count)
        after = source.position + entry.size
        yield entry
        source.skip(after - source.position)
        padding = _pad(entry.size)
        if padding and len(source.take(padding)) < padding:
            return  # the stock docker sends this for a Dockerfile from outside of the context; Go's reader takes it


def _normalise(entry: Entry, count: int) -> None:
    """Old spellings to POSIX ones, then the limits."""
    if count > MAX_ENTRIES:
        raise ArchiveError(f"archive/tar: more than {MAX_ENTRIES} entries")
    kind = entry.kind
    if kind == b"S":
        raise ArchiveError("archive/tar: sparse files are not supported")
    if kind in (b"\0", b"7"):
        kind = DIR if kind == b"\0" and entry.name.endswith(b"/") else FILE
    if kind not in _KINDS:
        raise ArchiveError(f"archive/tar: unhandled tar header type {kind[0]}")
    entry.kind = kind
    if kind != FILE:
        entry.size = 0  # whatever the field says, no data follows
    if not 0 <= entry.size <= MAX_SIZE or not 0 <= entry.uid < 2**32 - 1 or not 0 <= entry.gid < 2**32 - 1:
        raise ArchiveError(INVALID_HEADER)
    if not 0 <= entry.major < 2**12 or not 0 <= entry.minor < 2**20:
        raise ArchiveError(INVALID_HEADER)
    if len(entry.name) > MAX_NAME or len(entry.linkname) > MAX_NAME:
        raise ArchiveError("archive/tar: file name too long")


def clean_name(name: bytes) -> list[bytes]:
    """The components of a member's path inside the root; [] is the root itself.

    Raises ArchiveError for `..`, NUL, an empty name, more components than MAX_DEPTH.
    """
    if not name or b"\0" in name:
        raise ArchiveError("archive/tar: invalid file name")
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise ArchiveError(f"invalid tar entry: {name.decode(errors='backslashreplace')!r} is outside of the root")
    if len(parts) > MAX_DEPTH:
        raise ArchiveError("archive/tar: too many directories in a file name")
    return parts


# --- writing ---------------------------------------------------------------------------------------------------------

_MAX_OCTAL7 = 0o7777777
_MAX_OCTAL11 = 0o77777777777
_NANOS = 1_000_000_000


def _pax_record(key: bytes, value: bytes) -> bytes:
    body = len(key) + len(value) + 3
    size = body + len(str(body))
    if body + len(str(size)) != size:
        size = body + len(str(size))
    return b"%d %b=%b\n" % (size, key, value)


def _raw_header(entry: Entry, name: bytes, prefix: bytes) -> bytes:
    mtime = max(0, entry.mtime_ns // _NANOS)
    device = entry.kind in (CHAR, BLOCKDEV)
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\00000%64b%07o\0%07o\0%b" % (
        name.ljust(100, b"\0"),
        entry.mode & 0o7777,
        entry.uid if entry.uid <= _MAX_OCTAL7 else 0,
        entry.gid if entry.gid <= _MAX_OCTAL7 else 0,
        entry.size if entry.size <= _MAX_OCTAL11 else 0,
        mtime if mtime <= _MAX_OCTAL11 else 0,
        entry.kind,
        entry.linkname[:100].ljust(100, b"\0"),
        bytes(64),
        entry.major if device else 0,
        entry.minor if device else 0,
        prefix.ljust(155, b"\0"),
    )
    return b"%b%06o\0 %b" % (head[:148], sum(head), head[156:].ljust(356, b"\0"))


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    if len(name) <= 100:
        return name, b""
    if len(name) > 256:
        return None
    at = name.rfind(b"/", 0, 156)
    if at <= 0 or len(name) - at - 1 > 100 or len(name) == at + 1:
        return None
    return name[at + 1 :], name[:at]


def header_of(entry: Entry) -> bytes:
    """The header blocks of `entry`: one ustar block, after a PAX record block where ustar has no room."""
    split = _split(entry.name)
    if (
        split is not None
        and not entry.xattrs
        and entry.mtime_ns >= 0
        and entry.mtime_ns % _NANOS == 0
        and len(entry.linkname) <= 100
        and entry.uid <= _MAX_OCTAL7
        and entry.gid <= _MAX_OCTAL7
        and entry.size <= _MAX_OCTAL11
    ):
        return _raw_header(entry, *split)
    records: list[bytes] = []
    if split is None:
        records.append(_pax_record(b"path", entry.name))
    if len(entry.linkname) > 100:
        records.append(_pax_record(b"linkpath", entry.linkname))
    for key, value, limit in (
        (b"uid", entry.uid, _MAX_OCTAL7),
        (b"gid", entry.gid, _MAX_OCTAL7),
        (b"size", entry.size, _MAX_OCTAL11),
    ):
        if value > limit:
            records.append(_pax_record(key, b"%d" % value))
    if entry.mtime_ns < 0 or entry.mtime_ns % _NANOS:
        sign = b"-" if entry.mtime_ns < 0 else b""
        whole, nanos = divmod(abs(entry.mtime_ns), _NANOS)
        records.append(_pax_record(b"mtime", (b"%b%d.%09d" % (sign, whole, nanos)).rstrip(b"0").rstrip(b".")))
    records.extend(_pax_record(_XATTR + key, value) for key, value in sorted(entry.xattrs.items()))
    data = b"".join(records)
    pax = Entry(b"PaxHeaders.0/" + entry.name.rstrip(b"/").rpartition(b"/")[2][:80], b"x", 0o644, size=len(data))
    name, prefix = split or (entry.name[-100:].lstrip(b"/") or b"x", b"")
    return _raw_header(pax, pax.name, b"") + data + bytes(_pad(len(data))) + _raw_header(entry, name, prefix)


def padding(size: int) -> bytes:
    """The zeros after `size` bytes of data."""
    return ZEROS[: _pad(size)]


_STAT_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR,
    stat.S_IFBLK: BLOCKDEV,
    stat.S_IFDIR: DIR,
    stat.S_IFIFO: FIFO,
}


def kind_of(st_mode: int) -> bytes | None:
    """The type flag for a stat mode; None for sockets, which tar cannot hold."""
    return _STAT_KINDS.get(stat.S_IFMT(st_mode))
