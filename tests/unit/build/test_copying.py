"""COPY: which members are chosen, where they land, and what they become there."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument, NotFound
from tare.build.copying import Layout, Owner, Place, Wish, change_mode, choose, digest_of
from tare.build.tree import Tree
from tare.drivers.archive.spool import Member


def member(name: str, kind: str = "0", linkname: str = "", *, mode: int = 0o640, sha: str = "aa") -> Member:
    return Member(name, kind, mode, 7, 8, 3, 99, linkname, sha256=sha if kind == "0" else "")


def context() -> Tree:
    return Tree(
        [
            member("f", mode=0o755),
            member("g"),
            member("d", "5", mode=0o700),
            member("d/a"),
            member("d/s", "5", mode=0o711),
            member("d/s/b"),
            member("d/link", "2", "a"),
            member("to_d", "2", "d"),
            member("to_f", "2", "f"),
            member("h", "1", "g"),
        ]
    )


def places(source: str, *, parents: bool = False, excludes: tuple[str, ...] = ()) -> dict[str, str]:
    """Where members come to, and from where."""
    (group,) = choose(context(), [source], parents=parents, excludes=excludes)
    return {chosen.place: chosen.path for chosen in group}


@pytest.mark.parametrize(
    ("source", "chosen"),
    [
        ("f", {"f": "f"}),
        ("/d/a", {"a": "d/a"}),
        ("to_f", {"to_f": "f"}),
        ("d", {"": "d", "a": "d/a", "link": "d/link", "s": "d/s", "s/b": "d/s/b"}),
        ("to_d/s", {"": "d/s", "b": "d/s/b"}),
        ("d/link", {"link": "d/a"}),
    ],
)
def test_a_directory_means_its_contents(source: str, chosen: dict[str, str]) -> None:
    assert places(source) == chosen


@pytest.mark.parametrize(
    ("source", "chosen"),
    [
        ("d/s/b", {"d/s/b": "d/s/b"}),
        ("d/s", {"d/s": "d/s", "d/s/b": "d/s/b"}),
        ("d/./s/b", {"s/b": "d/s/b"}),
        ("./d/a", {"d/a": "d/a"}),
        ("d/s/./", {"": "d/s", "b": "d/s/b"}),
        ("[d]/./s/b", {"s/b": "d/s/b"}),
        ("*/./s/b", {"s/b": "d/s/b"}),
        ("./**/b", {"d/s/b": "d/s/b"}),
        ("d/./**/b", {"s/b": "d/s/b"}),
    ],
)
def test_parents_keep_the_path_after_the_pivot(source: str, chosen: dict[str, str]) -> None:
    groups = choose(context(), [source], parents=True)
    assert {item.place: item.path for item in groups[0]} == chosen


@pytest.mark.parametrize(
    ("source", "excludes", "chosen"),
    [
        ("d", ("a",), ["", "link", "s", "s/b"]),
        ("d", ("s",), ["", "a", "link"]),
        ("d", ("**/b",), ["", "a", "link", "s"]),
        ("d", ("*", "!a"), ["", "a"]),
        ("f", ("f",), []),
        ("f", ("g",), ["f"]),
    ],
)
def test_excludes(source: str, excludes: tuple[str, ...], chosen: list[str]) -> None:
    assert sorted(places(source, excludes=excludes)) == chosen


def test_each_match_of_a_pattern_is_a_group_and_none_is_no_error() -> None:
    assert [[item.path for item in group] for group in choose(context(), ["[fg]", "*.nope", "h"])] == [
        ["f"],
        ["g"],
        ["h"],
    ]


@pytest.mark.parametrize("source", ["nope", "d/nope", "f/a", "dangling", "dang*"])
def test_what_is_not_there(source: str) -> None:
    tree = Tree([member("f"), member("d/x"), member("dangling", "2", "away")])
    with pytest.raises(
        NotFound, match=r"^ADD failed: file not found in build context or excluded by \.dockerignore: stat"
    ):
        choose(tree, [source], what="ADD")


def digest(*members: Member, source: str = ".") -> str:
    tree = Tree(members)
    return digest_of(tree, choose(tree, [source]))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"mtime_ns": 1}, True),
        ({"offset": 1}, True),
        ({"mode": 0o600}, False),
        ({"uid": 1}, False),
        ({"gid": 1}, False),
        ({"sha256": "bb"}, False),
        ({"name": "b"}, False),
        ({"kind": "2", "linkname": "x"}, False),
        ({"xattrs": {"security.capability": "00"}}, False),
    ],
)
def test_the_digest_is_of_all_but_times(change: dict[str, object], same: bool) -> None:
    changed = member("a")
    for name, value in change.items():
        setattr(changed, name, value)
    assert (digest(member("a")) == digest(changed)) is same


def test_the_digest_is_of_what_is_read_only() -> None:
    assert digest(member("a"), member("b"), source="a") == digest(member("a"), member("b", sha="bb"), source="a")


IMAGE = {
    "/": Place(path="/", kind="5"),
    "/etc": Place(path="/etc", kind="5", mode=0o751, uid=3, gid=4, mtime_ns=5),
    "/link": Place(path="/etc", kind="5", mode=0o751, uid=3, gid=4, mtime_ns=5),
    "/file": Place(path="/file", kind="0"),
    "/flink": Place(path="/file", kind="0"),
    "/dangling": Place(path="/gone/away", kind=""),
}


def laid(wish: Wish, *sources: str, tree: Tree | None = None) -> dict[str, tuple[str, int, int]]:
    """place: (kind, mode, uid) of a COPY of the sources."""
    layout = Layout(wish, IMAGE.get)
    tree = tree or context()
    for group in choose(tree, sources):
        layout.add_group(tree, group)
    return {item.place: (item.kind, item.mode, item.uid) for item in layout.items()}


ETC = ("5", 0o751, 3)
NEW = ("5", 0o755, 0)
FILE = ("0", 0o755, 0)


@pytest.mark.parametrize(
    ("target", "source", "items"),
    [
        ("/x", "f", {"x": FILE}),
        ("/x/", "f", {"x": NEW, "x/f": FILE}),
        ("/x/.", "f", {"x": NEW, "x/f": FILE}),
        ("//x", "f", {"x": FILE}),
        ("/", "f", {"f": FILE}),
        ("/etc", "f", {"etc": ETC, "etc/f": FILE}),
        ("/etc/x/y", "f", {"etc": ETC, "etc/x": NEW, "etc/x/y": FILE}),
        ("/link", "f", {"etc": ETC, "etc/f": FILE}),
        ("/link/x", "f", {"etc": ETC, "etc/x": FILE}),
        ("/file", "f", {"file": FILE}),
        ("/flink", "f", {"file": FILE}),
        ("/dangling", "f", {"gone": NEW, "gone/away": FILE}),
        ("/dangling/", "f", {"gone": NEW, "gone/away": NEW, "gone/away/f": FILE}),
        ("/dangling/x", "f", {"gone": NEW, "gone/away": NEW, "gone/away/x": FILE}),
        ("/dangling", "d/s", {"gone": NEW, "gone/away": ("5", 0o711, 0), "gone/away/b": ("0", 0o640, 0)}),
        ("/etc", "d/s", {"etc": ETC, "etc/b": ("0", 0o640, 0)}),
        ("/link", "d/s", {"etc": ETC, "etc/b": ("0", 0o640, 0)}),
        ("/x", "d/s", {"x": ("5", 0o711, 0), "x/b": ("0", 0o640, 0)}),
        ("/", "d/s", {"b": ("0", 0o640, 0)}),
    ],
)
def test_where_things_land(target: str, source: str, items: dict[str, tuple[str, int, int]]) -> None:
    assert laid(Wish(target=target), source) == items


@pytest.mark.parametrize(("target", "source"), [("/file/", "f"), ("/file", "d"), ("/file/x", "f"), ("/flink", "d")])
def test_a_file_where_a_directory_must_be(target: str, source: str) -> None:
    with pytest.raises(InvalidArgument, match=r"cannot copy to .*: it is a file and must be a directory"):
        laid(Wish(target=target), source)


def test_several_sources_need_no_slash_of_their_own() -> None:
    assert list(laid(Wish(target="/x", many=True), "f", "g")) == ["x", "x/f", "x/g"]


def test_owner_and_mode() -> None:
    assert laid(Wish(target="/x/", owner=Owner(uid=5, gid=6), chmod="u=rwX,go="), "d/s", "g") == {
        "x": ("5", 0o700, 5),
        "x/b": ("0", 0o600, 5),
        "x/g": ("0", 0o600, 5),
    }
    assert laid(Wish(target="/x", owner=None), "g") == {"x": ("0", 0o640, 7)}


def test_hard_links_stay_links_and_come_after_what_they_name() -> None:
    tree = Tree([member("b"), member("a", "1", "b"), member("c", "1", "a")])
    for sources in (["."], ["c", "b", "a"], ["b", "c", "a"]):
        layout = Layout(Wish(target="/x/"), IMAGE.get)
        for group in choose(tree, sources):
            layout.add_group(tree, group)
        assert [(item.place, item.kind, item.linkname) for item in layout.items() if item.place != "x"] == [
            ("x/a", "0", ""),
            ("x/b", "1", "x/a"),
            ("x/c", "1", "x/a"),
        ]


def test_a_hard_link_is_a_copy_where_its_file_was_replaced() -> None:
    tree = Tree([member("1/a"), member("1/b", "1", "1/a"), member("2/a", sha="other")])
    layout = Layout(Wish(target="/x/"), IMAGE.get)
    for group in choose(tree, ["1", "2"]):
        layout.add_group(tree, group)
    assert [(item.place, item.member.sha256 if item.member else "") for item in layout.items()][1:] == [
        ("x/a", "other"),
        ("x/b", "aa"),
    ]


def test_hard_links_of_an_archive_keep_their_owner_and_stay_links() -> None:
    tree = Tree([member("in"), member("in2", "1", "in")])
    layout = Layout(Wish(target="/x/"), IMAGE.get)
    for group in choose(tree, ["."]):
        layout.with_owner(None).add_group(tree, group)
    assert [(item.place, item.kind, item.linkname) for item in layout.items() if item.place != "x"] == [
        ("x/in", "0", ""),
        ("x/in2", "1", "x/in"),
    ]


def test_a_broken_hard_link() -> None:
    with pytest.raises(InvalidArgument, match="broken hard link: a"):
        laid(Wish(target="/x"), "a", tree=Tree([member("a", "1", "gone")]))


def test_symbolic_links_in_a_directory_stay_links() -> None:
    layout = Layout(Wish(target="/x", chmod="600"), IMAGE.get)
    tree = context()
    for group in choose(tree, ["d"]):
        layout.add_group(tree, group)
    assert [(item.linkname, item.mode) for item in layout.items() if item.kind == "2"] == [("a", 0o640)]


@pytest.mark.parametrize(
    ("target", "place"), [("/x", "x"), ("/x/", "x/name"), ("/etc", "etc/name"), ("/link/n", "etc/n")]
)
def test_a_document_is_a_file(target: str, place: str) -> None:
    layout = Layout(Wish(target=target, mtime_ns=4), IMAGE.get)
    layout.add_text("name", "text\n")
    item = layout.items()[-1]
    assert (item.place, item.kind, item.mode, item.uid, item.mtime_ns, item.text) == (place, "0", 0o644, 0, 4, "text\n")


@pytest.mark.parametrize(
    ("text", "before", "is_directory", "after"),
    [
        ("755", 0o640, False, 0o755),
        ("0", 0o640, False, 0),
        ("04755", 0o640, False, 0o4755),
        ("7777", 0, True, 0o7777),
        ("u=rwX,go=rX", 0o640, False, 0o644),
        ("u=rwX,go=rX", 0o740, False, 0o755),
        ("u=rwX,go=rX", 0o640, True, 0o755),
        ("+x", 0o640, False, 0o751),
        ("a-w", 0o777, False, 0o555),
        ("go=", 0o777, False, 0o700),
        ("u+s,g+s,+t", 0o755, True, 0o7755),
        ("u-s", 0o4755, False, 0o755),
        ("u+x,g+X", 0o600, False, 0o710),
    ],
)
def test_modes(text: str, before: int, is_directory: bool, after: int) -> None:
    assert oct(change_mode(text, before, is_directory=is_directory)) == oct(after)


@pytest.mark.parametrize("text", ["", "8", "10000", "77777", "u", "u=q", "rwx", "u=rw,", "0o755"])
def test_modes_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid chmod parameter"):
        change_mode(text, 0o644, is_directory=False)
