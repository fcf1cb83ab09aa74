"""Variables in a Dockerfile: `$v ${v:-w} ${v#p} ${v/p/r}` and the rest, quotes and escapes as the shell has them.

Source: Dockerfile reference, "Environment replacement"; ENGINE-API 4.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from tare.base.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = "@*#0123456789"
_MAX_DEPTH = 32
_MAX_RESULT = 1024 * 1024

OnUnset = Callable[[str], None]


class ExpansionError(InvalidArgument):
    """A variable expression that is wrong, or `${v:?message}` of a variable without a value."""


def expand(text: str, variables: Mapping[str, str], *, escape: str = "\\", unset: OnUnset | None = None) -> str:
    """Replace variables and take quotes and escapes away. One word comes out, spaces included. Raises ExpansionError.

    unset: told the name of each variable that has no value and no default.
    """
    words = _Expander(text, variables, escape, unset).run()
    return "".join(words)


def expand_words(
    text: str, variables: Mapping[str, str], *, escape: str = "\\", unset: OnUnset | None = None
) -> list[str]:
    """As `expand`, split at the white space that no quote protects (values of variables split too)."""
    return _Expander(text, variables, escape, unset).run(splits=True)


def expand_raw(text: str, variables: Mapping[str, str], *, escape: str = "\\", unset: OnUnset | None = None) -> str:
    """Replace variables but keep quotes and their escapes: here-documents and legacy `ENV name value` forms."""
    return "".join(_Expander(text, variables, escape, unset, keeps_quotes=True).run())


class _Expander:
    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        escape: str,
        unset: OnUnset | None,
        *,
        keeps_quotes: bool = False,
        depth: int = 0,
    ) -> None:
        if depth > _MAX_DEPTH:
            raise ExpansionError("variables are nested too deep")
        self._text = text
        self._variables = variables
        self._escape = escape
        self._unset = unset
        self._keeps = keeps_quotes
        self._depth = depth
        self._at = 0
        self._words: list[str] = []
        self._word: list[str] = []
        self._open = False  # the current word exists even if it is empty (it was quoted)
        self._size = 0

    def run(self, *, splits: bool = False) -> list[str]:
        text = self._text
        while self._at < len(text):
            char = text[self._at]
            if not self._keeps and char == "'":
                self._single()
            elif not self._keeps and char == '"':
                self._double()
            elif char == self._escape:
                self._escaped()
            elif char == "$":
                self._put(self._dollar(), splits=splits)
            elif splits and char.isspace():
                self._at += 1
                self._end_word()
            else:
                self._at += 1
                self._put(char)
        self._end_word()
        return self._words

    def _put(self, piece: str, *, splits: bool = False) -> None:
        self._size += len(piece)
        if self._size > _MAX_RESULT:
            raise ExpansionError("an expanded line is too long")
        if not splits or not any(char.isspace() for char in piece):
            if piece:
                self._open = True
                self._word.append(piece)
            return
        for index, part in enumerate(re.split(r"\s+", piece)):
            if index:
                self._end_word()
            if part:
                self._open = True
                self._word.append(part)

    def _end_word(self) -> None:
        if self._open:
            self._words.append("".join(self._word))
        self._word, self._open = [], False

    def _single(self) -> None:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise ExpansionError("unexpected end of statement while looking for matching single-quote")
        self._open = True
        self._put(self._text[self._at + 1 : end])
        self._at = end + 1

    def _double(self) -> None:
        text = self._text
        self._open = True
        self._at += 1
        while self._at < len(text):
            char = text[self._at]
            if char == '"':
                self._at += 1
                return
            if char == "$":
                self._put(self._dollar())
                continue
            if char == self._escape and self._at + 1 < len(text):
                follows = text[self._at + 1]
                # Inside double quotes the escape only protects what would mean something there.
                self._put(follows if follows in f'"${self._escape}' else char + follows)
                self._at += 2
                continue
            self._put(char)
            self._at += 1
        raise ExpansionError("unexpected end of statement while looking for matching double-quote")

    def _escaped(self) -> None:
        if self._at + 1 >= len(self._text):
            self._at += 1
            if self._keeps:
                self._put(self._escape)
            return
        follows = self._text[self._at + 1]
        self._at += 2
        self._open = True
        if self._keeps and follows not in f"${self._escape}":
            self._put(self._escape + follows)
        else:
            self._put(follows)

    # -- variables ----------------------------------------------------------------------------------------------------

    def _dollar(self) -> str:
        text = self._text
        self._at += 1
        if self._at >= len(text):
            return "$"
        char = text[self._at]
        if char == "{":
            return self._braced()
        if match := _NAME.match(text, self._at):
            self._at = match.end()
            return self._value(match[0]) or ""
        if char in _SPECIAL:
            self._at += 1
            return self._value(char) or ""
        return "$"

    def _value(self, name: str, *, tells: bool = True) -> str | None:
        value = self._variables.get(name)
        if value is None and tells and self._unset is not None:
            self._unset(name)
        return value

    def _braced(self) -> str:
        text = self._text
        start = self._at
        self._at += 1
        if match := _NAME.match(text, self._at):
            name = match[0]
            self._at = match.end()
        elif self._at < len(text) and text[self._at] in _SPECIAL:
            name = text[self._at]
            self._at += 1
        else:
            self._at = len(text)
            raise ExpansionError(f"bad substitution: ${text[start:][:40]}")
        if self._at >= len(text):
            raise ExpansionError(f"syntax error: missing '}}' in ${text[start:][:40]}")
        operator = text[self._at]
        if operator == "}":
            self._at += 1
            return self._value(name) or ""
        if (operator == ":" and text[self._at + 1 : self._at + 2] in ("-", "+", "?")) or text[
            self._at : self._at + 2
        ] in ("##", "%%", "//"):
            operator += text[self._at + 1]
        elif operator not in "-+?#%/":
            raise ExpansionError(f"unsupported modifier ({text[self._at : self._at + 2]}) in substitution")
        self._at += len(operator)
        return self._apply(name, operator)

    def _apply(self, name: str, operator: str) -> str:
        if operator[0] == "/":
            pattern = self._inner("/", "}")
            replacement = self._inner("}") if self._text[self._at - 1] == "/" else ""
            return _replace(self._value(name) or "", pattern, replacement, every=operator == "//")
        word = self._inner("}")
        if operator[0] in "#%":
            return _cut(self._value(name) or "", word, operator)
        value = self._value(name, tells=False)
        has = bool(value) if operator[0] == ":" else value is not None
        kind = operator[-1]
        if kind == "+":
            return word if has else ""
        if has:
            return value or ""
        if kind == "?":
            raise ExpansionError(f"{name}: {word or 'parameter not set'}")
        return word

    def _inner(self, *ends: str) -> str:
        """The expanded word up to one of `ends`, which is passed over."""
        text = self._text
        start = self._at
        depth = 0
        quote = ""
        while self._at < len(text):
            char = text[self._at]
            if char == self._escape and quote != "'":
                self._at += 2
                continue
            if quote:
                quote = "" if char == quote else quote
            elif char in "'\"":
                quote = char
            elif char == "$" and text[self._at + 1 : self._at + 2] == "{":
                depth += 1
                self._at += 1
            elif char == "}" and depth:
                depth -= 1
            elif char in ends and not depth:
                word = text[start : self._at]
                self._at += 1
                inside = _Expander(word, self._variables, self._escape, self._unset, depth=self._depth + 1)
                return "".join(inside.run())
            self._at += 1
        raise ExpansionError("syntax error: missing '}' in a substitution")


@lru_cache(maxsize=256)
def _pattern(text: str, *, greedy: bool) -> re.Pattern[str]:
    """A shell pattern with `*` and `?`; `\\x` is x."""
    out: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            at += 1
            out.append(re.escape(text[at]))
        elif char == "*":
            if not out or out[-1] not in (".*", ".*?"):
                out.append(".*" if greedy else ".*?")
        elif char == "?":
            out.append(".")
        else:
            out.append(re.escape(char))
        at += 1
    return re.compile("".join(out), re.DOTALL)


def _cut(value: str, pattern: str, operator: str) -> str:
    """Take the shortest or longest match off the front (`#`) or the end (`%`)."""
    whole = _pattern(pattern, greedy=True)
    if operator[0] == "#":
        lengths = range(len(value) + 1) if operator == "#" else range(len(value), -1, -1)
        return next((value[length:] for length in lengths if whole.fullmatch(value[:length])), value)
    starts = range(len(value), -1, -1) if operator == "%" else range(len(value) + 1)
    return next((value[:start] for start in starts if whole.fullmatch(value[start:])), value)


def _replace(value: str, pattern: str, replacement: str, *, every: bool) -> str:
    if not pattern:
        return value
    return _pattern(pattern, greedy=True).sub(lambda _: replacement, value, count=0 if every else 1)
