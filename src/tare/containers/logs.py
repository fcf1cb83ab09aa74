"""Reading a container's log: conmon's CRI lines in, Docker's frames out, in bulk.

A line is `2026-11-23T21:11:39.123456789+00:00 stdout F text`: time, stream, F (full) or P (the program's line goes on
in the next record), text. The first three fields have a fixed width for a given zone, which is what makes bulk
translation possible: the prefixes are cut off by position, the headers of frames are made once for each length.
"""

from __future__ import annotations

import calendar
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from tare.containers.logpacks import STAMP_BYTES, SUFFIX, identity_of, origin_of, pack, unpacked
from tare.wire.frames import STDERR, STDOUT, frame, frame_header

PIECE_BYTES = 1024 * 1024
_MAX_STEP = 256 * PIECE_BYTES
_STREAMS = 2
HEAD_BYTES = 45  # stamp, ` stdout F `
RECORD_KINDS = {
    b" stdout F ": (STDOUT, b"\n"),
    b" stdout P ": (STDOUT, b""),
    b" stderr F ": (STDERR, b"\n"),
    b" stderr P ": (STDERR, b""),
}
_ALL_STDOUT = {b" stdout F "}


class Wanted(Struct, frozen=True, kw_only=True):
    """What a client asked for. Times in nanoseconds since the epoch, 0 = unbounded; tail None = everything."""

    stdout: bool = True
    stderr: bool = True
    since: int = 0
    until: int = 0
    tail: int | None = None
    timestamps: bool = False
    has_tty: bool = False
    details: bytes = b""  # `k=v,k=v ` put before every line

    @property
    def is_plain(self) -> bool:
        """Whether lines need no look at their time."""
        return not (self.since or self.until or self.timestamps or self.details)


def nanos_of(stamp: bytes) -> int:
    """conmon's time stamp (local time with zone, nanoseconds) as nanoseconds since the epoch."""
    base, _, rest = stamp.partition(b".")
    match = re.match(rb"(\d+)(Z|[+-]\d\d:\d\d)\Z", rest)
    if match is None:
        return 0
    seconds = calendar.timegm(time.strptime(base.decode("ascii", "replace"), "%Y-%m-%dT%H:%M:%S"))
    zone = match[2]
    if zone != b"Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        seconds -= offset if zone[:1] == b"+" else -offset
    return seconds * 1_000_000_000 + int(match[1].ljust(9, b"0")[:9])


