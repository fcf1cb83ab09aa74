"""Patterns: a table, and a second matcher written from the rules alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tare.base.errors import InvalidArgument
from tare.build import ignore
from tare.build.ignore import MAX_PATTERNS, glob, has_wildcards, ignore_of, read_ignore


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "", True),
        ("*", "a.b", True),
        ("*", "a/b", False),
        ("**", "a", True),
        ("**", "a/b", False),
        ("a*c", "abbc", True),
        ("?", "a", True),
        ("?", "/", False),
        ("a?c", "ac", False),
        ("[a-c]x", "bx", True),
        ("[a-c]x", "dx", False),
        ("[^a-c]x", "dx", True),
        ("[^a]", "/", False),
        ("[a\\]]", "]", True),
        ("[a-]", "-", True),
        ("[.^]", "^", True),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("a.b", "axb", False),
        ("(a|b)+", "(a|b)+", True),
        ("*\n", "a\n", True),
    ],
)
def test_go_patterns(pattern: str, path: str, matches: bool) -> None:
    assert bool(glob(pattern).fullmatch(path)) is matches


@pytest.mark.parametrize("pattern", ["[", "[a", "[a-", "[\\", "a\\", "[b-a]", "[]", "[^]"])
def test_a_pattern_that_is_not_complete(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        glob(pattern)


@pytest.mark.parametrize(
    ("lines", "out", "kept"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b/a", "ab"]),
        ("/a/", ["a", "a/b"], ["b/a"]),
        ("./a/../b", ["b"], ["a"]),
        ("*.c", ["x.c", "x.c/y"], ["d/x.c"]),
        ("*/x", ["a/x"], ["x", "a/b/x"]),
        ("**/x", ["x", "a/x", "a/b/x", "a/x/b"], ["ax", "a/bx"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("**", ["a", "a/b"], []),
        ("**/**", ["a", "a/b"], []),
        ("**.c", ["x.c", "d/x.c"], ["x.d"]),
        ("a**/b", ["a/b", "ax/b", "ax/y/b"], ["b"]),
        ("*\n!a", ["b", "b/a"], ["a", "a/b"]),
        ("a\n!a/b", ["a", "a/c"], ["a/b", "a/b/c"]),
        ("a\n!a/b\na/b/c", ["a/b/c"], ["a/b/d"]),
        ("!a\na", ["a"], []),
        ("a\n! a ", [], ["a"]),
        ("#a\n #b", ["#b"], ["#a", "a", "b"]),
        ("\n \n!\n.\n/\n", [], ["a", ".", "/x"[1:]]),
        ("\ufeffa\r\nb\r\n", ["a", "b"], ["c"]),
        ("a\x0cb", ["a\x0cb"], ["a", "b"]),
        ("a b", ["a b"], ["a"]),
    ],
)
def test_ignore_files(lines: str, out: list[str], kept: list[str]) -> None:
    ignore = read_ignore(lines.encode())
    assert {path: ignore.leaves_out(path) for path in (*out, *kept)} == {
        **dict.fromkeys(out, True),
        **dict.fromkeys(kept, False),
    }


def test_nothing_is_left_out_without_rules() -> None:
    assert not ignore_of([])
    assert not ignore_of(["", "."])
    assert ignore_of(["#a"])  # a comment only in a file


def test_too_many_patterns() -> None:
    with pytest.raises(InvalidArgument, match=f"more than {MAX_PATTERNS}"):
        ignore_of("a" for _ in range(MAX_PATTERNS + 1))


@pytest.mark.parametrize(("text", "found"), [("a/b", False), ("a*", True), ("[a]", True), ("a?", True), ("\\a", True)])
def test_wildcards(text: str, found: bool) -> None:
    assert has_wildcards(text) is found


def part_matches(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return part_matches(pattern[1:], name) or (bool(name) and part_matches(pattern, name[1:]))
    return bool(name) and pattern[0] in ("?", name[0]) and part_matches(pattern[1:], name[1:])


def parts_match(pattern: list[str], path: list[str]) -> bool:
    """Component by component; `**` is any number of them, at the end at least one."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        if len(pattern) == 1:
            return bool(path)
        return parts_match(pattern[1:], path) or (bool(path) and parts_match(pattern, path[1:]))
    return bool(path) and part_matches(pattern[0], path[0]) and parts_match(pattern[1:], path[1:])


def simply_leaves_out(rules: list[tuple[bool, list[str]]], path: list[str]) -> bool:
    out = False
    for keeps, pattern in rules:
        if any(parts_match(pattern, path[:depth]) for depth in range(1, len(path) + 1)):
            out = not keeps
    return out


PART = st.sampled_from(["**", "*", "a", "b", "a*", "*b", "?", "a?", "*a*"])
RULES = st.lists(st.tuples(st.booleans(), st.lists(PART, min_size=1, max_size=4)), max_size=4)
PATH = st.lists(st.text(alphabet="ab", min_size=1, max_size=3), min_size=1, max_size=4)


@given(RULES, PATH)
@settings(max_examples=500, deadline=None)
def test_both_matchers_agree(rules: list[tuple[bool, list[str]]], path: list[str]) -> None:
    ignore = ignore_of(("!" if keeps else "") + "/".join(pattern) for keeps, pattern in rules)
    assert ignore.leaves_out("/".join(path)) == simply_leaves_out(rules, path)


@given(
    st.lists(st.sampled_from(["*", "**", "**/", "a", "b", "/", "?", "[a-b]", "[^a]", "\\*"]), max_size=9),
    st.text(alphabet="ab/*", max_size=9),
)
def test_both_ways_to_match_agree(parts: list[str], path: str) -> None:
    tokens = ignore._tokens("".join(parts), deep=True)
    pieces = [ignore._PIECES.get(kind) or (text if kind == "class" else re.escape(text)) for kind, text in tokens]
    expected = re.fullmatch("".join(pieces), path, re.DOTALL) is not None
    assert ignore._Linear(tokens).fullmatch(path) is expected


def test_many_stars_take_no_longer_than_their_path() -> None:
    # Python's own expressions would try some 10**30 ways.
    pattern = "**/" + "*a" * 40 + "b"
    assert not glob(pattern, deep=True).fullmatch("a" * 4000)
    assert glob(pattern, deep=True).fullmatch("x/" + "a" * 4000 + "b")
