"""Dockerfiles cut into lines: directives, continuations, flags, here-documents, the exec form."""

from __future__ import annotations

import pytest

from tare.build.lexer import (
    MAX_DOCKERFILE,
    Dockerfile,
    DockerfileError,
    Heredoc,
    Line,
    heredoc_name,
    read_dockerfile,
)
from tare.wire.expand import split_words


def only(text: str) -> Line:
    (line,) = read_dockerfile(text).lines
    return line


@pytest.mark.parametrize(
    ("text", "directives"),
    [
        ("FROM x", {}),
        ("# syntax=docker/dockerfile:1\nFROM x", {"syntax": "docker/dockerfile:1"}),
        ("#SYNTAX =  a b  \n# Escape = `\nFROM x", {"syntax": "a b", "escape": "`"}),
        ("# check=skip=all;error=true\nFROM x", {"check": "skip=all;error=true"}),
        ("#!/usr/bin/env x\n# syntax=a\nFROM x", {"syntax": "a"}),
        ("\ufeff# escape=`\r\nFROM x\r\n", {"escape": "`"}),
        ("# a comment\n# escape=`\nFROM x", {}),
        ("\n# escape=`\nFROM x", {}),
        ("# unknown=1\n# escape=`\nFROM x", {}),
        ("FROM x\n# escape=`\n", {}),
    ],
)
def test_directives_stand_before_anything_else(text: str, directives: dict[str, str]) -> None:
    assert read_dockerfile(text).directives == directives


def test_a_byte_order_mark_in_bytes_is_no_character() -> None:
    assert read_dockerfile(b"\xef\xbb\xbfFROM x").lines[0].keyword == "FROM"


@pytest.mark.parametrize(
    ("text", "keyword", "flags", "rest"),
    [
        ("from x", "FROM", (), "x"),
        ("  RUN\techo  hi ", "RUN", (), "echo  hi"),
        ("RUN a \\\n  b", "RUN", (), "a   b"),
        ("RUN a \\ \t\n b", "RUN", (), "a  b"),
        ("RUN a\\\n # comment\n#more\n&& b", "RUN", (), "a&& b"),
        ("RUN a # b", "RUN", (), "a # b"),
        ("# escape=`\nRUN dir c:\\ `\n d:\\", "RUN", (), "dir c:\\  d:\\"),
        ("RU\\\nN a", "RUN", (), "a"),
        ("RUN a \\", "RUN", (), "a"),
        ("COPY --from=a --link --chown='b c' x y", "COPY", ("--from=a", "--link", "--chown=b c"), "x y"),
        ("COPY --chown=\\$a x y", "COPY", ("--chown=$a",), "x y"),
        ("RUN --mount=type=cache,target=/a -- --b", "RUN", ("--mount=type=cache,target=/a",), "--b"),
        ("RUN -- --network=x", "RUN", (), "--network=x"),
        ("CMD", "CMD", (), ""),
        ('ENV a="x y" b=x\\ y', "ENV", (), 'a="x y" b=x\\ y'),
    ],
)
def test_an_instruction(text: str, keyword: str, flags: tuple[str, ...], rest: str) -> None:
    line = only(text)
    assert (line.keyword, line.flags, line.rest) == (keyword, flags, rest)


def test_lines_are_counted_and_kept_as_written() -> None:
    found = read_dockerfile("\nFrom x\n\n# c\nRUN a \\\n# d\n b\nRUN <<E\nx\nE\n")
    assert [(line.first, line.last, line.written) for line in found.lines] == [
        (2, 2, "From"),
        (5, 7, "RUN"),
        (8, 10, "RUN"),
    ]
    assert found.lines[1].original == "RUN a \\\n# d\n b"


def test_an_empty_line_in_a_continuation_is_dropped_with_a_warning() -> None:
    found: Dockerfile = read_dockerfile("FROM x\nRUN a \\\n\n b\nRUN c \\\n# only a comment\n d")
    assert [line.rest for line in found.lines[1:]] == ["a  b", "c  d"]
    assert found.warnings == ((2, "Empty continuation line found in: RUN a"),)


@pytest.mark.parametrize(
    ("text", "heredocs"),
    [
        ("RUN <<EOF\na $b\n\n  c\nEOF", [("EOF", "a $b\n\n  c\n", True)]),
        ("RUN <<'EOF'\na\nEOF", [("EOF", "a\n", False)]),
        ('RUN <<E"O"F\na\nEOF', [("EOF", "a\n", False)]),
        ("RUN <<\\EOF\na\nEOF", [("EOF", "a\n", False)]),
        ('RUN <<"E F"\na\nE F', [("E F", "a\n", False)]),
        ("RUN <<-EOF\n\t\ta\n\t b\n\tEOF", [("EOF", "a\n b\n", True)]),
        ("RUN <<EOF\n\tEOF\nEOF", [("EOF", "\tEOF\n", True)]),
        ("RUN 3<<EOF cat\na\nEOF", [("EOF", "a\n", True)]),
        ("COPY <<a <<b /d/\n1\na\n2\nb", [("a", "1\n", True), ("b", "2\n", True)]),
        ("ADD <<a \\\n /d\n1 \\\n# kept\na", [("a", "1 \\\n# kept\n", True)]),
        ("ONBUILD RUN\tcat <<a\n1\na", [("a", "1\n", True)]),
        ("RUN <<EOF\nEOF", [("EOF", "", True)]),
        ("RUN cat <<< word", []),
        ("RUN cat <<", []),
        ("RUN echo $((1<<2))", []),
        ('RUN ["sh", "-c", "cat <<EOF"]', []),
        ("CMD cat <<EOF", []),
        ("ONBUILD CMD cat <<EOF", []),
    ],
)
def test_heredocs(text: str, heredocs: list[tuple[str, str, bool]]) -> None:
    assert only(text).heredocs == tuple(Heredoc(*found) for found in heredocs)


