"""A context in memory: what replaces what, where links lead, what a source means."""

from __future__ import annotations

import pytest

from tare.build.ignore import ignore_of
from tare.build.tree import Tree, clean_source
from tare.drivers.archive.spool import Member


def member(name: str, kind: str = "0", linkname: str = "") -> Member:
    return Member(name, kind, 0o644, 0, 0, 0, 0, linkname)


def tree(*names: str, ignore: tuple[str, ...] = ()) -> Tree:
    """`d/` is a directory, `a -> b` a symbolic link, `a = b` a hard link, anything else a file."""
    members = []
    for name in names:
        if name.endswith("/"):
            members.append(member(name[:-1], "5"))
        elif " -> " in name:
            path, _, target = name.partition(" -> ")
            members.append(member(path, "2", target))
        elif " = " in name:
            path, _, target = name.partition(" = ")
            members.append(member(path, "1", target))
        else:
            members.append(member(name))
    return Tree(members, ignore_of(ignore))


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        ((), []),
        (("b", "a"), ["a", "b"]),
        (("d/e/f",), ["d", "d/e", "d/e/f"]),
        (("d/e/f", "d/"), ["d", "d/e", "d/e/f"]),
        (("d/", "d/a", "d"), ["d"]),  # a file replaces a directory and what was in it
        (("d", "d/a"), ["d", "d/a"]),  # and the other way round
        (("d/e/f", "d -> x"), ["d"]),
        (("d/a", "d.x", "d/b"), ["d", "d/a", "d/b", "d.x"]),
    ],
)
def test_what_is_there(names: tuple[str, ...], paths: list[str]) -> None:
    found = tree(*names)
    assert list(found.walk("")) == paths
    assert len(found) == len(paths)
    assert all(path in found for path in paths)


def test_a_later_member_replaces_an_earlier_one() -> None:
    found = Tree([member("a", "2", "x"), member("a", "0"), member("d/a"), member("d", "5")])
    assert found.get("a") == member("a")
    assert found.get("d") == member("d", "5")
    assert found.is_directory("d")
    assert not found.is_directory("a")
    assert (found.children(""), found.children("a"), found.children("nope")) == (["a", "d"], [], [])


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("", ""),
        ("f", "f"),
        ("/d/./a", "d/a"),
        ("d/../f", "f"),
        ("../../f", "f"),
        ("to_d/a", "d/a"),
        ("to_f", "f"),
        ("d/up", ""),
        ("d/up/f", "f"),
        ("absolute/a", "d/a"),
        ("twice/a", "d/a"),
        ("out", "f"),  # more .. than there are directories
        ("dangling", None),
        ("loop", None),
        ("f/a", None),
        ("nope", None),
        ("to_d/..", ""),
    ],
)
def test_links_lead_somewhere_in_the_context_or_nowhere(path: str, real: str | None) -> None:
    found = tree(
        "f",
        "d/a",
        "to_d -> d",
        "to_f -> ./f",
        "d/up -> ..",
        "absolute -> /d",
        "twice -> to_d",
        "out -> ../../f",
        "dangling -> x",
        "loop -> loop",
    )
    assert found.resolve(path) == real


def test_hard_links_lead_to_the_file() -> None:
    found = tree("a", "b = a", "c = b", "gone = x", "round = round", "d/")
    assert [found.file(path) for path in ("a", "b", "c")] == [member("a")] * 3
    assert found.file("gone") is None
    assert found.file("round") is None
    assert found.file("nope") is None


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a.c", ["a.c"]),
        ("/a.c", ["a.c"]),
        ("../a.c", ["a.c"]),
        ("d/", ["d"]),
        (".", [""]),
        ("/", [""]),
        ("nope", []),
        ("*.c", ["a.c", "b.c"]),
        ("*", ["a.c", "b.c", "d", "e", "l", "w[1]"]),
        ("?.c", ["a.c", "b.c"]),
        ("[b-z].c", ["b.c"]),
        ("*/x.c", ["d/x.c", "l/x.c"]),
        ("d/*", ["d/s", "d/x.c"]),
        ("l/*.c", ["l/x.c"]),
        ("*/*/*", ["d/s/y.c", "l/s/y.c"]),
        ("**", ["a.c", "b.c", "d", "e", "l", "w[1]"]),  # ** is nothing special in a source
        ("**/y.c", []),
        ("w\\[1]", ["w[1]"]),
        ("*.nope", []),
    ],
)
def test_what_a_source_means(pattern: str, paths: list[str]) -> None:
    assert tree("a.c", "b.c", "d/x.c", "d/s/y.c", "e/", "l -> d", "w[1]").match(pattern) == paths


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("**/y.c", ["d/s/y.c"]),
        ("**/*.c", ["a.c", "b.c", "d/x.c", "d/s/y.c"]),
        ("d/**/*.c", ["d/x.c", "d/s/y.c"]),
        ("**/**/y.c", ["d/s/y.c"]),
        ("d/**", ["d/s", "d/x.c"]),
        ("a.c/**/x", []),
    ],
)
def test_any_number_of_directories(pattern: str, paths: list[str]) -> None:
    found = tree("a.c", "b.c", "d/x.c", "d/s/y.c", "e/", "l -> d", "w[1]")
    assert found.match(pattern, deep=True) == paths


def test_what_is_left_out_cannot_be_found() -> None:
    found = tree("a", "d/", "d/a", "d/keep/b", "x/", "x/a", ignore=("d", "!d/keep", "x/*"))
    assert list(found.walk("")) == ["a", "d", "d/keep", "d/keep/b", "x"]
    assert found.get("d") is None  # it is there only for what it holds
    assert found.resolve("d/a") is None


def test_a_hard_link_keeps_the_bytes_of_a_file_that_is_left_out() -> None:
    found = tree("secret", "b = secret", ignore=("secret",))
    assert "secret" not in found
    assert found.file("b") == member("secret")


@pytest.mark.parametrize(
    ("text", "path"),
    [("a/b", "a/b"), ("/a//b/", "a/b"), ("./a", "a"), ("../../a", "a"), ("a/../../b", "b"), (".", ""), ("//a", "a")],
)
def test_sources_stay_in_the_context(text: str, path: str) -> None:
    assert clean_source(text) == path
