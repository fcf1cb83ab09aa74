"""Git repositories as build contexts: `URL.git#ref:directory`, `?ref=&subdir=`, and the submodules in them.

Source: ENGINE-API 4.6, W50; gitmodules(5); git-submodule(1), "add" (relative URLs).
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from tare.base.errors import InvalidArgument

_SCP = re.compile(r"[A-Za-z0-9._-]+@([A-Za-z0-9.-]+):(?!//)(.+)")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]{0,255}\Z")
_COMMIT = re.compile(r"[0-9a-f]{7,64}\Z")
_KEYS = frozenset({"ref", "branch", "tag", "subdir", "checksum", "commit", "keep-git-dir", "submodules"})
_TRUE = frozenset({"", "1", "true"})
_SCHEMES = ("git", "ssh", "http", "https")
_WHOLE = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_UNSEEN = re.compile(r"[\x00-\x20\x7f]")
_MODULE = re.compile(r"submodule\.(.+)\.(path|url)\Z", re.DOTALL)


class GitRef(Struct, frozen=True):
    """A repository, what of it (branch, tag or commit, "" for its default), which directory, and the host to reach.

    checksum: the commit it must be, or how that begins; "" for any. keeps_git: `.git` is wanted too. submodules: what
    other repositories it has in it, too.
    """

    url: str
    ref: str
    directory: str
    host: str
    checksum: str = ""
    keeps_git: bool = False
    submodules: bool = True


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
        if parts.scheme not in _SCHEMES or not parts.hostname:
            return None
        if parts.scheme in ("http", "https") and not parts.path.endswith(".git") and not text.startswith("github.com/"):
            return None
        host = parts.hostname
        base, _, query = base.partition("?")
    ref, _, directory = fragment.partition(":")
    checksum, keeps_git, submodules = "", False, True
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _KEYS:
            raise InvalidArgument(
                f"unexpected query {key!r} in a git URL: use ref, subdir, checksum, keep-git-dir or submodules"
            )
        if key == "subdir":
            directory = directory or value
        elif key in ("checksum", "commit"):
            checksum = value
        elif key == "keep-git-dir":
            keeps_git = value.lower() in _TRUE
        elif key == "submodules":
            submodules = value.lower() in _TRUE
        else:
            ref = ref or value
    if ref and (not _REF.match(ref) or ".." in ref):
        raise InvalidArgument(f"invalid git ref {ref[:100]!r}")
    check_commit(checksum)
    return GitRef(base, ref, directory.strip("/"), host, checksum, keeps_git, submodules)


def check_commit(text: str) -> None:
    """Raise InvalidArgument for what is no commit, whole or its beginning; "" is fine."""
    if text and not _COMMIT.match(text):
        raise InvalidArgument(f"invalid checksum {text[:100]!r}: it is a commit, or how one begins")


def read_modules(entries: str) -> dict[str, str]:
    """URLs of submodules by their path, from what `git config -z --list` says of a `.gitmodules`. Raises InvalidArgument.

    Other keys do not matter: what `update` or `branch` say is never done.
    """
    found: dict[str, dict[str, str]] = {}
    for entry in entries.split("\0"):
        key, _, value = entry.partition("\n")
        if match := _MODULE.match(key):
            found.setdefault(match[1], {})[match[2]] = value
    urls: dict[str, str] = {}
    for name, module in found.items():
        path = module.get("path", "")
        if not path or "url" not in module:
            continue  # git does not know what to do with it either
        parts = path.rstrip("/").split("/")
        if any(part.lower() in ("", ".", "..", ".git") for part in parts) or "\0" in path:
            raise InvalidArgument(f"submodule {name[:100]!r}: invalid path {path[:100]!r}")
        urls["/".join(parts)] = module["url"]
    return urls


def submodule(parent: GitRef, url: str, commit: str) -> GitRef:
    """Where a submodule is that stands in `parent`: at the same host if its URL is relative, by the same transports.

    Raises InvalidArgument.
    """
    shown = url[:200]
    if not _WHOLE.match(commit):
        raise InvalidArgument(f"submodule {shown!r}: invalid commit {commit[:80]!r}")
    if _UNSEEN.search(url) or url.startswith("-"):
        raise InvalidArgument(f"submodule {shown!r}: invalid URL")
    host = parent.host
    if url.startswith(("./", "../")):
        url = _joined(parent.url, url)
    elif match := _SCP.fullmatch(url):
        host = match[1]
    else:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            raise InvalidArgument(f"submodule {shown!r}: invalid URL") from None
        if parts.scheme not in _SCHEMES or not host:
            raise InvalidArgument(f"submodule {shown!r}: only {', '.join(_SCHEMES)} URLs and relative ones are fetched")
    if host.startswith("-"):
        raise InvalidArgument(f"submodule {shown!r}: invalid URL")
    return GitRef(url, commit, "", host, commit, parent.keeps_git)


def _joined(base: str, relative: str) -> str:
    """A relative URL at a repository's; it cannot leave the host."""
    scheme, slashes, rest = base.partition("://")
    if slashes:
        host, _, path = rest.partition("/")
        prefix = f"{scheme}://{host}/"
    else:
        host, _, path = base.partition(":")
        prefix = f"{host}:"
    lead = "/" if path.startswith("/") else ""
    parts = [part for part in path.split("/") if part]
    for part in relative.split("/"):
        if part == "..":
            if not parts:
                raise InvalidArgument(f"submodule {relative[:200]!r} leads out of {prefix}")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        raise InvalidArgument(f"submodule {relative[:200]!r} is no repository of {prefix}")
    return prefix + lead + "/".join(parts)
