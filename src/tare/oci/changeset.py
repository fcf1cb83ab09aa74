"""File trees as layers know them, and what leads from one to another. Pure.

A tree is a mapping from paths (`/etc/passwd`; the root is `/`) to entries. `diff(a, b)` and `apply(changes, a)` are each
other's inverse: `apply(diff(a, b), a) == b` for any two trees.
Source: image-spec layer.md, "Change Types" and "File Attributes".
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping

from msgspec import Struct

from tare.base.errors import Conflict

ADDED, CHANGED, DELETED = "A", "C", "D"
CONTENT, KIND, MODE, OWNER, TARGET, DEVICE, XATTRS, TIME, LINK = (
    "content", "kind", "mode", "owner", "target", "device", "xattrs", "time", "link",
)  # fmt: skip


class Entry(Struct, frozen=True, kw_only=True):
    """One path. mode: `st_mode`, kind and permissions; size in bytes, of regular files; times in ns since the epoch.

    target: where a symbolic link leads. content: whatever names the bytes of a regular file: equal means equal bytes.
    link: the first path of the same file where it has several, "" for that one.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: str = ""
    rdev: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    content: str = ""
    link: str = ""


Tree = Mapping[str, Entry]


class Change(Struct, frozen=True, kw_only=True):
    """What happened to one path. old is None for ADDED, new for DELETED; `what` says which attributes of CHANGED differ."""

    path: str
    kind: str
    old: Entry | None = None
    new: Entry | None = None
    what: tuple[str, ...] = ()

    @property
    def is_time_only(self) -> bool:
        """Whether nothing but the modification time is different."""
        return self.what == (TIME,)


def differences(old: Entry, new: Entry) -> tuple[str, ...]:
    """Which attributes differ; () for equal entries."""
    if stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
        return (KIND,)
    pairs = (
        (CONTENT, (old.size, old.content) != (new.size, new.content)),
        (TARGET, old.target != new.target),
        (DEVICE, old.rdev != new.rdev),
        (MODE, old.mode != new.mode),
        (OWNER, (old.uid, old.gid) != (new.uid, new.gid)),
        (XATTRS, old.xattrs != new.xattrs),
        (LINK, old.link != new.link),
        (TIME, old.mtime_ns != new.mtime_ns),
    )
    return tuple(name for name, differs in pairs if differs)


def order(path: str) -> list[str]:
    """The key that puts a directory straight before what is in it."""
    return path.split("/")


def change_of(path: str, old: Entry | None, new: Entry | None) -> Change | None:
    """What leads from one entry to the other; None when nothing has to happen."""
    if old is None and new is None:
        return None
    if old is None:
        return Change(path=path, kind=ADDED, new=new)
    if new is None:
        return Change(path=path, kind=DELETED, old=old)
    what = differences(old, new)
    return Change(path=path, kind=CHANGED, old=old, new=new, what=what) if what else None


def diff(a: Tree, b: Tree) -> list[Change]:
    """What makes `b` out of `a`, a directory before what is in it."""
    paths = sorted(a.keys() | b.keys(), key=order)
    return [change for path in paths if (change := change_of(path, a.get(path), b.get(path))) is not None]


def apply(changes: Iterable[Change], tree: Tree) -> dict[str, Entry]:
    """The tree after the changes. Raises Conflict where it is not the one they start from."""
    out = dict(tree)
    for change in changes:
        if out.get(change.path) != change.old:
            raise Conflict(f"{change.path} is not what the change starts from")
        if change.new is None:
            del out[change.path]
        else:
            out[change.path] = change.new
    return out
