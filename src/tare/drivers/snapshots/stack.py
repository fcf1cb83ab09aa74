"""Looking into a pile of snapshot directories without mounting it: what is where, and where links lead.

The directories are read as overlayfs reads them: a whiteout or a file in an upper one hides what is below, an opaque
directory hides the directories of its name below. They are committed, so nothing changes while we look.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from tare.base.errors import InvalidArgument

_OPAQUE = "trusted.overlay.opaque"
_MAX_LINKS = 40


class Found(Struct, frozen=True):
    """What is at a path after links were followed: the path it has, its attributes, and the file on this host."""

    path: str
    info: os.stat_result
    file: Path


class Stack:
    """`directories`: the top one first."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = tuple(directories)

    def look(self, path: str) -> Found | None:
        """What the absolute `path` leads to, None if nowhere. Raises InvalidArgument for a loop of links."""
        return self._follow(path)[1]

    def lead(self, path: str) -> str:
        """Where the absolute `path` leads when its links are followed, whether something is there or not. Raises InvalidArgument for a loop."""
        return self._follow(path)[0]

    def _follow(self, path: str) -> tuple[str, Found | None]:
        parts = [part for part in path.split("/") if part not in ("", ".")][::-1]
        here, links = "/", 0
        found = self._at("/")
        while parts:
            part = parts.pop()
            if part == "..":
                here = posixpath.dirname(here)
                found = self._at(here)
                continue
            step = posixpath.join(here, part)
            found = self._at(step)
            if found is None or (
                parts and not stat.S_ISDIR(found.info.st_mode) and not stat.S_ISLNK(found.info.st_mode)
            ):
                return posixpath.normpath(posixpath.join(step, *parts[::-1])), None
            if stat.S_ISLNK(found.info.st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise InvalidArgument(f"too many links in {path}")
                target = os.readlink(found.file)
                here = "/" if target.startswith("/") else here
                parts += [piece for piece in target.split("/") if piece not in ("", ".")][::-1]
                found = self._at(here)
                continue
            here = step
        return here, found

    def read(self, path: str, *, limit: int) -> bytes | None:
        """The bytes of a regular file, None if there is none or it is larger than `limit`."""
        try:
            found = self.look(path)
        except InvalidArgument:
            return None
        if found is None or not stat.S_ISREG(found.info.st_mode) or found.info.st_size > limit:
            return None
        fd = os.open(found.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return file.read(limit)

    def _at(self, path: str) -> Found | None:
        """What is at a path of which no parent is a link."""
        parts = [part for part in path.split("/") if part]
        for directory in self._directories:
            here = directory
            hides = False
            info: os.stat_result | None = os.lstat(here)
            for depth, part in enumerate(parts, 1):
                here = here / part
                try:
                    info = os.lstat(here)
                except FileNotFoundError:
                    info = None
                    break
                if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                    return None
                if depth < len(parts) and not stat.S_ISDIR(info.st_mode):
                    return None
                hides = hides or (stat.S_ISDIR(info.st_mode) and _is_opaque(here))
            if info is not None:
                return Found("/" + "/".join(parts), info, here)
            if hides:
                return None
        return None


def _is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
