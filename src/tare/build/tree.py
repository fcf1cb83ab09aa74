"""A build context in memory: what members there are, how links in it resolve, what a source pattern means.

Paths are relative to the context's root, clean, "" for the root itself. Links never lead out: `..` stops at the root.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import Protocol

from tare.build.ignore import Ignore, glob, has_wildcards

FILE, LINK, SYMLINK, DIR = "0", "1", "2", "5"
_MAX_LINKS = 40


class Member(Protocol):
    """What is known of a member; see `drivers.archive.spool.Member`."""

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    linkname: str
    major: int
    minor: int
    offset: int
    sha256: str
    xattrs: dict[str, str]


class Tree:
    """The members of one archive by path. A later member of the same path replaces an earlier one."""

    def __init__(self, members: Iterable[Member], ignore: Ignore | None = None) -> None:
        """ignore: what is left out cannot be found. Directories stay as far as something kept is below them."""
        self._members: dict[str, Member | None] = {"": None}
        self._children: dict[str, set[str]] = {"": set()}
        self._hidden: dict[str, Member] = {}  # left out, but hard links may need their bytes
        for member in members:
            if ignore and ignore.leaves_out(member.name):
                self._hidden[member.name] = member
            else:
                self._put(member)

    def _put(self, member: Member) -> None:
        path = member.name
        before = self._members.get(path)
        if path in self._children and member.kind != DIR:
            self._drop(path)
        self._members[path] = member
        if member.kind == DIR:
            self._children.setdefault(path, set())
        if before is None:
            self._link_up(path)

    def _link_up(self, path: str) -> None:
        """Make the directories above `path` known."""
        while path:
            parent = posixpath.dirname(path)
            siblings = self._children.get(parent)
            name = posixpath.basename(path)
            if siblings is not None:
                siblings.add(name)
                return
            self._children[parent] = {name}
            self._members[parent] = None  # never named, or something else that a directory replaces
            path = parent

    def _drop(self, path: str) -> None:
        for name in self._children.pop(path, set()):
            below = f"{path}/{name}" if path else name
            self._drop(below)
            self._members.pop(below, None)

    def __len__(self) -> int:
        return len(self._members) - 1

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory of that path (links not followed)."""
        return path in self._children

    def get(self, path: str) -> Member | None:
        """The member of that path; None for nothing, and for a directory that no member named."""
        return self._members.get(path)

    def __contains__(self, path: str) -> bool:
        return path in self._members

    def children(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        return sorted(self._children.get(path, ()))

    def file(self, path: str) -> Member | None:
        """The member that holds the bytes of a file; hard links lead to theirs."""
        member = self._members.get(path)
        for _ in range(_MAX_LINKS):
            if member is None or member.kind != LINK:
                return member
            member = self._members.get(member.linkname) or self._hidden.get(member.linkname)
        return None

    def resolve(self, path: str) -> str | None:
        """Where a path leads when every link in it is followed; None if nowhere."""
        parts = [part for part in path.split("/") if part not in ("", ".")][::-1]
        here = ""
        links = 0
        while parts:
            part = parts.pop()
            if part == "..":
                here = posixpath.dirname(here)
                continue
            step = f"{here}/{part}" if here else part
            member = self._members.get(step)
            if step not in self._members:
                return None
            if member is not None and member.kind == SYMLINK:
                links += 1
                if links > _MAX_LINKS:
                    return None
                if member.linkname.startswith("/"):
                    here = ""
                parts += [piece for piece in member.linkname.split("/") if piece not in ("", ".")][::-1]
                continue
            if parts and step not in self._children:
                return None
            here = step
        return here

    def walk(self, path: str) -> Iterator[str]:
        """Every path below a directory, parents before what is in them, sorted."""
        stack = [f"{path}/{name}" if path else name for name in reversed(self.children(path))]
        while stack:
            here = stack.pop()
            yield here
            stack += [f"{here}/{name}" for name in reversed(self.children(here))]

    def match(self, pattern: str, *, deep: bool = False) -> list[str]:
        """The paths that a source means: one for a plain path that exists, any number for a pattern. Sorted.

        deep: a component `**` is any number of directories, none included; links are not followed for it.
        """
        clean = clean_source(pattern)
        if not has_wildcards(pattern):
            return [clean] if self.resolve(clean) is not None else []
        found = [""]
        parts = clean.split("/")
        for number, part in enumerate(parts):
            if deep and part == "**" and number < len(parts) - 1:
                found = [place for here in found for place in self._below(here)]
                continue
            if not has_wildcards(part):
                found = [f"{here}/{part}" if here else part for here in found]
                found = [here for here in found if self.resolve(here) is not None]
                continue
            expression = glob(part)
            following: list[str] = []
            for here in found:
                real = self.resolve(here)
                if real is None:
                    continue
                names = [name for name in self.children(real) if expression.fullmatch(name)]
                following += [f"{here}/{name}" if here else name for name in names]
            found = following
        return list(dict.fromkeys(found))

    def _below(self, path: str) -> list[str]:
        """A directory and every directory below it."""
        real = self.resolve(path)
        if real is None or not self.is_directory(real):
            return []
        inside = (place[len(real) :].lstrip("/") for place in self.walk(real) if self.is_directory(place))
        return [path, *(f"{path}/{rest}" if path else rest for rest in inside)]


def clean_source(text: str) -> str:
    """A source as a path in the context: `..` stops at the root."""
    return posixpath.normpath("/" + text).lstrip("/")