def test_what_follows_a_heredoc_is_an_instruction_again() -> None:
    found = read_dockerfile("FROM x\nRUN <<EOF\nCMD a\nEOF\nCMD b")
    assert [line.keyword for line in found.lines] == ["FROM", "RUN", "CMD"]


@pytest.mark.parametrize(
    ("word", "name"),
    [("<<A", "A"), ("<<-'A B'", "A B"), ("2<<A", "A"), ("<<''", None), ("<<", None), ("x<<A", None), ("a", None)],
)
def test_the_name_of_a_heredoc(word: str, name: str | None) -> None:
    assert heredoc_name(word, "\\") == name


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ('["a", "b c"]', ("a", "b c")),
        ("[]", ()),
        (' [ "a" ] ', ("a",)),
        ('["\\u00e9"]', ("é",)),
        ('["\\ud800"]', ("\ufffd",)),
        ("['a']", None),
        ('["a"', None),
        ('["a"] b', None),
        ("a", None),
        ("[" * 100_000, None),
        ("{}", None),
        ('["a",]', None),
    ],
)
def test_the_exec_form_is_an_array_of_strings_and_anything_else_shell_form(
    rest: str, words: tuple[str, ...] | None
) -> None:
    assert only(f"CMD {rest}").array == words


@pytest.mark.parametrize("rest", ['["a", 1]', "[null]", '[["a"]]', "[1]"])
def test_a_list_of_something_else_than_strings_is_refused(rest: str) -> None:
    with pytest.raises(DockerfileError, match="arrays must be comprised of strings only") as error:
        _ = only(f"CMD {rest}").array
    assert error.value.line == 1


@pytest.mark.parametrize(
    ("text", "rests"),
    [
        ("RUN a \\\n b", ["a  b"]),
        ("RUN a \\  \n b", ["a  b"]),
        ("RUN a \\\\\nRUN b", ["a \\\\", "b"]),
        ("RUN a \\\\\\\nRUN b", ["a \\\\\\", "b"]),
        ("# escape=`\nRUN a ``\nRUN b", ["a ``", "b"]),
    ],
)
def test_two_escapes_at_the_end_of_a_line_continue_nothing(text: str, rests: list[str]) -> None:
    assert [line.rest for line in read_dockerfile(text).lines] == rests


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ("a='b c' d", ["a='b c'", "d"]),
        ('a="b \\" c" d', ['a="b \\" c"', "d"]),
        ("a\\ b c", ["a\\ b", "c"]),
        ("'a\\' b", ["'a\\'", "b"]),
        ("'open a", ["'open a"]),
        ("a\\", ["a\\"]),
        ("", []),
    ],
)
def test_words_keep_quotes_and_escapes(text: str, words: list[str]) -> None:
    assert split_words(text, "\\") == words


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "file with no instructions", 0),
        ("# nothing\n\n", "file with no instructions", 0),
        ("FROM x\nFROMM y", r"unknown instruction: FROMM \(did you mean FROM\?\)", 2),
        ("FROM x\nRNU y", r"unknown instruction: RNU \(did you mean RUN\?\)", 2),
        ("FROM x\nBANANA y", r"unknown instruction: BANANA\n", 2),
        ("# escape=x\nFROM x", "invalid ESCAPE 'x'", 1),
        ("# escape=`\n# escape=`\nFROM x", "only one escape parser directive can be used", 2),
        ("FROM x\nCOPY", "COPY requires at least one argument", 2),
        ("FROM x\nRUN <<EOF\na", "unterminated heredoc", 2),
        ("x" * (MAX_DOCKERFILE + 1), "larger than", 0),
    ],
)
def test_refused(text: str, message: str, line: int) -> None:
    with pytest.raises(DockerfileError, match=message) as error:
        read_dockerfile(text)
    assert error.value.line == line


def test_an_error_shows_the_line() -> None:
    with pytest.raises(DockerfileError, match=r"dockerfile parse error on line 2: .*\n     2 \| RNU y"):
        read_dockerfile("FROM x\nRNU y")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "# syntax=a" + " " * 1_000_000 + "b\nFROM x",
        "RUN " + "--a " * 500_000 + "x",
        "RUN a" + " \\\n" * 500_000 + "b",
        "RUN " + "\\ " * 1_000_000,
        "RUN " + "'" * 1_000_001,
        "COPY " + "<<A " * 100_000 + "/d/\n" + "A\n" * 100_000,
    ],
    ids=["directive", "flags", "continuations", "escapes", "quotes", "heredocs"],
)
def test_long_files_take_time_in_proportion(text: str) -> None:
    assert read_dockerfile(text).lines
