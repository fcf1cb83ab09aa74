"""Git repositories as build contexts: `URL.git#ref:directory`, `?ref=&subdir=`. Source: ENGINE-API 4.6, W50."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from tare.base.errors import InvalidArgument

_SCP = re.compile(r"[A-Za-z0-9._-]+@([A-Za-z0-9.-]+):(?!//)(.+)")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]{0,255}\Z")
_COMMIT = re.compile(r"[0-9a-f]{7,64}\Z")
_KEYS = frozenset({"ref", "branch", "tag", "subdir", "checksum", "commit", "keep-git-dir"})
_TRUE = frozenset({"", "1", "true"})


@dataclass(frozen=True, slots=True)
class GitRef:
    """A repository, what of it (branch, tag or commit, "" for its default), which directory, and the host to reach.

    checksum: the commit it must be, or how that begins; "" for any. keeps_git: `.git` is wanted too.
    """

    url: str
    ref: str
    directory: str
    host: str
    checksum: str = ""
    keeps_git: bool = False


def parse_git(text: str) -> GitRef | None:
    """What `text` means as a repository; None if it means something else. Raises InvalidArgument for a wrong ref."""
    base, _, fragment = text.partition("#")
    query = ""
    if text.startswith("github.com/"):
        base = f"https://{base}"
    if match := _SCP.fullmatch(base):
        host = match[1]
    else:
        parts = urlsplit(base)
        if parts.scheme not in ("git", "ssh", "http", "https") or not parts.hostname:
            return None
        if parts.scheme in ("http", "https") and not parts.path.endswith(".git") and not text.startswith("github.com/"):
            return None
        host = parts.hostname
        base, _, query = base.partition("?")
    ref, _, directory = fragment.partition(":")
    checksum, keeps_git = "", False
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _KEYS:
            raise InvalidArgument(f"unexpected query {key!r} in a git URL: use ref, subdir, checksum or keep-git-dir")
        if key == "subdir":
            directory = directory or value
        elif key in ("checksum", "commit"):
            checksum = value
        elif key == "keep-git-dir":
            keeps_git = value.lower() in _TRUE
        else:
            ref = ref or value
    if ref and (not _REF.match(ref) or ".." in ref):
        raise InvalidArgument(f"invalid git ref {ref[:100]!r}")
    check_commit(checksum)
    return GitRef(base, ref, directory.strip("/"), host, checksum, keeps_git)


def check_commit(text: str) -> None:
    """Raise InvalidArgument for what is no commit, whole or its beginning; "" is fine."""
    if text and not _COMMIT.match(text):
        raise InvalidArgument(f"invalid checksum {text[:100]!r}: it is a commit, or how one begins")
