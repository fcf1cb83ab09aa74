"""What is a git URL, and what it means."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.build.gitref import GitRef, parse_git


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://h/x.git", GitRef("https://h/x.git", "", "", "h")),
        ("https://h:8/x.git#main:a/b", GitRef("https://h:8/x.git", "main", "a/b", "h")),
        ("https://h/x.git?ref=v1&subdir=/d/", GitRef("https://h/x.git", "v1", "d", "h")),
        ("https://h/x.git?checksum=abcdef1&keep-git-dir=1", GitRef("https://h/x.git", "", "", "h", "abcdef1", True)),
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
