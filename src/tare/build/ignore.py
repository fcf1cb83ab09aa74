"""Patterns of `.dockerignore`, of `--exclude` and of source wildcards.

Source: ENGINE-API 4.6 (Go's filepath.Match) and 4.8.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

from msgspec import Struct

from tare.base.errors import InvalidArgument

MAX_PATTERNS = 10_000
_WILD = re.compile(r"[*?\[\\]")


def has_wildcards(text: str) -> bool:
    """Whether `text` is a pattern and not a plain path."""
    return bool(_WILD.search(text))


class Matcher(Protocol):
    """A pattern that was read."""

    def fullmatch(self, text: str, /) -> object:
        """Something that is true when the whole text matches."""
        ...


_PIECES = {"star": "[^/]*", "deep": ".*", "directories": "(?:.*/)?", "one": "[^/]"}
_MOST_LOOPS = 2  # more of them make Python's expressions try too many ways


class _Linear:
    """A pattern with many stars: all ways are followed at once, so the time is that of one pass."""

    def __init__(self, tokens: Sequence[tuple[str, str]]) -> None:
        self._chars: dict[str, int] = {}
        self._classes: list[tuple[int, re.Pattern[str]]] = []
        self._one = self._star = self._deep = self._enter = self._leave = self._skip = 0
        at = 0
        for kind, text in tokens:
            bit = 1 << at
            if kind == "char":
                self._chars[text] = self._chars.get(text, 0) | bit
            elif kind == "class":
                self._classes.append((bit, re.compile(text, re.DOTALL)))
            elif kind == "one":
                self._one |= bit
            elif kind == "directories":  # where it begins, then where it is inside, which only a `/` leaves
                self._enter |= bit
                self._deep |= bit << 1
                self._leave |= bit << 1
                at += 1
            else:
                self._skip |= bit
                self._star |= bit if kind == "star" else 0
                self._deep |= bit if kind == "deep" else 0
            at += 1
        self._last = 1 << at

    def fullmatch(self, text: str) -> bool:
        """Whether the whole text matches."""
        state = self._closed(1)
        for char in text:
            moves = self._chars.get(char, 0)
            stays = self._deep
            if char != "/":
                moves |= self._one
                stays |= self._star
            else:
                moves |= self._leave
            for bit, pattern in self._classes:
                if state & bit and pattern.fullmatch(char):
                    moves |= bit
            state = self._closed((state & moves) << 1 | state & stays)
            if not state:
                return False
        return bool(state & self._last)

    def _closed(self, state: int) -> int:
        """With what is reached without a character."""
        while True:
            more = state | (state & self._skip) << 1 | (state & self._enter) << 1 | (state & self._enter) << 2
            if more == state:
                return state
            state = more


@lru_cache(maxsize=4096)
def glob(pattern: str, *, deep: bool = False) -> Matcher:
    """A Go pattern, for whole paths: `* ? [a-z] \\x` never match `/`; with `deep`, `**` does.

    Raises InvalidArgument for a pattern that is not complete.
    """
    tokens = _tokens(pattern, deep=deep)
    if sum(kind in ("star", "deep", "directories") for kind, _ in tokens) > _MOST_LOOPS:
        return _Linear(tokens)
    pieces = [_PIECES.get(kind) or (text if kind == "class" else re.escape(text)) for kind, text in tokens]
    return re.compile("".join(pieces), re.DOTALL)


def _tokens(pattern: str, *, deep: bool) -> list[tuple[str, str]]:
    """What the parts of a pattern are: kinds of `_PIECES`, `class` with its expression, `char`."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            if deep and pattern.startswith("**", at):
                at += 2
                is_directories = pattern.startswith("/", at)
                at += is_directories
                found.append(("directories" if is_directories else "deep", ""))
                continue
            while pattern.startswith("*", at + 1):
                at += 1
            found.append(("star", ""))
        elif char == "?":
            found.append(("one", ""))
        elif char == "[":
            at, text = _class(pattern, at)
            found.append(("class", text))
            continue
        elif char == "\\":
            at += 1
            if at >= len(pattern):
                raise InvalidArgument(f"syntax error in pattern {pattern!r}")
            found.append(("char", pattern[at]))
        else:
            found.append(("char", char))
        at += 1
    return found


def _class(pattern: str, start: int) -> tuple[int, str]:
    """`[a-z]`, `[^x]`: where it ends, and the same for a regular expression."""
    at = start + 1
    negated = pattern.startswith("^", at)
    at += negated
    members: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not members):
        low, at = _member(pattern, at)
        high = low
        if pattern.startswith("-", at) and not pattern.startswith("-]", at):
            high, at = _member(pattern, at + 1)
        if low > high:
            raise InvalidArgument(f"syntax error in pattern {pattern!r}")
        members.append(f"{re.escape(low)}-{re.escape(high)}")
    if at >= len(pattern):
        raise InvalidArgument(f"syntax error in pattern {pattern!r}")
    return at + 1, f"(?!/)[{'^' if negated else ''}{''.join(members)}]"


def _member(pattern: str, at: int) -> tuple[str, int]:
    if pattern.startswith("\\", at):
        at += 1
    if at >= len(pattern):
        raise InvalidArgument(f"syntax error in pattern {pattern!r}")
    return pattern[at], at + 1


class Rule(Struct, frozen=True):
    """One line: paths that match, and what is below them, are left out, or with `keeps` put back."""

    pattern: Matcher
    keeps: bool


class Ignore:
    """An ordered list of rules; the last one that matches decides."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)

    def __bool__(self) -> bool:
        return bool(self.rules)

    def leaves_out(self, path: str) -> bool:
        """Whether `path` (relative, clean) is left out. A rule matches a path or any directory above it."""
        above = [path]
        while (parent := posixpath.dirname(above[-1])) != "":
            above.append(parent)
        out = False
        for rule in self.rules:
            if rule.keeps == out and any(rule.pattern.fullmatch(place) for place in above):
                out = not rule.keeps
        return out


def read_ignore(data: bytes | str) -> Ignore:
    """A `.dockerignore`. Raises InvalidArgument for a pattern that is not complete."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    lines = text.removeprefix("\ufeff").split("\n")
    return ignore_of(line for line in lines if not line.startswith("#"))


def ignore_of(lines: Iterable[str]) -> Ignore:
    """Rules from lines as they stand in a `.dockerignore`, or from `--exclude`."""
    rules: list[Rule] = []
    for line in lines:
        text = line.strip()
        keeps = text.startswith("!")
        if keeps:
            text = text[1:].strip()
        if not text:
            continue
        text = posixpath.normpath(text).lstrip("/")
        if len(rules) >= MAX_PATTERNS:
            raise InvalidArgument(f"more than {MAX_PATTERNS} ignore patterns")
        if text not in ("", "."):
            rules.append(Rule(glob(text, deep=True), keeps))
    return Ignore(rules)
