"""The verifier: whether a directory tree is still what unpacking a layer made of it.

Nothing is written. The layer's tar is read as the extractor reads it, into a tree of small records instead of files;
then the directory is walked beside that tree. Compared are names, kinds, modes, owners, sizes, contents (by sha256),
link texts, device numbers, file capabilities and the marks of overlayfs; not times, which a build with
SOURCE_DATE_EPOCH writes differently, and not sockets, which a tar cannot hold.
Runs in the archive worker: the tar is one nobody vouches for.
"""

from __future__ import annotations

import hashlib
import os
import stat

from msgspec import Struct, field

from tare.drivers.archive import tar
from tare.drivers.archive.extract import OPAQUE, WHITEOUT
from tare.drivers.archive.pipeline import open_source
from tare.drivers.archive.tar import ArchiveError, Entry, Source

_META = b".wh..wh."
_OPAQUE_XATTR = "trusted.overlay.opaque"
_CAPABILITY = "security.capability"
_CAPABILITY_2_BYTES = 20  # of the revision without a user namespace's root, which the kernel rewrites
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ = 1024 * 1024
_MAX_LINKS = 40
_SHOWN = 20

Path = tuple[bytes, ...]


class Node(Struct, eq=False):
    """What one path must be. children: None for anything but a directory."""

    kind: bytes
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    digest: bytes = b""
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    capability: bytes = b""
    is_opaque: bool = False
    children: dict[bytes, Node] | None = None


def _directory() -> Node:
    return Node(tar.DIR, children={})


def _whiteout() -> Node:
    return Node(tar.CHAR, 0)


def _is_whiteout(node: Node) -> bool:
    return node.kind == tar.CHAR and node.device == (0, 0)


