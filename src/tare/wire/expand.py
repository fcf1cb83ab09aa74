"""Variables in a Dockerfile: `$v ${v:-w} ${v#p} ${v/p/r}` and the rest, quotes and escapes as the shell has them.

Source: Dockerfile reference, "Environment replacement"; ENGINE-API 4.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

from tare.base.errors import InvalidArgument

_NAME = re.compile(r"[^\W\d]\w*|\d+|[-@*#?$!]")
"""Letters of any script; positional and special parameters are names as well, of variables that nobody can set."""
_MAX_DEPTH = 32
_MAX_RESULT = 1024 * 1024
_MAX_PATTERN = 4096
_ANY, _ONE = "any", "one"  # tokens of a pattern that are no characters

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


def split_words(rest: str, escape: str = "\\") -> list[str]:
    """Words separated by white space outside of quotes; quotes and escapes are kept for the expansion."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    at = 0
    while at < len(rest):
        char = rest[at]
        if char == escape and quote != "'" and at + 1 < len(rest):
            word.append(rest[at : at + 2])
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
            word.append(char)
        elif char in "'\"":
            quote = char
            word.append(char)
        elif char.isspace():
            if word:
                words.append("".join(word))
                word = []
        else:
            word.append(char)
        at += 1
    if word:
        words.append("".join(word))
    return words


class _Expander:
    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        escape: str,
        unset: OnUnset | None,
        *,
        keeps_quotes: bool = False,
        is_pattern: bool = False,
        depth: int = 0,
    ) -> None:
        if depth > _MAX_DEPTH:
            raise ExpansionError("variables are nested too deep")
        self._text = text
        self._variables = variables
        self._escape = escape
        self._unset = unset
        self._keeps = keeps_quotes
        self._is_pattern = is_pattern
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
                protects = follows in f'"${self._escape}'
                self._put("\\" + follows if self._is_pattern else follows if protects else char + follows)
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
        if self._is_pattern:  # what is escaped is no wildcard
            self._put("\\" + follows)
        elif self._keeps and follows not in f"${self._escape}":
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
            pattern = self._inner("/", "}", is_pattern=True)
            replacement = self._inner("}") if self._text[self._at - 1] == "/" else ""
            return _replace(self._value(name) or "", pattern, replacement, every=operator == "//")
        if operator[0] in "#%":
            pattern = self._inner("}", is_pattern=True)
            return _cut(self._value(name) or "", pattern, operator)
        word = self._inner("}")
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

    def _inner(self, *ends: str, is_pattern: bool = False) -> str:
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
                inside = _Expander(
                    word, self._variables, self._escape, self._unset, is_pattern=is_pattern, depth=self._depth + 1
                )
                return "".join(inside.run())
            self._at += 1
        raise ExpansionError("syntax error: missing '}' in a substitution")


_Masks = tuple[dict[str, int], int, int]


@lru_cache(maxsize=256)
def _tokens(text: str) -> tuple[str, ...]:
    """A shell pattern with `*` and `?`, cut up: `\\x` is x."""
    found: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            at += 1
            found.append(text[at])
        elif char in "*?":
            if char == "?" or found[-1:] != [_ANY]:
                found.append(_ANY if char == "*" else _ONE)
        else:
            found.append(char)
        at += 1
    return tuple(found)


def _masks(tokens: tuple[str, ...]) -> _Masks:
    """For each character the tokens it satisfies, the same for any character, and where the stars are: bit sets."""
    chars: dict[str, int] = {}
    one = stars = 0
    for place, token in enumerate(tokens):
        if token == _ANY:
            stars |= 1 << place
        elif token == _ONE:
            one |= 1 << place
        else:
            chars[token] = chars.get(token, 0) | 1 << place
    return chars, one, stars


def _ends(value: Iterable[str], tokens: tuple[str, ...], *, anywhere: bool = False) -> Iterator[int]:
    """How many characters of `value` the pattern can take, ascending; `anywhere`: where matches end, begun anywhere.

    All ways are followed at once: the time is that of one pass, whatever the pattern.
    """
    chars, one, stars = _masks(tokens)
    last = 1 << len(tokens)
    state = 1 | (stars & 1) << 1
    if state & last:
        yield 0
    begin = state if anywhere else 0
    for count, char in enumerate(value, 1):
        state = (state & (chars.get(char, 0) | one)) << 1 | state & stars
        state |= (state & stars) << 1 | begin
        if state & last:
            yield count
        if not state:
            return


def _checked(pattern: str) -> tuple[str, ...]:
    tokens = _tokens(pattern)
    if len(tokens) > _MAX_PATTERN:  # each character costs a step over all of them
        raise ExpansionError("a pattern is too long")
    return tokens


def _cut(value: str, pattern: str, operator: str) -> str:
    """Take the shortest or longest match off the front (`#`) or the end (`%`)."""
    tokens = _checked(pattern)
    front = operator[0] == "#"
    ends = _ends(value, tokens) if front else _ends(reversed(value), tokens[::-1])
    count = next(ends, 0) if len(operator) == 1 else max(ends, default=0)
    return value[count:] if front else value[: len(value) - count]


def _replace(value: str, pattern: str, replacement: str, *, every: bool) -> str:
    """Replace the first match or all, each as long as it can be."""
    if not pattern:
        return value
    tokens = _checked(pattern)
    starts = sorted(len(value) - end for end in _ends(reversed(value), tokens[::-1], anywhere=True))
    out: list[str] = []
    at = 0
    for start in starts:
        if start < at:
            continue
        # A match with a star reaches to the last place where one can end: there is but one.
        is_only = _ANY in tokens
        count = max(_ends(value[start:], tokens)) if is_only else len(tokens)
        out += (value[at:start], replacement)
        at = start + count
        if is_only or not every:
            break
    if sum(map(len, out)) > _MAX_RESULT:
        raise ExpansionError("an expanded line is too long")
    return "".join(out) + value[at:]
