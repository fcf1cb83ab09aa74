"""COPY and ADD: which members of a tree come to which places of an image, as the entries of a layer.

Source: ENGINE-API 4.6. Nothing is read or written here; `Place` answers what the image has where.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable

from msgspec import Struct, field
from msgspec.structs import replace

from tare.base.errors import InvalidArgument, NotFound
from tare.build.ignore import Ignore, has_wildcards, ignore_of
from tare.build.tree import DIR, FILE, LINK, SYMLINK, Member, Tree, clean_source

_OCTAL = re.compile(r"[0-7]{1,5}\Z")
_SYMBOLIC = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)\Z")
_BITS = {"r": 4, "w": 2, "x": 1}


class Place(Struct, frozen=True, kw_only=True):
    """What an image has at a path: where links led (absolute), and its attributes; `kind` as in tar.

    kind "": links lead there, but nothing is there.
    """

    path: str
    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0


class Chosen(Struct, frozen=True, kw_only=True):
    """A member chosen by a source. `place` is its path below the destination; "" means the destination itself.

    is_contents: it came from a directory of which the contents are copied.
    """

    place: str
    path: str
    is_contents: bool


class Item(Struct, kw_only=True):
    """One entry of the layer: its absolute place without the leading slash, and where its bytes are.

    `member` is the source; None for a directory made on the way. `text` holds the bytes of a here-document.
    """

    place: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    member: Member | None = None
    linkname: str = ""
    text: str | None = None


class Owner(Struct, frozen=True, kw_only=True):
    """Who owns what is copied; None keeps what the archive says."""

    uid: int
    gid: int


class Wish(Struct, frozen=True, kw_only=True):
    """What a COPY asks for. `target` is absolute, with its trailing slash if it had one."""

    target: str
    owner: Owner | None = field(default_factory=lambda: Owner(uid=0, gid=0))
    chmod: str = ""
    many: bool = False  # several sources: the target is a directory
    mtime_ns: int = 0  # of directories made on the way


def choose(
    tree: Tree, sources: Iterable[str], *, parents: bool = False, excludes: Iterable[str] = (), what: str = "COPY"
) -> list[list[Chosen]]:
    """What each source means. Raises NotFound for a plain path that is not there, as Docker says it."""
    ignore = ignore_of(excludes)
    found: list[list[Chosen]] = []
    for source in sources:
        pivot = ""
        if parents and "/./" in source:
            head, _, _ = source.partition("/./")
            pivot = clean_source(head)
        matches = tree.match(source, deep=parents)
        gone = next((match for match in matches if tree.resolve(match) is None), None)  # a link to nowhere
        if gone is not None or (not matches and not has_wildcards(source)):
            raise NotFound(
                f"{what} failed: file not found in build context or excluded by .dockerignore: "
                f"stat {gone or clean_source(source) or '.'}: file does not exist"
            )
        for match in matches:
            found.append(_expand(tree, match, ignore, parents=parents, pivot=pivot))
    return found


def _expand(tree: Tree, match: str, ignore: Ignore, *, parents: bool, pivot: str) -> list[Chosen]:
    real = tree.resolve(match)
    assert real is not None
    prefix = ""
    if parents:
        prefix = "/".join(match.split("/")[len(pivot.split("/")) if pivot else 0 :])
    if not tree.is_directory(real):
        name = prefix if parents else posixpath.basename(match)
        if ignore.leaves_out(name) or ignore.leaves_out(posixpath.basename(match)):
            return []
        return [Chosen(place=name, path=real, is_contents=False)]
    chosen = [Chosen(place=prefix, path=real, is_contents=True)]
    for path in tree.walk(real):
        inside = path[len(real) :].lstrip("/")
        if ignore and ignore.leaves_out(inside):
            continue
        chosen.append(Chosen(place=f"{prefix}/{inside}" if prefix else inside, path=path, is_contents=True))
    return chosen


def digest_of(tree: Tree, groups: Iterable[Iterable[Chosen]]) -> str:
    """What the chosen members are, without their times: hex. Equal content in equal places gives equal digests."""
    whole = hashlib.sha256()
    for group in groups:
        for chosen in group:
            member = tree.file(chosen.path)
            if member is None:
                row = f"{chosen.place}\0{chosen.is_contents:d}\0dir\n"
            else:
                xattrs = ",".join(f"{key}={value}" for key, value in sorted(member.xattrs.items()))
                row = (
                    f"{chosen.place}\0{chosen.is_contents:d}\0{member.kind}\0{member.mode:o}\0{member.uid}\0{member.gid}"
                    f"\0{member.size}\0{member.sha256}\0{member.linkname}\0{member.major}:{member.minor}\0{xattrs}\n"
                )
            whole.update(row.encode("utf-8", "surrogateescape"))
        whole.update(b"--\n")
    return whole.hexdigest()


Look = Callable[[str], Place | None]


class Layout:
    """Collects the entries of a layer. `look` follows links; it is asked about directories, not about every file."""

    def __init__(self, wish: Wish, look: Look) -> None:
        self._wish = wish
        self._look = look
        self._items: dict[str, Item] = {}
        self._sources: dict[str, str] = {}  # where a file of the archive went to its path there
        self._destination = ""  # of the group that is laid out, links followed
        self._fresh: set[str] = set()  # directories this layer makes: nothing of the image is below them
        self._places: dict[str, str] = {}

    def items(self) -> list[Item]:
        """The entries, parents first. Names of one file in the archive are hard links, the first one holds the bytes."""
        first: dict[int, Item] = {}
        found: list[Item] = []
        for place in sorted(self._items, key=lambda path: path.split("/")):
            item = self._items[place]
            if item.kind == FILE and item.member is not None:
                holder = first.setdefault(id(item.member), item)
                # The same name twice is a file copied twice.
                if holder is not item and self._sources[holder.place] != self._sources[place]:
                    item = Item(place=place, kind=LINK, mode=0, uid=0, gid=0, mtime_ns=0, linkname=holder.place)
            found.append(item)
        return found

    def with_owner(self, owner: Owner | None) -> Layout:
        """The same layer, for sources whose owner is another."""
        other = Layout(replace(self._wish, owner=owner), self._look)
        other._items, other._fresh, other._places = self._items, self._fresh, self._places
        other._sources = self._sources
        return other

    def add_directory(self, path: str) -> None:
        """Lay out a directory, with those above it."""
        self._enter(path)

    def add_group(self, tree: Tree, group: list[Chosen]) -> None:
        """Lay out what one source means. Raises InvalidArgument when a file is where a directory must be."""
        if not group:
            return
        base = self._base(is_directory=group[0].is_contents or "/" in group[0].place)
        self._destination = base.rstrip("/") or "/"
        for chosen in group:
            if chosen.is_contents or base.endswith("/"):
                self._add(tree, chosen, posixpath.join(base, chosen.place))
            else:
                self._add(tree, chosen, base)

    def add_text(self, name: str, text: str) -> None:
        """Lay out a here-document as a file of that name."""
        base = self._base(is_directory=False)
        place = self._settled(posixpath.join(base, name) if base.endswith("/") else base)
        mode = self._mode(0o644, FILE)
        uid, gid = self._owner(None)
        self._items[place] = Item(
            place=place, kind=FILE, mode=mode, uid=uid, gid=gid, mtime_ns=self._wish.mtime_ns, text=text
        )

    def _base(self, *, is_directory: bool) -> str:
        """The destination, with a slash at the end where it is a directory."""
        target = "/" + posixpath.normpath(self._wish.target).lstrip("/")
        is_directory = is_directory or self._wish.many or self._wish.target.endswith(("/", "/."))
        place = self._look(target)
        if place is not None:
            if not place.kind:
                return place.path.rstrip("/") + "/" if is_directory else place.path
            if place.kind == DIR:
                return place.path.rstrip("/") + "/"
            if is_directory:
                raise InvalidArgument(f"cannot copy to {target}: it is a file and must be a directory")
            return place.path
        return target.rstrip("/") + "/" if is_directory else target

    def _add(self, tree: Tree, chosen: Chosen, place: str) -> None:
        member = tree.get(chosen.path)
        if tree.is_directory(chosen.path):
            self._directory(place, member)
            return
        assert member is not None
        where = self._settled(place)
        uid, gid = self._owner(member)
        if member.kind in (FILE, LINK):
            holder = tree.file(chosen.path)
            if holder is None or holder.kind != FILE:
                raise InvalidArgument(f"the build context has a broken hard link: {chosen.path}")
            self._sources[where] = chosen.path
            self._items[where] = Item(
                place=where,
                kind=FILE,
                mode=self._mode(holder.mode, FILE),
                uid=uid,
                gid=gid,
                mtime_ns=holder.mtime_ns,
                member=holder,
            )
            return
        mode = member.mode if member.kind == SYMLINK else self._mode(member.mode, member.kind)
        self._items[where] = Item(
            place=where,
            kind=member.kind,
            mode=mode,
            uid=uid,
            gid=gid,
            mtime_ns=member.mtime_ns,
            member=member,
            linkname=member.linkname,
        )

    def _directory(self, place: str, member: Member | None) -> None:
        """A directory that is copied. The destination itself keeps its attributes if it is there."""
        path = place.rstrip("/") or "/"
        is_target = path == self._destination
        where = self._enter(path)
        known = self._items.get(where)
        if not where or (is_target and where not in self._fresh and known is not None):
            return
        if member is None:
            return
        uid, gid = self._owner(member)
        self._items[where] = Item(
            place=where,
            kind=DIR,
            mode=self._mode(member.mode, DIR),
            uid=uid,
            gid=gid,
            mtime_ns=member.mtime_ns,
            member=member,
        )

    def _settled(self, place: str) -> str:
        """The final place of something that is no directory: the directories above it exist then."""
        above = self._enter(posixpath.dirname(place) or "/")
        name = posixpath.basename(place)
        return f"{above}/{name}" if above else name

    def _enter(self, path: str) -> str:
        """Make sure that a directory is in the layer; where it is, without the leading slash."""
        clean = posixpath.normpath("/" + path.lstrip("/"))
        if clean == "/":
            return ""
        known = self._places.get(clean)
        if known is not None:
            return known
        above = self._enter(posixpath.dirname(clean))
        here = f"{above}/{posixpath.basename(clean)}" if above else posixpath.basename(clean)
        place = None if above in self._fresh else self._look("/" + here)
        if place is not None and place.kind in (DIR, ""):
            resolved = place.path.strip("/")
            if resolved != here:
                here = self._enter("/" + resolved)
            elif here not in self._items:
                self._items[here] = Item(
                    place=here, kind=DIR, mode=place.mode, uid=place.uid, gid=place.gid, mtime_ns=place.mtime_ns
                )
        elif place is not None and here not in self._items:
            raise InvalidArgument(f"cannot copy to /{here}: it is a file and must be a directory")
        elif here not in self._items or self._items[here].kind != DIR:
            uid, gid = self._owner(None)
            self._fresh.add(here)
            self._items[here] = Item(place=here, kind=DIR, mode=0o755, uid=uid, gid=gid, mtime_ns=self._wish.mtime_ns)
        self._places[clean] = here
        return here

    def _owner(self, member: Member | None) -> tuple[int, int]:
        if self._wish.owner is not None:
            return self._wish.owner.uid, self._wish.owner.gid
        return (member.uid, member.gid) if member is not None else (0, 0)

    def _mode(self, mode: int, kind: str) -> int:
        return change_mode(self._wish.chmod, mode, is_directory=kind == DIR) if self._wish.chmod else mode


def change_mode(text: str, mode: int, *, is_directory: bool) -> int:
    """chmod's language: octal, or `u=rwX,go=rX`. Raises InvalidArgument."""
    if _OCTAL.match(text) and int(text, 8) <= 0o7777:
        return int(text, 8)
    for clause in text.split(","):
        match = _SYMBOLIC.match(clause)
        if match is None:
            raise InvalidArgument(
                f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            )
        who = match[1].replace("a", "ugo") or "ugo"
        bits = sum(_BITS.get(letter, 0) for letter in set(match[3]))
        if "X" in match[3] and (is_directory or mode & 0o111):
            bits |= 1
        special = 0
        if "s" in match[3]:
            special |= (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0)
        if "t" in match[3]:
            special |= 0o1000
        spread = sum(bits << shift for letter, shift in (("u", 6), ("g", 3), ("o", 0)) if letter in who)
        whole = sum(7 << shift for letter, shift in (("u", 6), ("g", 3), ("o", 0)) if letter in who)
        if match[2] == "+":
            mode |= spread | special
        elif match[2] == "-":
            mode &= ~(spread | special)
        else:
            mode = (mode & ~whole) | spread | special
    return mode
