"""What is different between two piles of snapshot directories, without mounting them.

Piles share directories where images share layers. A path that only shared directories have is the same in both, so only
what the others have is looked at: two images that differ in one small layer are compared as fast as that layer is walked.

Everything is opened beneath the directory of its layer and no link is followed, so a running container that exchanges
its files meanwhile leads nowhere; what disappears meanwhile counts as not there.
Source: kernel Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from tare.base.errors import InvalidArgument, NotFound
from tare.drivers import linux
from tare.oci.changeset import Change, Entry, change_of

_OPAQUE = "trusted.overlay.opaque"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_HANDLE = os.O_PATH | os.O_NOFOLLOW
_RESOLVE = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_MAGICLINKS | linux.RESOLVE_NO_SYMLINKS
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
_BLOCK = 1024 * 1024
_MAX_LINKS = 40
MAX_DEPTH = 256
_MAX_PATH = 4000  # openat2 takes 4095 bytes

OTHER = "other"  # `Entry.content` of a file whose bytes were compared, and are not those of the same path in `a`


class Directories:
    """Layer directories, opened as they are named and until `close`. One may be in many piles."""

    def __init__(self) -> None:
        self._fds: dict[Path, int] = {}

    def __enter__(self) -> Directories:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def open(self, layer: Path, path: str, flags: int) -> int:
        """Open an absolute path beneath a layer's directory. Raises OSError."""
        if layer not in self._fds:
            self._fds[layer] = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return linux.openat2(self._fds[layer], path.lstrip("/") or ".", flags, resolve=_RESOLVE)


class Place(Struct, frozen=True):
    """What a pile has at a path: the layer it comes from and the layers whose directories are merged there, top first."""

    layer: Path
    status: os.stat_result
    merged: tuple[Path, ...] = ()

    @property
    def is_directory(self) -> bool:
        """Whether something can be below it."""
        return stat.S_ISDIR(self.status.st_mode)


@contextlib.contextmanager
def _all(directories: Directories, layers: Sequence[Path], path: str) -> Iterator[dict[Path, int]]:
    """The directory `path` of each layer; those that are gone are left out."""
    fds: dict[Path, int] = {}
    try:
        for layer in dict.fromkeys(layers):
            with _gone_is_nothing():
                fds[layer] = directories.open(layer, path, _DIRECTORY)
        yield fds
    finally:
        for fd in fds.values():
            os.close(fd)


@contextlib.contextmanager
def _gone_is_nothing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise


def _below(name: str, layers: Sequence[Path], fds: dict[Path, int]) -> Place | None:
    """What `name` is in a directory that is merged of those of `layers`, top first."""
    first: tuple[Path, os.stat_result] | None = None
    merged: list[Path] = []
    for layer in layers:
        if layer not in fds:
            continue
        try:
            found = os.stat(name, dir_fd=fds[layer], follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            break
        if first is None:
            first = (layer, found)
        if not stat.S_ISDIR(found.st_mode):
            break
        merged.append(layer)
        if _is_opaque(fds[layer], name):
            break
    if first is None:
        return None
    is_directory = stat.S_ISDIR(first[1].st_mode)
    return Place(*first, tuple(merged) if is_directory else ())


def _is_opaque(directory: int, name: str) -> bool:
    # In a running container's layer the name may be a link by now: it is not followed.
    try:
        return os.getxattr(f"/proc/self/fd/{directory}/{name}", _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


class Pile:
    """The directories of a file system, top first, and how to look into it."""

    def __init__(self, directories: Directories, layers: Sequence[Path]) -> None:
        self.layers = tuple(layers)
        self._directories = directories

    def root(self) -> Place | None:
        """The root directory; None for the empty pile."""
        if not self.layers:
            return None
        return Place(self.layers[0], os.stat(self.layers[0], follow_symlinks=False), self.layers)

    def at(self, path: str) -> Place | None:
        """What is at an absolute path of which no parent is a link."""
        here, done = self.root(), "/"
        for part in [part for part in path.split("/") if part]:
            if here is None or not here.is_directory:
                return None
            with _all(self._directories, here.merged, done) as fds:
                here = _below(part, here.merged, fds)
            done = posixpath.join(done, part)
        return here

    def resolve(self, path: str, *, follow: bool = False) -> str:
        """The path with links in its parents followed inside of the pile; the last part as it is unless `follow`.

        What leads nowhere stays as written. Raises InvalidArgument for links in a circle and for what is too long.
        """
        parts = [part for part in path.split("/") if part not in ("", ".")][::-1]
        here, links = "/", 0
        while parts:
            part = parts.pop()
            if part == "..":
                here = posixpath.dirname(here)
                continue
            step = posixpath.join(here, part)
            if len(os.fsencode(step)) > _MAX_PATH or step.count("/") > MAX_DEPTH:
                raise InvalidArgument("the path is too long")
            found = self.at(step) if parts or follow else None
            if found is None or not stat.S_ISLNK(found.status.st_mode):
                here = step
                continue
            links += 1
            if links > _MAX_LINKS:
                raise InvalidArgument(f"{path}: too many levels of symbolic links")
            target = self.link(found, step)
            here = "/" if target.startswith("/") else here
            parts += [piece for piece in target.split("/") if piece not in ("", ".")][::-1]
        return here

    def names(self, path: str, place: Place) -> dict[str, Place]:
        """The members of a directory."""
        with _all(self._directories, place.merged, path) as fds:
            names = sorted({name for fd in fds.values() for name in os.listdir(fd)})
            found = {name: _below(name, place.merged, fds) for name in names}
        return {name: member for name, member in found.items() if member is not None}

    def link(self, place: Place, path: str) -> str:
        """Where a symbolic link leads; "" when it is gone."""
        with _gone_is_nothing():
            fd = self._directories.open(place.layer, posixpath.dirname(path), _DIRECTORY)
            try:
                return os.readlink(posixpath.basename(path), dir_fd=fd)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            finally:
                os.close(fd)
        return ""

    def open_file(self, place: Place, path: str) -> int:
        """A regular file, to be read; the caller closes it. Raises NotFound when it is gone or something else by now."""
        try:
            handle = self._directories.open(place.layer, path, _HANDLE)
        except OSError as error:
            if error.errno in _GONE:
                raise NotFound(f"{path} is not there any more") from None
            raise
        try:
            # A running container may have put a device there meanwhile: opening one can already do something.
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise NotFound(f"{path} is not a file any more")
            return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(handle)

    def read(self, place: Place, path: str, *, limit: int) -> bytes | None:
        """The bytes of a regular file; None when they are more than `limit`. Raises NotFound."""
        with os.fdopen(self.open_file(place, path), "rb") as file:
            data = file.read(limit + 1)
        return data if len(data) <= limit else None

    def entry(self, place: Place, path: str) -> Entry:
        """The attributes, without content. Size and time of what is no file are not compared by anyone."""
        found = place.status
        is_file = stat.S_ISREG(found.st_mode)
        return Entry(
            mode=found.st_mode,
            uid=found.st_uid,
            gid=found.st_gid,
            size=found.st_size if is_file else 0,
            mtime_ns=found.st_mtime_ns,
            target=self.link(place, path) if stat.S_ISLNK(found.st_mode) else "",
            rdev=found.st_rdev if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode) else 0,
            xattrs=self._xattrs(place, path) if is_file or place.is_directory else (),
        )

    def _xattrs(self, place: Place, path: str) -> tuple[tuple[str, bytes], ...]:
        """Those that a layer carries."""
        with _gone_is_nothing():
            handle = self._directories.open(place.layer, path, _HANDLE)
            file = f"/proc/self/fd/{handle}"
            try:
                names = sorted(n for n in os.listxattr(file) if n == "security.capability" or n.startswith("user."))
                return tuple((name, os.getxattr(file, name)) for name in names)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA):
                    raise
            finally:
                os.close(handle)
        return ()

    def __repr__(self) -> str:
        return f"Pile({len(self.layers)} directories)"


