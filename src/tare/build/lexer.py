"""A Dockerfile's text to lines of instructions: directives, continuations, comments, flags, here-documents.

Source: Dockerfile reference; ENGINE-API 4.2. Everything is linear in the length of the text.
"""

from __future__ import annotations

import json
import re

from msgspec import Struct

from tare.base.errors import InvalidArgument
from tare.wire.changes import INSTRUCTIONS, NOT_STRINGS
from tare.wire.expand import split_words

MAX_DOCKERFILE = 4 * 1024 * 1024
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S.*)$")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]+)\Z", re.DOTALL)
_BLANKS = re.compile(r"[\t\v\f\r ]+")
_TAKES_HEREDOCS = frozenset({"ADD", "COPY", "RUN"})
KNOWN_DIRECTIVES = frozenset({"syntax", "escape", "check"})


class DockerfileError(InvalidArgument):
    """A Dockerfile that cannot be understood. `line` counts from 1."""

    def __init__(self, message: str, *, line: int = 0, text: str = "") -> None:
        where = f"dockerfile parse error on line {line}: " if line else "dockerfile parse error: "
        shown = f"\n  {line:>4} | {text.splitlines()[0][:200]}" if line and text.strip() else ""
        super().__init__(f"{where}{message}{shown}")
        self.line = line
        self.reason = message


class Heredoc(Struct, frozen=True):
    """One here-document. `expands`: variables in it are replaced (its word was not quoted)."""

    name: str
    content: str
    expands: bool


class Line(Struct, frozen=True, kw_only=True):
    """One instruction as written. `rest` is what follows keyword and flags; `first` and `last` count from 1."""

    keyword: str
    flags: tuple[str, ...]
    rest: str
    original: str
    first: int
    last: int
    heredocs: tuple[Heredoc, ...] = ()
    written: str = ""  # the keyword as it was typed

    @property
    def array(self) -> tuple[str, ...] | None:
        """The words of the exec form, None where it is the shell form. Raises DockerfileError for a list of other things."""
        text = self.rest.strip()
        if not text.startswith("["):
            return None
        try:
            words = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(words, list):
            return None
        if not all(isinstance(word, str) for word in words):
            raise self.error(NOT_STRINGS)
        return tuple(_without_halves(word) for word in words)

    def error(self, message: str) -> DockerfileError:
        """An error that points here."""
        return DockerfileError(message, line=self.first, text=self.original)


class Dockerfile(Struct, frozen=True, kw_only=True):
    """All instructions, the parser directives, and warnings of the lexer as (line, text)."""

    lines: tuple[Line, ...]
    escape: str
    directives: dict[str, str]
    warnings: tuple[tuple[int, str], ...] = ()


def read_dockerfile(data: bytes | str) -> Dockerfile:
    """Cut a Dockerfile into instructions. Raises DockerfileError."""
    if len(data) > MAX_DOCKERFILE:
        raise DockerfileError(f"the Dockerfile is larger than {MAX_DOCKERFILE} bytes")
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    rows = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    directives, start = _directives(rows)
    escape = directives.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise DockerfileError(f"invalid ESCAPE '{escape}'. Must be ` or \\", line=1, text=rows[0])
    lines: list[Line] = []
    warnings: list[tuple[int, str]] = []
    at = start
    while at < len(rows):
        if _is_blank_or_comment(rows[at]):
            at += 1
            continue
        line, at = _instruction(rows, at, escape, warnings)
        lines.append(line)
    if not lines:
        raise DockerfileError("file with no instructions")
    return Dockerfile(lines=tuple(lines), escape=escape, directives=directives, warnings=tuple(warnings))


def _directives(rows: list[str]) -> tuple[dict[str, str], int]:
    """The parser directives at the top, and where the rest begins."""
    found: dict[str, str] = {}
    at = 1 if rows and rows[0].startswith("#!") else 0
    while at < len(rows):
        match = _DIRECTIVE.match(rows[at].strip())
        if match is None or match[1].lower() not in KNOWN_DIRECTIVES:
            break
        key = match[1].lower()
        if key in found:
            raise DockerfileError(f"only one {key} parser directive can be used", line=at + 1, text=rows[at])
        found[key] = match[2]
        at += 1
    return found, at


def _is_blank_or_comment(row: str) -> bool:
    stripped = row.strip()
    return not stripped or stripped.startswith("#")


