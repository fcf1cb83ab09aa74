"""What `tare build` sends: a directory packed as a tar stream, a tar or a Dockerfile from stdin, or nothing but a URL.

A directory is listed before the first byte is sent, so that a file that cannot be read is named while nothing has
happened yet. Packing then opens what was listed and nothing else: a name that leads elsewhere by now is an error.
Everything belongs to 0:0 in the tar, symbolic links stay links, sockets are left out.
Source: ENGINE-API W50; the entries the stock docker sends.
"""

from __future__ import annotations

import os
import posixpath
import secrets
import stat
import tarfile
import time

from msgspec import Struct, field

from tare.build.ignore import Ignore, read_ignore
from tare.cli import exit as exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

DOCKERFILE = "Dockerfile"
IGNORE = ".dockerignore"
_TEMPORARY = ".dockerfile."
_PIECE = 256 * 1024
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_COMPRESSED = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_CAPABILITY = "security.capability"


class Entry(Struct, frozen=True):
    """One name of a context: relative, with `/`; what `lstat` said; the name it is a hard link to, or ""."""

    name: str
    status: os.stat_result
    link: str = ""


class Local(Struct, frozen=True, kw_only=True):
    """A directory to send. `extra`: files that are not in it, or not as they stand there, name to contents.

    `modes`: their permissions, where not 0600. `prefix`: what is put before the names, with its `/`.
    """

    root: str
    entries: tuple[Entry, ...]
    dockerfile: str
    extra: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    prefix: str = ""


def _cannot(text: str) -> exits.Exit:
    return exits.Exit(exits.FAILED, f"unable to prepare context: {text}")


def _reason(error: OSError) -> str:
    return (error.strerror or "cannot be read").lower()


def is_remote(text: str) -> bool:
    """Whether the engine fetches the context: a Git repository, or an http address of a tar or a Dockerfile."""
    return text.startswith(("http://", "https://", "git://", "git@", "github.com/"))


# -- a directory


def read_directory(directory: str, *, file: str, dockerfile: bytes | None = None) -> Local:
    """List a context. Raises Exit naming what cannot be read.

    file: what -f says, relative to the working directory, "" for the Dockerfile in the context. dockerfile: its text
    when it came from stdin; `file` is then ignored.
    """
    if not os.path.isdir(directory):
        raise _cannot(f"context must be a directory: {os.path.abspath(directory)}")
    root = os.path.realpath(directory)
    if dockerfile is not None:
        path, name = "", ""
    else:
        path, name = find_dockerfile(root, file)
        if not name:
            dockerfile = _read_text(path, "Dockerfile")
    text, used = read_rules(root, path)
    try:
        ignore = read_ignore(text)
    except Exception as error:
        raise exits.Exit(exits.FAILED, f"error checking context: {used}: {error}") from None
    kept = {IGNORE, name, f"{name}{IGNORE}"} if name else {IGNORE}
    if dockerfile is None:
        return Local(root=root, entries=tuple(walk(root, ignore, kept)), dockerfile=name)
    # The engine drops what .dockerignore names once it has read it, so the Dockerfile that is added is not in a COPY.
    temporary = f"{_TEMPORARY}{secrets.token_hex(10)}"
    extra = {IGNORE: (text if used else IGNORE.encode()) + f"\n{temporary}\n".encode(), temporary: dockerfile}
    found = list(walk(root, ignore, kept))
    modes = {entry.name: stat.S_IMODE(entry.status.st_mode) for entry in found if entry.name in extra}
    entries = tuple(entry for entry in found if entry.name not in extra)
    return Local(root=root, entries=entries, dockerfile=temporary, extra=extra, modes=modes)


def read_named(directory: str, prefix: str) -> Local:
    """List a further context, whose names get `prefix` before them. Its `.dockerignore` holds. Raises Exit."""
    root = os.path.realpath(directory)
    text, used = read_rules(root, "")
    try:
        ignore = read_ignore(text)
    except Exception as error:
        raise exits.Exit(exits.FAILED, f"error checking context: {used}: {error}") from None
    return Local(root=root, entries=tuple(walk(root, ignore, set())), dockerfile="", prefix=f"{prefix}/")


