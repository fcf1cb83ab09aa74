"""The path stat of `docker cp` (W59): JSON in base64 in a header, with a file mode as Go numbers it."""

from __future__ import annotations

import base64
import stat

import msgspec

from tare.wire.config import Wire

HEADER = "X-Docker-Container-Path-Stat"

_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


class PathStat(Wire, kw_only=True, frozen=True):
    """One path of a container. `mtime` RFC 3339; `mode` as `go_mode` makes it."""

    name: str
    size: int
    mode: int
    mtime: str
    linkTarget: str = ""


def go_mode(mode: int) -> int:
    """`st_mode` as Go's os.FileMode. Source: pkg.go.dev/io/fs#FileMode."""
    special = sum(go for bit, go in _BITS if mode & bit)
    return (mode & 0o777) | _KINDS.get(stat.S_IFMT(mode), 0) | special


def header_value(found: PathStat) -> str:
    """The header's text: standard base64 of the JSON."""
    return base64.b64encode(msgspec.json.encode(found)).decode()
