"""The safe extractor: members of a tar become files below one directory, and nowhere else.

Rules (SECURITY-BASELINE, "Archive extraction"): parents are opened component by component without following links;
a link in the way is followed only inside the root and only to a directory, anything else in the way is replaced;
files are unlinked, then created O_EXCL|O_NOFOLLOW; whiteouts come from names only and never touch members of the same
layer; owners, modes and times are set on descriptors, those of directories last.

Few system calls per file: the chain of open parents is kept, so a member next to the last one costs
open, write, (fchown), utime, close.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct, field

from tare.drivers import linux
from tare.drivers.archive import tar
from tare.drivers.archive.tar import ArchiveError, Entry, Source

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_META = b".wh..wh."

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITEBACK_FROM = 4 * 1024 * 1024
_DISK_CHECK_EVERY = 64 * 1024 * 1024
_DISK_KEEP = 20  # one in so many blocks stays free: 5 %

Path = tuple[bytes, ...]


class Totals(Struct):
    """What an extraction made. `opaque`: directories (relative paths) that hide what lies below them."""

    entries: int = 0
    files_bytes: int = 0
    has_root: bool = False  # the archive says who owns the root directory
    opaque: list[str] = field(default_factory=list)


class Extractor:
    """Extracts into `root_fd`, a fresh directory nobody else uses. Not reusable after an error.

    With `merge` the directory is one in the tree of a container that may run and change it meanwhile. The process must
    then be chrooted to the container's root: links in the way of a member are followed as the container would.
    """

    def __init__(
        self,
        root_fd: int,
        *,
        whiteouts: bool = True,
        devices: bool = True,
        owners: bool = True,
        keep_free: bool = True,
        merge: bool = False,
        keeps_kinds: bool = False,
        owner: Sequence[int] | None = None,
    ) -> None:
        """whiteouts: read `.wh.` names as a layer does; devices: make device nodes; owners: chown, xattrs.

        keeps_kinds: refuse to put a directory where something else is, and the other way round.
        owner: (uid, gid) of everything, whatever the archive says.
        """
        self._root = root_fd
        self._whiteouts = whiteouts
        self._devices = devices
        self._owners = owners
        self._keep_free = keep_free
        self._merge = merge
        self._keeps_kinds = keeps_kinds
        self._owner = owner
        self._chain: list[tuple[bytes, int]] = []  # open parents below the root, outermost first
        self._late: dict[Path, Entry] = {}
        self._opaque: set[Path] = set()
        self._gone: set[Path] = set()
        self._since_check = 0
        self.totals = Totals()

    def run(self, source: Source) -> Totals:
        """Extract everything and finish directories. Raises ArchiveError; OSError only for a failing disk."""
        os.umask(0)
        entry = None
        try:
            for entry in tar.read_entries(source):
                self.add(entry, source)
            entry = None
            self._finish()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
                raise
            where = entry.name.decode(errors="backslashreplace")[:200] if entry else "archive"
            raise ArchiveError(f"cannot extract {where!r}: {os.strerror(error.errno or 0)}") from error
        finally:
            self._cut(0)
        self.totals.opaque = sorted(os.fsdecode(b"/".join(path)) for path in self._opaque)
        return self.totals

    # -- one member ---------------------------------------------------------------------------------------------------

    def add(self, entry: Entry, source: Source) -> None:
        """Extract one member, reading its data from `source`."""
        parts = tar.clean_name(entry.name)
        self.totals.entries += 1
        if self._owner is not None:
            entry.uid, entry.gid = self._owner
        if not parts:
            if entry.kind == tar.DIR and not self._merge:
                self._late[()] = entry
                self.totals.has_root = True
            return
        path, name = tuple(parts), parts[-1]
        if self._whiteouts and name.startswith(WHITEOUT):
            self._whiteout(path, name)
            return
        if self._whiteouts and any(part.startswith(WHITEOUT) for part in parts):
            raise ArchiveError(f"invalid whiteout in {os.fsdecode(entry.name)!r}")
        parent = self._parent(parts)
        if entry.kind == tar.FILE:
            self._file(entry, source, parent, path)
        elif entry.kind == tar.DIR:
            self._directory(parent, path)
            self._late[path] = entry
        elif entry.kind == tar.SYMLINK:
            if not entry.linkname or b"\0" in entry.linkname:
                raise ArchiveError(f"invalid symlink {os.fsdecode(entry.name)!r}")
            with self._room(parent, path):
                os.symlink(entry.linkname, name, dir_fd=parent)
            self._finish_node(entry, parent, name)
        elif entry.kind == tar.LINK:
            self._link(entry, parent, path)
        else:
            self._node(entry, parent, path)

    def _file(self, entry: Entry, source: Source, parent: int, path: Path) -> None:
        name = path[-1]
        mode = entry.mode & 0o777
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, path)
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        try:
            if entry.size:
                self._check_disk(entry.size)
                for span in source.spans(entry.size):
                    while span:
                        span = span[os.write(fd, span) :]
                self.totals.files_bytes += entry.size
            self._finish_fd(entry, fd)
            if entry.size >= _WRITEBACK_FROM:
                linux.start_writeback(fd)
        finally:
            os.close(fd)

    def _finish_fd(self, entry: Entry, fd: int) -> None:
        if self._owners:
            if entry.uid or entry.gid or self._merge:
                os.fchown(fd, entry.uid, entry.gid)
            if entry.xattrs:
                _set_xattrs(entry, fd)
            if entry.mode & 0o7000 or entry.kind == tar.DIR:
                os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _finish_node(self, entry: Entry, parent: int, name: bytes) -> None:
        """Owner, mode and time of what cannot be opened; `name` was just created by us in `parent`."""
        if self._owners and (entry.uid or entry.gid or self._merge):
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if self._owners and entry.kind != tar.SYMLINK and entry.mode & 0o7000:
            os.chmod(name, entry.mode, dir_fd=parent)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _node(self, entry: Entry, parent: int, path: Path) -> None:
        kind = {tar.CHAR: stat.S_IFCHR, tar.BLOCKDEV: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}[entry.kind]
        if entry.kind != tar.FIFO:
            if not self._devices:
                raise ArchiveError(f"device {os.fsdecode(entry.name)!r} is not allowed here")
            if entry.major == 0 and entry.minor == 0:
                raise ArchiveError(f"device {os.fsdecode(entry.name)!r} has number 0:0")
        with self._room(parent, path):
            number = os.makedev(entry.major, entry.minor) if entry.kind != tar.FIFO else 0
            os.mknod(path[-1], kind | (entry.mode & 0o777), number, dir_fd=parent)
        self._finish_node(entry, parent, path[-1])

    def _link(self, entry: Entry, parent: int, path: Path) -> None:
        target = tar.clean_name(entry.linkname)
        shown = os.fsdecode(entry.linkname)
        if not target:
            raise ArchiveError(f"invalid hardlink to {shown!r}")
        if tuple(target) == path:
            return
        kept = os.dup(parent)  # finding the target may close the chain that `parent` belongs to
        try:
            source = self._find(target[:-1])
            try:
                there = os.stat(target[-1], dir_fd=source, follow_symlinks=False)
                if not stat.S_ISREG(there.st_mode) and not stat.S_ISFIFO(there.st_mode) and not there.st_rdev:
                    raise ArchiveError(f"invalid hardlink {os.fsdecode(entry.name)!r} to {shown!r}: not a file")
                with self._room(kept, path):
                    os.link(target[-1], path[-1], src_dir_fd=source, dst_dir_fd=kept, follow_symlinks=False)
            finally:
                os.close(source)
        except FileNotFoundError:
            raise ArchiveError(f"invalid hardlink {os.fsdecode(entry.name)!r}: no {shown!r} before it") from None
        finally:
            os.close(kept)

    def _find(self, parts: list[bytes]) -> int:
        """A new descriptor of an existing directory inside the root; links resolve inside the root."""
        if self._merge:
            return self._follow(self._root, b"/".join(parts) or b".")
        return linux.open_in_root(self._root, b"/".join(parts) or b".", os.O_RDONLY | os.O_DIRECTORY)

    @staticmethod
    def _follow(directory: int, path: bytes) -> int:
        """Open a directory as the chrooted process sees it: any link that stays in the container is good."""
        return linux.openat2(directory, path, os.O_RDONLY | os.O_DIRECTORY, resolve=linux.RESOLVE_NO_MAGICLINKS)

    # -- whiteouts ----------------------------------------------------------------------------------------------------

    def _whiteout(self, path: Path, name: bytes) -> None:
        if name == OPAQUE:
            if len(path) > 1:
                self._parent(list(path))
            self._opaque.add(path[:-1])
            return
        if name.startswith(_META):
            return  # aufs housekeeping, no content
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise ArchiveError(f"invalid whiteout {os.fsdecode(b'/'.join(path))!r}")
        parent = self._parent(list(path))
        target = (*path[:-1], hidden)
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
            self._gone.add(target)
        except FileExistsError:
            # The layer has its own member of that name: it stays, and if it is a directory it starts empty.
            if stat.S_ISDIR(os.stat(hidden, dir_fd=parent, follow_symlinks=False).st_mode):
                self._opaque.add(target)

    # -- directories --------------------------------------------------------------------------------------------------

    def _parent(self, parts: list[bytes]) -> int:
        """The open directory a member lives in; made where missing."""
        chain = self._chain
        depth = len(parts) - 1
        same = 0
        while same < depth and same < len(chain) and chain[same][0] == parts[same]:
            same += 1
        if same < len(chain):
            self._cut(same)
        while same < depth:
            parent = chain[-1][1] if chain else self._root
            chain.append((parts[same], self._enter(parent, tuple(parts[: same + 1]))))
            same += 1
        return chain[-1][1] if chain else self._root

    def _enter(self, parent: int, path: Path) -> int:
        name = path[-1]
        for _ in range(3):
            try:
                return os.open(name, _DIRECTORY, dir_fd=parent)
            except FileNotFoundError:
                os.mkdir(name, 0o755, dir_fd=parent)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                if self._merge:
                    return self._follow(parent, name)
                if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    try:
                        return self._find(list(path))
                    except OSError:
                        pass  # dangling, or no directory: it is in the way
                self._remove(parent, path)
                os.mkdir(name, 0o755, dir_fd=parent)
        raise ArchiveError(f"cannot make directory {os.fsdecode(b'/'.join(path))!r}")

    def _directory(self, parent: int, path: Path) -> None:
        try:
            os.mkdir(path[-1], 0o755, dir_fd=parent)
        except FileExistsError:
            found = os.stat(path[-1], dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                if self._keeps_kinds:
                    raise ArchiveError(
                        f'cannot overwrite non-directory "{os.fsdecode(path[-1])}" with directory'
                    ) from None
                self._remove(parent, path)
                os.mkdir(path[-1], 0o755, dir_fd=parent)

    def _cut(self, depth: int) -> None:
        while len(self._chain) > depth:
            os.close(self._chain.pop()[1])

    @contextmanager
    def _room(self, parent: int, path: Path) -> Iterator[None]:
        """Clear the name first if something has it (known without trying: creation below is exclusive)."""
        try:
            os.stat(path[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            self._clear(parent, path)
        yield

    def _clear(self, parent: int, path: Path) -> None:
        """Remove what has the name, and forget what we knew about it."""
        if self._keeps_kinds and stat.S_ISDIR(os.stat(path[-1], dir_fd=parent, follow_symlinks=False).st_mode):
            raise ArchiveError(f'cannot overwrite directory "{os.fsdecode(path[-1])}" with non-directory')
        self._remove(parent, path)
        self._gone.discard(path)

    def _remove(self, parent: int, path: Path) -> None:
        name = path[-1]
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            if len(self._chain) >= len(path) and tuple(part for part, _ in self._chain[: len(path)]) == path:
                self._cut(len(path) - 1)
            _remove_tree(parent, name)
            for known in [p for p in self._late if p[: len(path)] == path]:
                del self._late[known]
            self._opaque = {p for p in self._opaque if p[: len(path)] != path}
            self._gone = {p for p in self._gone if p[: len(path)] != path}
        else:
            os.unlink(name, dir_fd=parent)
            if path in self._gone:  # a whiteout gives way to a member: a directory there starts empty
                self._gone.discard(path)
                self._opaque.add(path)

    def _finish(self) -> None:
        for path in sorted(self._late, reverse=True):  # children first: touching a child changes its parent's time
            entry = self._late[path]
            if not path:
                self._finish_fd(entry, self._root)
                continue
            parent = self._parent(list(path))
            fd = os.open(path[-1], _DIRECTORY, dir_fd=parent)
            try:
                self._finish_fd(entry, fd)
            finally:
                os.close(fd)
        self._opaque = {path for path in self._opaque if self._is_directory(path)}

    def _is_directory(self, path: Path) -> bool:
        try:
            os.close(linux.open_in_root(self._root, b"/".join(path) or b".", _DIRECTORY))
        except OSError:
            return False
        return True

    def _check_disk(self, coming: int) -> None:
        self._since_check += coming
        if self._keep_free and (coming > _DISK_CHECK_EVERY or self._since_check > _DISK_CHECK_EVERY):
            self._since_check = 0
            disk = os.fstatvfs(self._root)
            if disk.f_bavail * disk.f_frsize - coming < disk.f_blocks * disk.f_frsize // _DISK_KEEP:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _set_xattrs(entry: Entry, fd: int) -> None:
    for key, value in entry.xattrs.items():
        if key.startswith(b"user.") or key == b"security.capability":
            try:
                os.setxattr(fd, key, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise


def _remove_tree(parent: int, name: bytes) -> None:
    """Remove a directory below `parent` by descriptors, without recursion and without following links."""
    stack = [(name, os.open(name, _DIRECTORY, dir_fd=parent))]
    try:
        while stack:
            fd = stack[-1][1]
            inner = None
            for child in os.listdir(fd):
                raw = os.fsencode(child)
                if stat.S_ISDIR(os.stat(raw, dir_fd=fd, follow_symlinks=False).st_mode):
                    inner = raw
                    break
                os.unlink(raw, dir_fd=fd)
            if inner is not None:
                stack.append((inner, os.open(inner, _DIRECTORY, dir_fd=fd)))
                continue
            done, fd = stack.pop()
            os.close(fd)
            os.rmdir(done, dir_fd=stack[-1][1] if stack else parent)
    finally:
        for _, fd in stack:
            os.close(fd)