def _instruction(rows: list[str], at: int, escape: str, warnings: list[tuple[int, str]]) -> tuple[Line, int]:
    first = at + 1
    continuation = re.compile(rf"(?<!{re.escape(escape)}){re.escape(escape)}[ \t]*$")
    parts: list[str] = []
    written: list[str] = []
    row = rows[at].lstrip()
    while True:
        written.append(rows[at])
        at += 1
        ends = continuation.search(row)
        # Two escapes at the end of a line are one that is meant, and the line ends there, as BuildKit's parser has it.
        parts.append(row[: ends.start()] if ends else row)
        if not ends:
            break
        skipped_blank = False
        while at < len(rows) and _is_blank_or_comment(rows[at]):
            skipped_blank = skipped_blank or not rows[at].strip()
            written.append(rows[at])
            at += 1
        if skipped_blank and at < len(rows):
            warnings.append((first, "Empty continuation line found in: " + parts[0].strip()))
        if at >= len(rows):
            break
        row = rows[at]
    joined = "".join(parts).strip()
    keyword, _, rest = joined.partition(" ") if " " in joined.replace("\t", " ") else (joined, "", "")
    if "\t" in keyword:
        keyword, _, more = keyword.partition("\t")
        rest = f"{more} {rest}".strip()
    upper = keyword.upper()
    original = "\n".join(written)
    if upper not in INSTRUCTIONS:
        raise DockerfileError(f"unknown instruction: {keyword}{_meant(upper)}", line=first, text=original)
    flags, rest = _flags(rest.strip(), escape)
    heredocs: list[Heredoc] = []
    takes = upper in _TAKES_HEREDOCS or (upper == "ONBUILD" and rest and _first(rest) in _TAKES_HEREDOCS)
    if takes and "<<" in rest:
        for name, chomps, expands in _heredoc_words(rest, escape):
            content, at = _heredoc(rows, at, name, chomps=chomps, first=first, original=original)
            heredocs.append(Heredoc(name, content, expands))
    line = Line(
        keyword=upper,
        flags=flags,
        rest=rest,
        original=original,
        first=first,
        last=at,
        heredocs=tuple(heredocs),
        written=keyword,
    )
    if not rest and upper not in ("SHELL", "CMD", "ENTRYPOINT", "RUN"):
        raise line.error(f"{upper} requires at least one argument")
    return line, at


def _first(text: str) -> str:
    return text.split(maxsplit=1)[0].upper()


def _without_halves(text: str) -> str:
    """JSON can name half of a surrogate pair, which is no character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _meant(keyword: str) -> str:
    """A hint for a misspelt instruction."""
    best = min(INSTRUCTIONS, key=lambda known: (distance(keyword, known), known))
    return f" (did you mean {best}?)" if distance(keyword, best) <= 2 else ""


def distance(one: str, other: str) -> int:
    """Edits between two words (adjacent letters swapped count once)."""
    if abs(len(one) - len(other)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, before_row, row = row, before, [i]
        before = above
        for j, b in enumerate(other, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b and before_row:
                cost = min(cost, before_row[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _flags(rest: str, escape: str) -> tuple[tuple[str, ...], str]:
    """Leading `--name[=value]` words, and what follows. `--` alone ends them."""
    found: list[str] = []
    at = 0
    while rest.startswith("--", at):
        word, at = _word(rest, at, escape)
        while at < len(rest) and rest[at].isspace():
            at += 1
        if word == "--":
            break
        found.append(word)
    return tuple(found), rest[at:]


def _word(text: str, at: int, escape: str) -> tuple[str, int]:
    """The word of a line of flags that begins at `at`, quotes and escapes taken away, and where it ends."""
    out: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        if char == escape and at + 1 < len(text) and quote != "'":
            out.append(text[at + 1])
            at += 2
            continue
        if quote:
            if char == quote:
                quote = ""
            else:
                out.append(char)
        elif char in "'\"":
            quote = char
        elif char.isspace():
            break
        else:
            out.append(char)
        at += 1
    return "".join(out), at


def _heredoc_words(rest: str, escape: str) -> list[tuple[str, bool, bool]]:
    """(name, strips tabs, expands) of each here-document that a line opens."""
    found: list[tuple[str, bool, bool]] = []
    for word in split_words(rest, escape):
        match = _HEREDOC.match(word)
        bare = heredoc_name(word, escape)
        if match is not None and bare is not None:
            found.append((bare, bool(match[2]), bare == match[3]))
    return found


def heredoc_name(word: str, escape: str) -> str | None:
    """The name in `<<NAME`, quotes and escapes taken away; None for a word that opens no here-document."""
    match = _HEREDOC.match(word)
    if match is None:
        return None
    out: list[str] = []
    for piece in re.finditer(re.escape(escape) + r"(.)|'([^']*)'|\"([^\"]*)\"|([^'\"])", match[3], re.DOTALL):
        out += [group for group in piece.groups() if group]
    return "".join(out) or None


def _heredoc(rows: list[str], at: int, name: str, *, chomps: bool, first: int, original: str) -> tuple[str, int]:
    content: list[str] = []
    while at < len(rows):
        row = rows[at]
        at += 1
        plain = row.lstrip("\t") if chomps else row
        if plain == name:
            return "".join(f"{line}\n" for line in content), at
        content.append(plain)
    raise DockerfileError(f"unterminated heredoc: no line {name!r} ends it", line=first, text=original)


def split_blanks(text: str) -> list[str]:
    """The words of the shell form of COPY, ADD and VOLUME: quotes do not hold them together, as with BuildKit."""
    return [word for word in _BLANKS.split(text) if word]