class Expected:
    """The tree that `Extractor` would make of a layer, without files. `has_root`: the layer says who owns its root."""

    def __init__(self) -> None:
        self.root = _directory()
        self.has_root = False
        self._late: dict[Path, Entry] = {}
        self._opaque: set[Path] = set()
        self._gone: set[Path] = set()

    def read(self, source: Source) -> None:
        """Take in every member. Raises ArchiveError."""
        for entry in tar.read_entries(source):
            self._add(entry, source)
        for path in sorted(self._late, reverse=True):
            node = self._walk(path[:-1]).get(path[-1]) if path else self.root
            if node is not None and node.children is not None:
                _attributes(node, self._late[path])
        for path in self._opaque:  # the extractor marks directories, and no link that leads to one
            parent = self._resolve(list(path[:-1]))
            found = (parent.children or {}).get(path[-1]) if path and parent is not None else self.root
            if found is not None and found.children is not None:
                found.is_opaque = True

    def _add(self, entry: Entry, source: Source) -> None:
        parts = tar.clean_name(entry.name)
        if not parts:
            if entry.kind == tar.DIR:
                self._late[()] = entry
                self.has_root = True
            return
        path, name = tuple(parts), parts[-1]
        if name.startswith(WHITEOUT):
            self._hide(path, name)
            return
        siblings = self._walk(path[:-1])
        if entry.kind == tar.DIR:
            there = siblings.get(name)
            if there is None or there.children is None:
                self._clear(siblings, path)
                siblings[name] = _directory()
            self._late[path] = entry
            return
        if entry.kind == tar.LINK:
            self._link(entry, siblings, path)
            return
        node = Node(entry.kind, target=entry.linkname if entry.kind == tar.SYMLINK else b"")
        if entry.kind in (tar.CHAR, tar.BLOCKDEV):
            node.device = (entry.major, entry.minor)
        if entry.kind == tar.FILE:
            node.size = entry.size
            digest = hashlib.sha256()
            for span in source.spans(entry.size):
                digest.update(span)
            node.digest = digest.digest()
        _attributes(node, entry)
        self._clear(siblings, path)
        siblings[name] = node

    def _link(self, entry: Entry, siblings: dict[bytes, Node], path: Path) -> None:
        target = tar.clean_name(entry.linkname)
        if not target:
            raise ArchiveError(f"invalid hardlink to {os.fsdecode(entry.linkname)!r}")
        if tuple(target) == path:
            return
        directory = self._resolve(target[:-1])
        found = directory.children.get(target[-1]) if directory is not None and directory.children is not None else None
        if found is None or found.children is not None:
            raise ArchiveError(f"invalid hardlink to {os.fsdecode(entry.linkname)!r}")
        if siblings.get(path[-1]) is found:
            return
        self._clear(siblings, path)
        siblings[path[-1]] = found

    def _hide(self, path: Path, name: bytes) -> None:
        if name == OPAQUE:
            self._walk(path[:-1])
            self._opaque.add(path[:-1])
            return
        if name.startswith(_META):
            return
        hidden = name[len(WHITEOUT) :]
        siblings, target = self._walk(path[:-1]), (*path[:-1], hidden)
        there = siblings.get(hidden)
        if there is None:
            siblings[hidden] = _whiteout()
            self._gone.add(target)
        elif there.children is not None:
            self._opaque.add(target)

    def _walk(self, path: Path) -> dict[bytes, Node]:
        """The directory a member lives in; made where missing, as the extractor makes it."""
        here = self.root
        for depth, part in enumerate(path, 1):
            children = here.children
            assert children is not None
            found = children.get(part)
            if found is not None and found.kind == tar.SYMLINK:
                led = self._resolve(list(path[:depth]))
                if led is not None:
                    here = led
                    continue
            if found is None or found.children is None:
                if found is not None:
                    self._clear(children, path[:depth])
                found = children[part] = _directory()
            here = found
        assert here.children is not None
        return here.children

    def _resolve(self, parts: list[bytes]) -> Node | None:
        """The directory a path leads to, links followed inside the root; None where the kernel would refuse."""
        stack, rest, links = [self.root], parts[::-1], 0
        while rest:
            part = rest.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                stack = stack[:-1] or [self.root]
                continue
            children = stack[-1].children
            found = children.get(part) if children is not None else None
            if found is None:
                return None
            if found.kind == tar.SYMLINK:
                links += 1
                if links > _MAX_LINKS:
                    return None
                if found.target.startswith(b"/"):
                    stack = [self.root]
                rest += found.target.split(b"/")[::-1]
                continue
            if found.children is None:
                return None
            stack.append(found)
        return stack[-1]

    def _clear(self, siblings: dict[bytes, Node], path: Path) -> None:
        """Something else takes the name: forget what was there, as the extractor does."""
        there = siblings.pop(path[-1], None)
        if there is None:
            return
        if there.children is not None:
            self._late = {p: entry for p, entry in self._late.items() if p[: len(path)] != path}
            self._opaque = {p for p in self._opaque if p[: len(path)] != path}
            self._gone = {p for p in self._gone if p[: len(path)] != path}
        elif path in self._gone:
            self._gone.discard(path)
            self._opaque.add(path)


def _attributes(node: Node, entry: Entry) -> None:
    node.mode, node.uid, node.gid = entry.mode, entry.uid, entry.gid
    if entry.kind in (tar.FILE, tar.DIR):
        node.capability = entry.xattrs.get(_CAPABILITY.encode(), b"")


class Problems(Struct):
    """What differs: the first few paths with what is wrong with them, and how many there are."""

    count: int = 0
    shown: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: bytes, what: str) -> None:
        """Note one."""
        self.count += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(("/" + path.decode(errors="backslashreplace"), what))


def compare(expected: Expected, root_fd: int) -> Problems:
    """Walk the directory beside the tree. Raises OSError for a disk that cannot be read."""
    problems = Problems()
    if expected.has_root:
        _compare_attributes(expected.root, os.fstat(root_fd), b"", problems)
    pending: list[tuple[Path, Node]] = [((), expected.root)]
    while pending:
        path, node = pending.pop()
        fd = _open_below(root_fd, path)
        try:
            _compare_directory(node, fd, path, problems, pending)
        finally:
            os.close(fd)
    return problems


