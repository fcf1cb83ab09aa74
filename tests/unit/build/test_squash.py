from __future__ import annotations

from tare.build.squash import Entry, squash, squashed_history
from tare.drivers.archive.spool import Member


def file(name: str, size: int = 1) -> Member:
    return Member(name, "0", 0o644, 0, 0, size, 0)


def directory(name: str) -> Member:
    return Member(name, "5", 0o755, 0, 0, 0, 0)


def link(name: str, to: str) -> Member:
    return Member(name, "1", 0o644, 0, 0, 0, 0, to)


def names(entries: list[Entry]) -> list[str]:
    return [entry.path for entry in entries]


def test_the_later_layer_wins_and_directories_are_joined() -> None:
    low, high = file("d/a"), file("d/a", 2)
    made = squash([[directory("d"), low, file("d/b")], [directory("d"), high]])
    assert names(made) == ["d", "d/a", "d/b"]
    assert [entry.member for entry in made if entry.path == "d/a"] == [high]
    assert [entry.layer for entry in made] == [1, 1, 0]


def test_what_goes_again_leaves_its_whiteout_for_what_is_below() -> None:
    made = squash([[file("d/a"), file("d/b")], [file("d/.wh.a")]])
    assert names(made) == ["d/.wh.a", "d/b"]


def test_a_whiteout_of_the_same_layer_does_not_hide_what_that_layer_brings() -> None:
    made = squash([[directory("d"), file("d/old")], [directory("d"), file("d/new"), file("d/.wh..wh..opq")]])
    assert names(made) == ["d", "d/.wh..wh..opq", "d/new"]


def test_a_directory_where_something_was_removed_hides_what_is_below() -> None:
    made = squash([[file(".wh.d")], [directory("d"), file("d/x")]])
    assert names(made) == ["d", "d/.wh..wh..opq", "d/x"]
    made = squash([[file("d")], [directory("d")]])
    assert names(made) == ["d", "d/.wh..wh..opq"]
    assert names(squash([[directory("d"), file("d/x")], [file("d")]])) == ["d"]


def test_links_stay_links_and_become_files_when_they_are_the_last_name() -> None:
    made = squash([[file("a"), link("b", "a")]])
    assert [(entry.path, entry.link) for entry in made] == [("a", ""), ("b", "a")]
    made = squash([[file("a"), link("b", "a")], [file(".wh.a")]])
    assert [(entry.path, entry.link, entry.member is None) for entry in made] == [(".wh.a", "", True), ("b", "", False)]
    assert squash([[link("b", "nothing")]]) == []


def test_the_history_keeps_its_steps_and_says_what_was_merged() -> None:
    steps = [{"created_by": "base"}, {"created_by": "RUN a"}, {"created_by": "RUN b"}]
    made = squashed_history(steps, kept=1, image="sha256:i", base="sha256:b", created="now")
    assert made[0] == {"created_by": "base"}
    assert all(step["empty_layer"] for step in made[1:3])
    assert made[3] == {"created": "now", "comment": "merge sha256:i to sha256:b"}
    assert squashed_history([], kept=0, image="i", base="", created="t") == [
        {"created": "t", "comment": "create new from i"}
    ]
