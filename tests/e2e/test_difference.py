"""Random trees of every kind of file, as real layers: what `difference` finds leads from one to the other, and so does the
layer that a commit packs. Exercises `drivers/snapshots/difference`, packer, extractor and overlayfs together.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tare.drivers.archive.client import Archiver, Options
from tare.drivers.snapshots.difference import Directories, Pile, Place, difference
from tare.drivers.snapshots.overlay import OverlaySnapshotter
from tare.oci.changeset import ADDED, CHANGED, DELETED, Change, Entry, apply, diff, order

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

KINDS = (stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
MARK = "LINK"
ROOT = Entry(mode=stat.S_IFDIR | 0o755)
PLAIN_DIRECTORY = Entry(mode=stat.S_IFDIR | 0o755, mtime_ns=10**18)

names = st.sampled_from(("a", "b", "ab", "a-b", "\udcff\n", "é x"))
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(KINDS))
    mode = draw(st.sampled_from((0o644, 0o755, 0o4755, 0o2711, 0o1777)))
    content = draw(st.sampled_from(("", "one", "two", "three\n" * 5000))) if kind == stat.S_IFREG else ""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    if kind in (stat.S_IFREG, stat.S_IFDIR) and draw(st.booleans()):
        xattrs = (("user.note", draw(st.sampled_from((b"1", b"\0\xff")))),)
    if kind == stat.S_IFREG and draw(st.integers(0, 4)) == 0:
        xattrs = (("security.capability", CAPABILITY), *xattrs)
    return Entry(
        mode=kind | (0o777 if kind == stat.S_IFLNK else mode),
        uid=draw(st.sampled_from((0, 1000))),
        gid=draw(st.sampled_from((0, 7))),
        size=len(content),
        mtime_ns=draw(st.sampled_from((0, 1, 10**18 + 123456789))),
        target=draw(st.sampled_from(("a", "/nowhere", "../\udcfe"))) if kind == stat.S_IFLNK else "",
        rdev=draw(st.sampled_from((os.makedev(1, 3), os.makedev(7, 300))))
        if kind in (stat.S_IFCHR, stat.S_IFBLK)
        else 0,
        xattrs=xattrs,
        content=content,
        link=MARK if kind == stat.S_IFREG and draw(st.integers(0, 3)) == 0 else "",
    )


def complete(given: dict[str, Entry]) -> dict[str, Entry]:
    """A tree that can be: nothing below what is no directory, directories above everything, links to files there are."""
    tree = {"/": ROOT}
    for path in sorted(given, key=order):
        above = [path[:at] for at, char in enumerate(path) if char == "/" and at]
        if all(stat.S_ISDIR(tree.get(one, ROOT).mode) for one in above):
            tree |= {one: PLAIN_DIRECTORY for one in above if one not in tree}
            tree[path] = given[path]
    files = [path for path in sorted(tree, key=order) if stat.S_ISREG(tree[path].mode)]
    for path in files:
        if tree[path].link == MARK:
            tree[path] = replace(tree[files[0]], link=files[0] if path != files[0] else "")
    return tree


trees = st.dictionaries(paths, entries(), max_size=9).map(complete)


def place(root: Path, path: str) -> bytes:
    return os.fsencode(root) + os.fsencode(path.rstrip("/"))


def set_attributes(file: bytes, entry: Entry) -> None:
    os.chown(file, entry.uid, entry.gid, follow_symlinks=False)
    if not stat.S_ISLNK(entry.mode):
        os.chmod(file, stat.S_IMODE(entry.mode))
    if stat.S_ISDIR(entry.mode) or stat.S_ISREG(entry.mode):
        for name in os.listxattr(file):
            if name.startswith("user."):
                os.removexattr(file, name)
        for name, value in entry.xattrs:
            os.setxattr(file, name, value)
    os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def make(root: Path, path: str, entry: Entry) -> None:
    file = place(root, path)
    if entry.link:
        os.link(place(root, entry.link), file)
        return
    if stat.S_ISDIR(entry.mode):
        os.mkdir(file)
    elif stat.S_ISLNK(entry.mode):
        os.symlink(os.fsencode(entry.target), file)
    elif stat.S_ISREG(entry.mode):
        with open(file, "xb") as out:
            out.write(entry.content.encode())
    else:
        os.mknod(file, entry.mode, entry.rdev)
    set_attributes(file, entry)


def grow(root: Path, old: dict[str, Entry], new: dict[str, Entry]) -> None:
    """Make the tree `new` out of `old` at a writable place, by the changes between them."""
    changes = diff(old, new)
    touched = {change.path for change in changes}
    anew = {path for path in touched if path != "/" and not (_is_directory(old, path) and _is_directory(new, path))}
    for path in touched:  # a directory that changes hands is made anew, with all that is in it: it hides what is below
        if _is_directory(old, path) and _is_directory(new, path) and old[path].uid != new[path].uid:
            anew |= {below for below in old.keys() | new.keys() if f"{below}/".startswith(f"{path}/")}
    # A file of several names is made anew under all of them: overlayfs copies up one name at a time.
    links = [
        {path for path, e in tree.items() if first in (path, e.link)} for tree in (old, new) for first in _firsts(tree)
    ]
    while any(group & anew and not group <= anew for group in links):
        anew |= {path for group in links if group & anew for path in group}
    for path in sorted(anew & old.keys(), key=order, reverse=True):
        file = place(root, path)
        os.rmdir(file) if stat.S_ISDIR(old[path].mode) else os.unlink(file)
    for path in sorted(anew & new.keys(), key=order):
        make(root, path, new[path])
    for path in sorted(new, key=order, reverse=True):
        if stat.S_ISDIR(new[path].mode):
            file = place(root, path)
            if path in touched or path in anew or os.stat(file).st_mtime_ns != new[path].mtime_ns:
                set_attributes(file, new[path])


def _firsts(tree: dict[str, Entry]) -> set[str]:
    return {entry.link for entry in tree.values() if entry.link}


def _is_directory(tree: dict[str, Entry], path: str) -> bool:
    return path in tree and stat.S_ISDIR(tree[path].mode)


def filled(pile: Pile, at: Place | None, path: str, entry: Entry | None) -> Entry | None:
    """With the bytes of the file as its content."""
    if entry is None or at is None or not stat.S_ISREG(entry.mode):
        return entry
    data = pile.read(at, path, limit=1 << 20)
    assert data is not None
    return replace(entry, content=data.decode())


def changes_of(a: Pile, b: Pile) -> list[Change]:
    return [
        replace(change, old=filled(a, old, change.path, change.old), new=filled(b, new, change.path, change.new))
        for change, old, new in difference(a, b)
    ]


def without_links(tree: dict[str, Entry]) -> dict[str, Entry]:
    return {path: replace(entry, link="") for path, entry in tree.items()}


def links_of(root: Path, tree: dict[str, Entry]) -> dict[str, str]:
    """path → the first path of the same file, as the kernel sees it."""
    first: dict[int, str] = {}
    out = {}
    for path in sorted(tree, key=order):
        if stat.S_ISREG(tree[path].mode):
            found = first.setdefault(os.lstat(place(root, path)).st_ino, path)
            out[path] = found if found != path else ""
    return out


@dataclass
class Bench:
    root: Path
    loop: asyncio.AbstractEventLoop
    archiver: Archiver
    snapshots: OverlaySnapshotter

    def commit_tree(self, tree: dict[str, Entry]) -> str:
        """A layer made by hand."""
        name = secrets.token_hex(32)
        directory = self.root / "new"
        files = self.snapshots.begin(directory, None)
        grow(files, {"/": replace(ROOT, mtime_ns=-1)}, tree)
        assert self.snapshots.commit_from(directory, name, None)
        return name

    async def commit_changes(self, key: str, parent: str) -> str:
        """What a commit does: pack the upper directory, and unpack that as a layer."""
        name = secrets.token_hex(32)
        directory = self.root / "new"
        upper = os.open(self.snapshots.upper(key), os.O_RDONLY)
        tree = os.open(self.snapshots.begin(directory, parent), os.O_RDONLY)
        try:
            async with self.archiver.pack(upper, overlay=True) as reader:
                done = await self.archiver.unpack(reader, tree, options=Options(allow_empty=True, sync=False))
        finally:
            os.close(tree)
            os.close(upper)
        self.snapshots.mark_opaque(directory, done.opaque)
        assert self.snapshots.commit_from(directory, name, parent)
        return name


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    loop = asyncio.new_event_loop()
    archiver = Archiver()
    yield Bench(tmp_path, loop, archiver, OverlaySnapshotter(tmp_path))
    archiver.close()
    loop.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=trees, new=trees)
def test_a_difference_and_its_layer_lead_to_the_new_tree(
    bench: Bench, old: dict[str, Entry], new: dict[str, Entry]
) -> None:
    snapshots, key, target = bench.snapshots, secrets.token_hex(32), bench.root / "mounted"
    target.mkdir(exist_ok=True)
    base = bench.commit_tree(old)
    snapshots.prepare(key, base)
    snapshots.mount(key, target)
    try:
        grow(target, old, new)
    finally:
        snapshots.unmount(target)
    top = bench.loop.run_until_complete(bench.commit_changes(key, base))
    with Directories() as directories:
        nothing = Pile(directories, [])
        before = Pile(directories, [snapshots.upper(base)])
        active = Pile(directories, [snapshots.upper(key), snapshots.upper(base)])
        after = Pile(directories, [snapshots.upper(top), snapshots.upper(base)])
        a, b = ({change.path: change.new for change in changes_of(nothing, pile)} for pile in (before, after))
        assert a == without_links(old)
        found = without_links(new)
        assert {path: entry for path, entry in b.items() if path != "/"} == {p: e for p, e in found.items() if p != "/"}
        for pile in (active, after):
            changes = changes_of(before, pile)
            made = apply(changes, a)  # type: ignore[arg-type]
            assert {p: e for p, e in made.items() if p != "/"} == {p: e for p, e in found.items() if p != "/"}
            assert {c.path for c in changes if c.kind == ADDED} == found.keys() - a.keys()
            assert {c.path for c in changes if c.kind == DELETED} == a.keys() - found.keys()
            assert {c.path for c in changes if c.kind == CHANGED} <= found.keys() & a.keys()
        back = changes_of(after, before)
        assert apply(back, b) == a  # type: ignore[arg-type]
        assert changes_of(after, after) == []
        for path in new:
            assert after.resolve(posixpath.dirname(path)) == posixpath.dirname(path)
    snapshots.view(top, target)
    try:
        expected = {path: entry.link for path, entry in new.items() if stat.S_ISREG(entry.mode)}
        assert links_of(target, new) == expected
    finally:
        snapshots.unmount(target)
    for name in (key, top, base):
        snapshots.remove(name)
