"""Differences of trees, with random trees of every kind of file; on real layers: tests/e2e/test_versions.py."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tare.base.errors import Conflict
from tare.oci import changeset
from tare.oci.changeset import Change, Entry, apply, diff

KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)
ENTRIES = st.builds(
    Entry,
    mode=st.builds(lambda kind, bits: kind | bits, st.sampled_from(KINDS), st.sampled_from((0o644, 0o4755, 0o1777))),
    uid=st.integers(0, 2),
    gid=st.integers(0, 2),
    size=st.integers(0, 3),
    mtime_ns=st.integers(-1, 2),
    target=st.sampled_from(("", "x", "/x")),
    rdev=st.integers(0, 2),
    xattrs=st.sampled_from(((), (("user.a", b"1"),), (("security.capability", b"\0\1"),))),
    content=st.sampled_from(("", "one", "two")),
    link=st.sampled_from(("", "/a")),
)
NAMES = st.text(st.sampled_from("ab.-\udcff\n "), min_size=1, max_size=3)
PATHS = st.builds(lambda parts: "/" + "/".join(parts), st.lists(NAMES, max_size=3))
TREES = st.dictionaries(PATHS, ENTRIES, max_size=12)


@given(TREES, TREES)
@settings(max_examples=300, deadline=None)
def test_a_difference_leads_from_one_tree_to_the_other(a: dict[str, Entry], b: dict[str, Entry]) -> None:
    changes = diff(a, b)
    assert apply(changes, a) == b
    assert (changes == []) == (a == b)
    paths = [changeset.order(change.path) for change in changes]
    assert paths == sorted(paths)


def test_what_differs_is_named() -> None:
    file = Entry(mode=stat.S_IFREG | 0o644, size=3, content="one")
    other = Entry(mode=stat.S_IFREG | 0o600, uid=7, size=3, content="two", mtime_ns=5)
    assert diff({"/a": file}, {"/a": other}) == [
        Change(path="/a", kind="C", old=file, new=other, what=("content", "mode", "owner", "time"))
    ]
    assert diff({"/a": file}, {"/a": Entry(mode=stat.S_IFDIR | 0o755)})[0].what == ("kind",)
    assert diff({}, {"/a-b": file, "/a/b": file, "/a": Entry(mode=stat.S_IFDIR)}) == [
        Change(path="/a", kind="A", new=Entry(mode=stat.S_IFDIR)),
        Change(path="/a/b", kind="A", new=file),
        Change(path="/a-b", kind="A", new=file),
    ]


def test_changes_apply_to_what_they_start_from_only() -> None:
    file = Entry(mode=stat.S_IFREG | 0o644)
    with pytest.raises(Conflict, match="/a is not what"):
        apply([Change(path="/a", kind="D", old=file)], {})