def find_dockerfile(root: str, file: str) -> tuple[str, str]:
    """Where the Dockerfile is: (path without links, its name in the context or "" when it is outside). Raises Exit."""
    path = os.path.abspath(file) if file else os.path.join(root, DOCKERFILE)
    if not file and not os.path.lexists(path) and os.path.lexists(os.path.join(root, DOCKERFILE.lower())):
        path = os.path.join(root, DOCKERFILE.lower())
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as error:
        raise _cannot(f"unable to evaluate symlinks in Dockerfile path: lstat {path}: {_reason(error)}") from None
    if not os.path.isfile(real):
        raise _cannot(f"the Dockerfile {path} is not a regular file")
    below = root.rstrip("/") + "/"
    return real, real.removeprefix(below) if real.startswith(below) else ""


def read_rules(root: str, dockerfile: str) -> tuple[bytes, str]:
    """The text of `<Dockerfile>.dockerignore` or else `.dockerignore`, and its path; both empty when there is none."""
    for path in ([dockerfile + IGNORE] if dockerfile else []) + [os.path.join(root, IGNORE)]:
        if os.path.isfile(path):
            return _read_text(path, IGNORE), path
    return b"", ""


def _read_text(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _cannot(f"unable to open {what}: open {path}: {_reason(error)}") from None


def walk(root: str, ignore: Ignore, kept: set[str]) -> Iterator[Entry]:
    """The entries of a directory in the order of their names, depth first. Raises Exit for what cannot be read.

    kept: names that are sent whatever the rules say. A directory that is left out is entered only where a rule, or
    `kept`, can put back something in it; it is then not sent itself.
    """
    rescues = any(rule.keeps for rule in ignore.rules)
    seen: dict[tuple[int, int], str] = {}

    def visit(directory: str) -> Iterator[Entry]:
        try:
            names = sorted(os.listdir(os.path.join(root, directory)))
        except OSError as error:
            raise _unreadable(os.path.join(root, directory), error) from None
        for last in names:
            name = posixpath.join(directory, last)
            out = bool(ignore) and name not in kept and ignore.leaves_out(name)
            if out and not rescues and not any(other.startswith(f"{name}/") for other in kept):
                continue
            path = os.path.join(root, name)
            try:
                status = os.lstat(path)
            except OSError as error:
                raise _unreadable(path, error) from None
            if not out and not stat.S_ISSOCK(status.st_mode):
                yield _entry(path, name, status)
            if stat.S_ISDIR(status.st_mode):
                yield from visit(name)

    def _entry(path: str, name: str, status: os.stat_result) -> Entry:
        if not stat.S_ISREG(status.st_mode):
            return Entry(name, status)
        if not os.access(path, os.R_OK, effective_ids=True):
            raise exits.Exit(exits.FAILED, f"error checking context: no permission to read from '{path}'")
        if status.st_nlink == 1:
            return Entry(name, status)
        first = seen.setdefault((status.st_dev, status.st_ino), name)
        return Entry(name, status, "" if first == name else first)

    yield from visit("")


def _unreadable(path: str, error: OSError) -> exits.Exit:
    if isinstance(error, PermissionError):
        return exits.Exit(exits.FAILED, f"error checking context: can't stat '{path}'")
    return exits.Exit(exits.FAILED, f"error checking context: {path}: {_reason(error)}")


# -- the tar


def pack(*contexts: Local) -> Iterator[bytes]:
    """The tar of a context and further ones, piece by piece. Raises Exit when a file is not what was listed any more."""
    for context in contexts:
        yield from _pack(context)
    yield _END


def _pack(context: Local) -> Iterator[bytes]:
    for entry in context.entries:
        header = _header(entry)
        header.name = context.prefix + header.name
        if header.type == tarfile.LNKTYPE:
            header.linkname = context.prefix + header.linkname
        if header.type == tarfile.REGTYPE:
            yield from _file(context.root, entry, header)
        else:
            if header.type == tarfile.SYMTYPE:
                header.linkname = _target(os.path.join(context.root, entry.name))
            yield _bytes(header)
    for name, data in context.extra.items():
        header = tarfile.TarInfo(name)
        header.size, header.mtime = len(data), int(time.time())
        header.mode = context.modes.get(name, 0o600)
        yield _bytes(header) + data + bytes(-len(data) % _BLOCK)


def _bytes(header: tarfile.TarInfo) -> bytes:
    return header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _header(entry: Entry) -> tarfile.TarInfo:
    status = entry.status
    found = tarfile.TarInfo(entry.name)
    found.mode, found.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    if entry.link:
        found.type, found.linkname = tarfile.LNKTYPE, entry.link
    elif stat.S_ISDIR(status.st_mode):
        found.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        found.type = tarfile.SYMTYPE
    elif stat.S_ISFIFO(status.st_mode):
        found.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        found.type = tarfile.CHRTYPE if stat.S_ISCHR(status.st_mode) else tarfile.BLKTYPE
        found.devmajor, found.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    else:
        found.size = status.st_size
    return found


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError as error:
        raise exits.Exit(exits.FAILED, f"cannot send {path}: {_reason(error)}") from None


def _file(root: str, entry: Entry, header: tarfile.TarInfo) -> Iterator[bytes]:
    path = os.path.join(root, entry.name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise exits.Exit(exits.FAILED, f"cannot send {path}: {_reason(error)}") from None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        now = os.fstat(descriptor)
        # A link put in place of a directory above it would lead out of the context: the file itself must be the same.
        if (now.st_dev, now.st_ino) != (entry.status.st_dev, entry.status.st_ino):
            raise exits.Exit(exits.FAILED, f"cannot send {path}: it was replaced meanwhile")
        header.size = now.st_size
        if header.mode & 0o111 and (value := _capability(descriptor)):
            header.pax_headers = {f"SCHILY.xattr.{_CAPABILITY}": value.decode("utf-8", "surrogateescape")}
        yield _bytes(header)
        left = now.st_size
        while left:
            try:
                data = file.read(min(left, _PIECE))
            except OSError as error:
                raise exits.Exit(exits.FAILED, f"cannot send {path}: {_reason(error)}") from None
            if not data:
                raise exits.Exit(exits.FAILED, f"cannot send {path}: it became shorter while it was read")
            left -= len(data)
            yield data
        yield bytes(-now.st_size % _BLOCK)


def _capability(descriptor: int) -> bytes:
    try:
        return os.getxattr(descriptor, _CAPABILITY)
    except OSError:
        return b""  # none, or a file system without them


def single(name: str, data: bytes) -> Iterator[bytes]:
    """A tar of one file."""
    yield from pack(Local(root="", entries=(), dockerfile=name, extra={name: data}, modes={name: 0o644}))


def compressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The stream in gzip's form."""
    import zlib

    deflate = zlib.compressobj(wbits=31)
    for piece in pieces:
        if data := deflate.compress(piece):
            yield data
    yield deflate.flush()


class Stream:
    """Pieces as a readable that counts. `error` is what stopped it: the engine then only sees a cut connection."""

    def __init__(self, pieces: Iterator[bytes], add: Callable[[int], None] = lambda _: None) -> None:
        self._pieces = pieces
        self._add = add
        self._buffer = b""
        self.count = 0
        self.error: BaseException | None = None

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, small pieces put together; b"" at the end."""
        parts, length = [self._buffer], len(self._buffer)
        try:
            while length < size and (piece := next(self._pieces, None)) is not None:
                parts.append(piece)
                length += len(piece)
        except BaseException as error:
            self.error = error
            raise
        data = b"".join(parts)
        data, self._buffer = data[:size], data[size:]
        self.count += len(data)
        self._add(len(data))
        return data


# -- stdin


def is_archive(head: bytes) -> bool:
    """Whether a stream that begins so is a tar, compressed or not, and no Dockerfile."""
    if head.startswith(_COMPRESSED):
        return True
    try:
        tarfile.TarInfo.frombuf(head[:_BLOCK].ljust(_BLOCK, b"\xff"), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return bool(head) and not head.strip(b"\0")  # nothing but zeros: a tar without entries
    return True


def read_stdin(source: IO[bytes]) -> tuple[bool, Iterator[bytes]]:
    """Whether stdin is an archive, and its bytes from the beginning."""
    head = b""
    while len(head) < _BLOCK and (data := source.read(_BLOCK - len(head))):
        head += data

    def pieces() -> Iterator[bytes]:
        yield head
        while data := source.read(_PIECE):
            yield data

    return is_archive(head), pieces()