def difference(a: Pile, b: Pile, *, below: str = "/") -> Iterator[tuple[Change, Place | None, Place | None]]:
    """What makes `b` out of `a`, at `below` and under it, a directory before what is in it; with where both sides lie.

    Files are equal when their bytes are, which are read only if they come from different layers and are of one size.
    Raises OSError, InvalidArgument for a tree that is too deep.
    """
    yield from _walk(a, b, below, a.at(below), b.at(below))


def _walk(
    a: Pile, b: Pile, path: str, old: Place | None, new: Place | None
) -> Iterator[tuple[Change, Place | None, Place | None]]:
    pending: list[tuple[str, Place | None, Place | None]] = [(path, old, new)]
    while pending:
        path, old, new = pending.pop()
        if old == new:
            continue
        change = _compare(a, b, path, old, new)
        if change is not None:
            yield change, old, new
        before = old.merged if old is not None else ()
        after = new.merged if new is not None else ()
        if before == after:
            continue
        if path.count("/") >= MAX_DEPTH or len(os.fsencode(path)) > _MAX_PATH:
            raise InvalidArgument("directories are nested too deep")
        pending += _members(a, path, before, after)[::-1]


def _members(
    pile: Pile, path: str, before: tuple[Path, ...], after: tuple[Path, ...]
) -> list[tuple[str, Place | None, Place | None]]:
    """What may be different inside of a directory: what layers have that only one side has."""
    with _all(pile._directories, (*before, *after), path) as fds:
        shared = set(before) & set(after)
        names = {name for layer, fd in fds.items() if layer not in shared for name in os.listdir(fd)}
        return [
            (posixpath.join(path, name), _below(name, before, fds), _below(name, after, fds)) for name in sorted(names)
        ]


def _compare(a: Pile, b: Pile, path: str, old: Place | None, new: Place | None) -> Change | None:
    if old is not None and new is not None and old.layer == new.layer:
        return None  # a directory of which other parts are different
    before = a.entry(old, path) if old is not None else None
    after = b.entry(new, path) if new is not None else None
    if (
        before is not None
        and after is not None
        and old is not None
        and new is not None
        and stat.S_ISREG(before.mode)
        and stat.S_ISREG(after.mode)
        and before.size == after.size
        and not _same_bytes(a, b, path, old, new)
    ):
        after = replace(after, content=OTHER)
    return change_of(path, before, after)


def _same_bytes(a: Pile, b: Pile, path: str, old: Place, new: Place) -> bool:
    if (old.status.st_dev, old.status.st_ino) == (new.status.st_dev, new.status.st_ino) or not old.status.st_size:
        return True
    try:
        with os.fdopen(a.open_file(old, path), "rb", 0) as one, os.fdopen(b.open_file(new, path), "rb", 0) as other:
            while True:
                left, right = one.read(_BLOCK), other.read(_BLOCK)
                if left != right:
                    return False
                if not left:
                    return True
    except NotFound:
        return False