def _stamp(stamp: bytes) -> bytes:
    """The same moment as Docker prints it: UTC, nine digits, Z (W33)."""
    if stamp.endswith(b"+00:00") and len(stamp) == 35:
        return stamp[:29] + b"Z"
    at = nanos_of(stamp)
    seconds, nanos = divmod(at, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % nanos


def translate(block: bytes, wanted: Wanted) -> tuple[bytes, bool]:
    """Whole records as what goes to the client. The flag says that `until` was passed: stop reading.

    block: any number of complete lines.
    """
    if wanted.is_plain:
        return _translate_plain(block, wanted), False
    return _translate_each(block, wanted)


def _translate_plain(block: bytes, wanted: Wanted) -> bytes:
    """The quick path: one frame a record, as Docker sends them; clients that iterate frames see lines."""
    lines = block.split(b"\n")
    lines.pop()
    if {line[STAMP_BYTES:HEAD_BYTES] for line in lines} == _ALL_STDOUT:
        if not wanted.stdout:
            return b""
        texts = [line[HEAD_BYTES:] for line in lines]
        if wanted.has_tty:
            return b"\n".join(texts) + b"\n"
        headers = {size: frame_header(STDOUT, size + 1) for size in set(map(len, texts))}
        return b"".join([headers[len(text)] + text + b"\n" for text in texts])
    out: list[bytes] = []
    for line in lines:
        kind = RECORD_KINDS.get(line[STAMP_BYTES:HEAD_BYTES])
        if kind is None:
            continue
        stream, ending = kind
        if wanted.stdout if stream == STDOUT else wanted.stderr:
            out.append(_emit(stream, line[HEAD_BYTES:] + ending, wanted))
    return b"".join(out)


def _translate_each(block: bytes, wanted: Wanted) -> tuple[bytes, bool]:
    out: list[bytes] = []
    lines = block.split(b"\n")
    lines.pop()
    for line in lines:
        kind = RECORD_KINDS.get(line[STAMP_BYTES:HEAD_BYTES])
        if kind is None:
            continue
        if wanted.since or wanted.until:
            at = nanos_of(line[:STAMP_BYTES])
            if at < wanted.since:
                continue
            if wanted.until and at > wanted.until:
                return b"".join(out), True
        stream, ending = kind
        if not (wanted.stdout if stream == STDOUT else wanted.stderr):
            continue
        stamp = _stamp(line[:STAMP_BYTES]) + b" " if wanted.timestamps else b""
        out.append(_emit(stream, stamp + wanted.details + line[HEAD_BYTES:] + ending, wanted))
    return b"".join(out), False


def _emit(stream: int, payload: bytes, wanted: Wanted) -> bytes:
    return payload if wanted.has_tty else frame(stream, payload)


def offset_of_tail(fd: int, lines: int, end: int) -> int:
    """Where the last `lines` complete program lines before offset `end` begin (P records belong to the next F)."""
    return _tail(fd, lines, end)[0]


def _tail(fd: int, lines: int, end: int, opened: Callable[[], frozenset[int]] = frozenset) -> tuple[int, int]:
    """Where the last `lines` lines begin, and how many there are from there on: fewer only from the file's start.

    opened: tells the streams whose first record here goes on with a line of an older file.

    Read backwards in pieces that double, so that a long tail is not looked through again and again. The first record of
    each stream in what was read may go on with a line that began before it; hence two more than asked for are found.
    """
    if lines <= 0:
        return end, 0
    position, step = end, PIECE_BYTES
    tail = b""
    found: list[int] = []
    while position > 0:
        size = min(step, position)
        position -= size
        step = min(2 * step, _MAX_STEP)
        tail = os.pread(fd, size, position) + tail
        if position and tail.count(b"\n") <= lines + _STREAMS:
            continue
        found = _starts(tail, at_file_start=position == 0, opened=opened() if position == 0 else frozenset())
        if len(found) >= lines + _STREAMS:
            break
    return (position + found[-lines], lines) if len(found) >= lines else (0, len(found))


def _starts(data: bytes, *, at_file_start: bool, opened: frozenset[int]) -> list[int]:
    """Offsets at which a program line begins, as far as `data` (which ends at a record's end) can tell."""
    starts: list[int] = []
    open_line = {STDOUT: STDOUT in opened, STDERR: STDERR in opened}
    offset = 0
    lines = data.split(b"\n")
    lines.pop()
    for index, line in enumerate(lines):
        kind = RECORD_KINDS.get(line[STAMP_BYTES:HEAD_BYTES])
        if kind is not None and (index or at_file_start):
            stream, ending = kind
            if not open_line[stream]:
                starts.append(offset)
            open_line[stream] = not ending
        offset += len(line) + 1
    return starts


def rotated(path: Path) -> list[Path]:
    """The files of one log that exist, oldest first: `container.log.2.gz`, `container.log.1`, `container.log`."""
    return [*(file for _, file in _numbered(path)), *([path] if path.exists() else ())]


_NUMBER = re.compile(r"\.([0-9]+)(?:\.gz)?\Z", re.ASCII)


def _numbered(path: Path) -> list[tuple[int, Path]]:
    """The older files with their numbers, oldest first. One that is being replaced by its packed form is there once."""
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    found: dict[int, str] = {}
    for name in sorted(names, reverse=True):  # the plain one last: it stays
        if name.startswith(path.name) and (match := _NUMBER.match(name, len(path.name))):
            found[int(match[1])] = name
    return [(number, path.with_name(found[number])) for number in sorted(found, reverse=True)]


def rotate(path: Path) -> None:
    """Give every file the next number, the current one 1. The writer has to open a new one then; see `trim`.

    Quick, and not to be called in a thread: who reads opens files of one log between two rotations.
    """
    for number, old in _numbered(path):
        old.rename(path.with_name(f"{path.name}.{number + 1}{SUFFIX if old.suffix == SUFFIX else ''}"))
    path.rename(path.with_name(f"{path.name}.1"))


def trim(path: Path, keeps: int) -> None:
    """Remove what has a number above `keeps`. Freeing big files takes the disk a moment: call it in a thread."""
    for number, old in _numbered(path):
        if number > keeps:
            old.unlink(missing_ok=True)


def unpacked_files(path: Path) -> list[Path]:
    """The older files that are not packed yet, oldest first."""
    return [old for _, old in _numbered(path) if old.suffix != SUFFIX]


class Packing:
    """One older file on its way to its packed form: `write` in a thread, then `replace`, like `rotate` in none."""

    def __init__(self, path: Path, old: Path) -> None:
        """path: of the log; old: one of its `unpacked_files`. Raises FileNotFoundError."""
        self._path = path
        self._target = path.with_name(f"{path.name}.packing")
        self._fd = os.open(old, os.O_RDONLY | os.O_CLOEXEC)

    def write(self) -> None:
        """The long part. Raises OSError; nothing has changed for readers."""
        pack(self._fd, self._target)

    def replace(self) -> None:
        """Put it in the place of the plain file, which may have another number by now, or be gone."""
        mine = os.fstat(self._fd).st_ino
        for old in unpacked_files(self._path):
            if old.stat().st_ino == mine:
                self._target.rename(old.with_name(old.name + SUFFIX))
                old.unlink()
                return

    def close(self) -> None:
        """Release the descriptor; what was written for nothing goes."""
        os.close(self._fd)
        self._target.unlink(missing_ok=True)


def open_plain(path: Path) -> int:
    """A descriptor of the plain bytes of a file of a log; the caller closes it. Raises FileNotFoundError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    if path.suffix != SUFFIX:
        return fd
    try:
        return unpacked(fd, path.parent)
    finally:
        os.close(fd)


def open_all(path: Path, *, since: int = 0) -> list[LogFile]:
    """Every file of the log that may hold something from `since` (nanoseconds) on, oldest first; [] without a log."""
    found: list[LogFile] = []
    for file in rotated(path):
        try:
            found.append(LogFile(file, base=path))
        except FileNotFoundError:
            continue  # trimmed meanwhile
    while len(found) > 1 and found[0].written_at < since:
        found.pop(0).close()
    return found


def seek_tail(files: list[LogFile], lines: int) -> None:
    """Set the files, oldest first, to where the last `lines` lines of them all begin; those before are closed."""
    for index in range(len(files) - 1, -1, -1):
        lines -= files[index].seek_tail(lines, files[index - 1].open_streams if index else frozenset)
        if lines <= 0:
            for file in files[:index]:
                file.close()
            del files[:index]
            return


class LogFile:
    """One open file of a log. Survives rotation by rename: what was open is read to its end first.

    A packed one is unpacked when it is first read.
    """

    def __init__(self, path: Path, *, base: Path | None = None) -> None:
        """base: the name that is being written to, when `path` is an older file."""
        self._base = base or path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._packed = path if path.suffix == SUFFIX else None
        self._origin = origin_of(self._file) if self._packed is not None else ""
        self._rest = b""
        self._offset = 0
        self._end: int | None = None
        self.is_past_until = False

    @property
    def _fd(self) -> int:
        if self._packed is not None:
            plain = unpacked(self._file, self._packed.parent)
            os.close(self._file)
            self._file, self._packed = plain, None
        return self._file

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._file)

    @property
    def written_at(self) -> int:
        """When it was written to last, in nanoseconds."""
        return os.fstat(self._file).st_mtime_ns

    @property
    def place(self) -> Path:
        """A path to this very file, whatever its name is by now."""
        return Path(f"/proc/self/fd/{self._fd}")

    def end_here(self) -> None:
        """Nothing that is written after this call is read: the end of a flood would never come."""
        if self._packed is None:
            self._end = os.fstat(self._file).st_size

    def seek_tail(self, lines: int, opened: Callable[[], frozenset[int]] = frozenset) -> int:
        """Start at the last `lines` lines. How many there are: fewer when the file has no more.

        opened: tells the streams of which an older file ends within a line; asked only if that matters.
        """
        end = os.fstat(self._fd).st_size if self._end is None else self._end
        self._offset, found = _tail(self._fd, lines, end, opened)
        return found

    def open_streams(self) -> frozenset[int]:
        """The streams whose last record, looked for in the last megabyte, leaves its line open."""
        end = os.fstat(self._fd).st_size
        last: dict[int, bytes] = {}
        for line in os.pread(self._fd, PIECE_BYTES, max(0, end - PIECE_BYTES)).split(b"\n"):
            kind = RECORD_KINDS.get(line[STAMP_BYTES:HEAD_BYTES])
            if kind is not None:
                last[kind[0]] = kind[1]
        return frozenset(stream for stream, ending in last.items() if not ending)

    @property
    def offset(self) -> int:
        """Up to where whole records have been given out."""
        return self._offset - len(self._rest)

    def seek(self, offset: int) -> None:
        """Go on from here: the start of a record."""
        self._offset, self._rest = offset, b""

    @property
    def identity(self) -> str:
        """Names this file whatever its path; "" as long as it is empty. A number that the disk gives again differs by its first time stamp."""
        return self._origin or identity_of(self._file)

    @property
    def is_dropped(self) -> bool:
        """Whether it has been removed: it can be read for as long as it is open only."""
        return os.fstat(self._fd).st_nlink == 0

    @property
    def has_more(self) -> bool:
        """Whether something is left to be read now."""
        return os.fstat(self._fd).st_size > self._offset

    def next_records(self, limit: int) -> bytes:
        """The next whole records, about `limit` bytes; b"" when there are none now."""
        while True:
            data = os.pread(self._fd, limit, self._offset)
            if not data:
                return b""
            self._offset += len(data)
            data = self._rest + data
            end = data.rfind(b"\n") + 1
            self._rest = data[end:]
            if end:
                return data[:end]

    def next_piece(self, wanted: Wanted) -> bytes:
        """The next megabyte, translated; b"" when nothing (more) is there now. Skips what nobody wants."""
        while not self.is_past_until:
            size = PIECE_BYTES if self._end is None else min(PIECE_BYTES, self._end - self._offset)
            data = os.pread(self._fd, max(0, size), self._offset)
            if not data:
                return b""
            self._offset += len(data)
            data = self._rest + data
            end = data.rfind(b"\n") + 1
            self._rest = data[end:]
            out, self.is_past_until = translate(data[:end], wanted)
            if out:
                return out
        return b""

    def _is(self, other: LogFile) -> bool:
        """Whether both are one file, or one the packed form of the other. What is written meanwhile makes no difference:
        a file that both have open keeps its number, and only one that is not written to any more is packed."""
        mine, theirs = os.fstat(self._file), os.fstat(other._file)
        if (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino):
            return True
        return self.identity != "" and self.identity == other.identity

    def open_newer(self) -> LogFile | None:
        """The next newer file of the log, None while this is the newest. Nothing is written to this one any more then."""
        files = open_all(self._base)
        place = next((number for number, file in enumerate(files) if self._is(file)), None)
        index = 0 if place is None else place + 1  # removed meanwhile: all that exist are newer
        newer = files[index] if index < len(files) else None
        for file in files:
            if file is not newer:
                file.close()
        return newer