def _open_below(root_fd: int, path: Path) -> int:
    fd = os.dup(root_fd)
    for part in path:
        inner = os.open(part, _DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    return fd


def _compare_directory(node: Node, fd: int, path: Path, problems: Problems, pending: list[tuple[Path, Node]]) -> None:
    assert node.children is not None
    if path and node.is_opaque != _has_opaque(fd):
        problems.add(
            b"/".join(path), "hides what lies below" if not node.is_opaque else "does not hide what lies below"
        )
    there = {os.fsencode(name) for name in os.listdir(fd)}
    for name in sorted(there | set(node.children)):
        inner, shown = (*path, name), b"/".join((*path, name))
        wanted = node.children.get(name)
        if name not in there:
            problems.add(shown, "is missing")
            continue
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if wanted is None:
            if not stat.S_ISSOCK(found.st_mode):
                problems.add(shown, "is not of the layer")
            continue
        if tar.kind_of(found.st_mode) != wanted.kind:
            problems.add(shown, "is of another kind")
            continue
        if wanted.children is not None:
            _compare_attributes(wanted, found, shown, problems)
            pending.append((inner, wanted))
        elif not _is_whiteout(wanted):
            _compare_attributes(wanted, found, shown, problems)
            _compare_content(wanted, fd, name, found, shown, problems)
        elif found.st_rdev:
            problems.add(shown, "is of another kind")


def _compare_attributes(wanted: Node, found: os.stat_result, shown: bytes, problems: Problems) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if wanted.kind != tar.SYMLINK and mode != wanted.mode & 0o7777:
        problems.add(shown, f"mode {mode:04o} instead of {wanted.mode & 0o7777:04o}")
    if (found.st_uid, found.st_gid) != (wanted.uid, wanted.gid):
        problems.add(shown, f"owner {found.st_uid}:{found.st_gid} instead of {wanted.uid}:{wanted.gid}")


def _compare_content(
    wanted: Node, directory: int, name: bytes, found: os.stat_result, shown: bytes, problems: Problems
) -> None:
    if wanted.kind == tar.SYMLINK:
        if os.readlink(name, dir_fd=directory) != wanted.target:
            problems.add(shown, "leads elsewhere")
    elif wanted.kind in (tar.CHAR, tar.BLOCKDEV):
        if (os.major(found.st_rdev), os.minor(found.st_rdev)) != wanted.device:
            problems.add(shown, "is another device")
    elif wanted.kind == tar.FILE:
        if found.st_size != wanted.size:
            problems.add(shown, f"size {found.st_size} instead of {wanted.size}")
            return
        fd = os.open(name, _FILE, dir_fd=directory)
        try:
            digest = hashlib.sha256()
            while chunk := os.read(fd, _READ):
                digest.update(chunk)
            if digest.digest() != wanted.digest:
                problems.add(shown, "content differs")
            if _capability(fd) != (wanted.capability if len(wanted.capability) == _CAPABILITY_2_BYTES else b""):
                problems.add(shown, "file capabilities differ")
        finally:
            os.close(fd)


def _capability(fd: int) -> bytes:
    try:
        value = os.getxattr(fd, _CAPABILITY)
    except OSError:
        return b""
    return value if len(value) == _CAPABILITY_2_BYTES else b""


def _has_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE_XATTR) in (b"y", b"x")
    except OSError:
        return False


def verify(blob_fd: int, root_fd: int) -> dict[str, object]:
    """Read a layer's blob and compare the directory with it.

    `input_digest`, `input_size`, `plain_digest`: of the bytes of the blob; `wrong`: why it is no archive that can be read, ""
    if it is; `count` and `problems`: how many paths differ, and the first of them as [path, what].
    """
    expected = Expected()
    with open_source(blob_fd) as opened:
        wrong = ""
        try:
            expected.read(opened.source)
            opened.source.drain()
        except ArchiveError as error:
            wrong = str(error)
    found = Problems() if wrong else compare(expected, root_fd)
    return {
        "input_digest": "" if wrong else opened.input_digest,
        "input_size": 0 if wrong else opened.input_size,
        "plain_digest": "" if wrong else opened.plain_digest,
        "wrong": wrong,
        "count": found.count,
        "problems": [list(pair) for pair in found.shown],
    }
