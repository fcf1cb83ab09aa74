"""Patterns of `.dockerignore`, of `--exclude` and of source wildcards.

Source: ENGINE-API 4.6 (Go's filepath.Match) and 4.8.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tare.base.errors import InvalidArgument

MAX_PATTERNS = 10_000
_WILD = re.compile(r"[*?\[\\]")


def has_wildcards(text: str) -> bool:
    """Whether `text` is a pattern and not a plain path."""
    return bool(_WILD.search(text))


@lru_cache(maxsize=4096)
def glob(pattern: str, *, deep: bool = False) -> re.Pattern[str]:
    """A Go pattern as a regular expression for whole paths: `* ? [a-z] \\x` never match `/`; with `deep`, `**` does.

    Raises InvalidArgument for a pattern that is not complete.
    """
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            if deep and pattern.startswith("**", at):
                at += 2
                if pattern.startswith("/", at):
                    at += 1
                    out.append("(?:.*/)?")
                else:
                    out.append(".*")
                continue
            while pattern.startswith("*", at + 1):
                at += 1
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            end, text = _class(pattern, at)
            out.append(text)
            at = end
            continue
        elif char == "\\":
            at += 1
            if at >= len(pattern):
                raise InvalidArgument(f"syntax error in pattern {pattern!r}")
            out.append(re.escape(pattern[at]))
        else:
            out.append(re.escape(char))
        at += 1
    return re.compile("".join(out), re.DOTALL)


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


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: paths that match, and what is below them, are left out, or with `keeps` put back."""

    pattern: re.Pattern[str]
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
