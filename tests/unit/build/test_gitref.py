"""What is a git URL, and what it means."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.build.gitref import GitRef, parse_git, read_modules, submodule


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://h/x.git", GitRef("https://h/x.git", "", "", "h")),
        ("https://h:8/x.git#main:a/b", GitRef("https://h:8/x.git", "main", "a/b", "h")),
        ("https://h/x.git?ref=v1&subdir=/d/", GitRef("https://h/x.git", "v1", "d", "h")),
        ("https://h/x.git?checksum=abcdef1&keep-git-dir=1", GitRef("https://h/x.git", "", "", "h", "abcdef1", True)),
        ("https://h/x.git?submodules=false", GitRef("https://h/x.git", "", "", "h", submodules=False)),
        ("git://h/x#:d", GitRef("git://h/x", "", "d", "h")),
        ("git@h.example:o/x.git#t", GitRef("git@h.example:o/x.git", "t", "", "h.example")),
        ("ssh://git@h/x", GitRef("ssh://git@h/x", "", "", "h")),
        ("github.com/o/x", GitRef("https://github.com/o/x", "", "", "github.com")),
        ("https://h/context.tar.gz", None),
        ("https://h/", None),
        ("file:///etc/x.git", None),
        ("ext::sh -c x", None),
        ("--upload-pack=x", None),
    ],
)
def test_git_urls(text: str, found: GitRef | None) -> None:
    assert parse_git(text) == found


@pytest.mark.parametrize(
    "text",
    ["https://h/x.git#--option", "https://h/x.git#a..b", "https://h/x.git?depth=1", "https://h/x.git?checksum=x"],
)
def test_what_git_must_not_be_given(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_git(text)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("base", "url", "found", "host"),
    [
        ("https://h/o/app.git", "../lib.git", "https://h/o/lib.git", "h"),
        ("https://h:8/o/app.git", "../../x/lib", "https://h:8/x/lib", "h"),
        ("https://h/o/app.git/", "./sub", "https://h/o/app.git/sub", "h"),
        ("https://me@h/o/app.git", "../lib.git", "https://me@h/o/lib.git", "h"),
        ("git@h:o/app.git", "../lib.git", "git@h:o/lib.git", "h"),
        ("git@h:app.git", "../lib.git", "git@h:lib.git", "h"),
        ("git@h:/srv/o/app.git", "../lib.git", "git@h:/srv/o/lib.git", "h"),
        ("ssh://git@h/o/app.git", "../lib.git", "ssh://git@h/o/lib.git", "h"),
        ("https://h/o/app.git", "https://other.example/lib", "https://other.example/lib", "other.example"),
        ("https://h/o/app.git", "git@other.example:o/lib", "git@other.example:o/lib", "other.example"),
        ("https://h/o/app.git", "git://[2001:db8::1]:99/lib", "git://[2001:db8::1]:99/lib", "2001:db8::1"),
    ],
)
def test_where_a_submodule_is(base: str, url: str, found: str, host: str) -> None:
    parent = GitRef(base, "main", "sub", "h", keeps_git=True)
    assert submodule(parent, url, COMMIT) == GitRef(found, COMMIT, "", host, COMMIT, True)


@pytest.mark.parametrize(
    "url",
    ["", "lib.git", "/srv/lib.git", "file:///srv/lib.git", "ext::sh -c id", "ext::id", "--upload-pack=id", "-x",
     "../../..", "../../../../other.example/x", "../..", "https://", "https:///x", "ssh://-oProxyCommand=id/x",
     "https://h/x\nurl=y", "https://h/a b", "fd::17/x", "ftp://h/x", "git+ssh://h/x", "https://[::1/x", "C:\\x"],
)  # fmt: skip
def test_submodules_that_are_not_fetched(url: str) -> None:
    with pytest.raises(InvalidArgument):
        submodule(GitRef("https://h/o/app.git", "", "", "h"), url, COMMIT)


@pytest.mark.parametrize("commit", ["", "main", COMMIT[:-1], COMMIT + "0", COMMIT.upper(), "-" * 40])
def test_a_submodule_is_at_a_whole_commit(commit: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid commit"):
        submodule(GitRef("https://h/o/app.git", "", "", "h"), "../lib", commit)


def test_modules() -> None:
    entries = (
        "submodule.lib.path\nvendor/lib/\0submodule.lib.url\n../lib.git\0submodule.lib.update\n!rm -rf /\0"
        "submodule.a.b.c.url\nhttps://h/c\0submodule.a.b.c.path\nc\0submodule.nowhere.url\nx\0core.bare\ntrue\0"
        "submodule..path\nx\0submodule.half.path\nhalf\0"
    )
    assert read_modules(entries) == {"vendor/lib": "../lib.git", "c": "https://h/c"}
    assert read_modules("") == {}


@pytest.mark.parametrize("path", ["..", "../x", "/etc", "a/../../b", ".git", "a/.GIT/hooks", "a//b", "./a", "."])
def test_a_submodule_stays_inside(path: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid path"):
        read_modules(f"submodule.x.path\n{path}\0submodule.x.url\n../y\0")
