"""What instructions ask for, the stages they form, and which stages a target needs."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.build.instructions import (
    Arg,
    Copy,
    Instruction,
    Pairs,
    Plain,
    Program,
    Run,
    needed,
    parse_program,
    parse_trigger,
    sources_of,
    trigger_text,
)
from tare.build.lexer import DockerfileError


def one(text: str) -> Instruction:
    (instruction,) = parse_program(f"FROM x\n{text}").stages[0].body
    return instruction


def run(text: str) -> Run:
    found = one(text)
    assert isinstance(found, Run)
    return found


def copy(text: str) -> Copy:
    found = one(text)
    assert isinstance(found, Copy)
    return found


@pytest.mark.parametrize(
    ("text", "image", "platform", "name"),
    [
        ("FROM scratch", "scratch", "", ""),
        ("FROM a:b@sha256:c AS Build-1.x_y", "a:b@sha256:c", "", "Build-1.x_y"),
        ("FROM --platform=$BUILDPLATFORM a as b", "a", "$BUILDPLATFORM", "b"),
    ],
)
def test_from(text: str, image: str, platform: str, name: str) -> None:
    start = parse_program(text).stages[0].start
    assert (start.image, start.platform, start.name) == (image, platform, name)


def test_stages_have_their_numbers_names_and_lines() -> None:
    program = parse_program("ARG V=1\nARG W\nFROM a AS One\nRUN x\nARG V\nFROM b\nFROM c AS one\n")
    assert [argument.pairs for argument in program.arguments] == [(("V", "1"),), (("W", None),)]
    assert [(stage.number, stage.name, len(stage.body)) for stage in program.stages] == [
        (0, "one", 2),
        (1, "1", 0),
        (2, "one", 0),
    ]


@pytest.mark.parametrize(
    ("name", "before", "number"),
    [
        ("one", None, 2),  # the last of two
        ("ONE", 2, 0),
        ("1", None, 1),
        ("1", 1, None),
        ("3", None, None),
        ("two", None, None),
        ("", None, None),
        ("9" * 10_000, None, None),
    ],
)
def test_a_stage_is_found_by_name_or_number(name: str, before: int | None, number: int | None) -> None:
    program = parse_program("FROM a AS one\nFROM b\nFROM c AS one")
    found = program.find(name, before=before)
    assert (found.number if found else None) == number


@pytest.mark.parametrize(
    ("text", "words", "shell"),
    [
        ("RUN a b", None, "a b"),
        ('RUN ["a", "b"]', ("a", "b"), '["a", "b"]'),
        ("RUN ['a']", None, "['a']"),
    ],
)
def test_run_has_two_forms(text: str, words: tuple[str, ...] | None, shell: str) -> None:
    found = run(text)
    assert (found.words, found.text, found.network, found.security) == (words, shell, "default", "sandbox")


def test_flags_of_run() -> None:
    found = run("RUN --mount=type=cache,target=/a --mount=target=/b --network=none --security=insecure x <<E\ny\nE")
    assert found.mounts == ("type=cache,target=/a", "target=/b")
    assert (found.network, found.security, found.heredocs[0].content) == ("none", "insecure", "y\n")


def test_flags_of_copy_and_add() -> None:
    found = copy("COPY --from=a --chown=1:2 --chmod=u=rwX --link --parents --exclude=*.a --exclude=b a b /c/")
    assert (found.adds, found.sources, found.target) == (False, ("a", "b"), "/c/")
    assert (found.origin, found.chown, found.chmod, found.link, found.parents) == ("a", "1:2", "u=rwX", True, True)
    assert found.excludes == ("*.a", "b")
    added = copy("ADD --checksum=sha256:a --keep-git-dir=true --unpack=false --link=false http://a/b /c")
    assert (added.adds, added.checksum, added.keeps_git, added.unpacks, added.link) == (
        True,
        "sha256:a",
        True,
        False,
        False,
    )
    assert copy("ADD a b").unpacks is None


@pytest.mark.parametrize(
    ("text", "sources", "target"),
    [
        ('COPY ["a b", "c d"]', ("a b",), "c d"),
        ("COPY a\\ b 'c d' /e/", ("a\\", "b", "'c", "d'"), "/e/"),
        ("COPY <<A b /d/\nx\nA", ("<<A", "b"), "/d/"),
    ],
)
def test_sources_and_target(text: str, sources: tuple[str, ...], target: str) -> None:
    found = copy(text)
    assert (found.sources, found.target) == (sources, target)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ('ENV a=1 b="x y" c=x\\ y', (("a", "1"), ("b", '"x y"'), ("c", "x\\ y"))),
        ("ENV a some  words", (("a", "some  words"),)),
        ("ENV a\tx\ty", (("a", "x\ty"),)),
        ("ENV ONE TWO= THREE=w", (("ONE", "TWO= THREE=w"),)),
        ("ENV a=", (("a", ""),)),
        ("LABEL a.b/c=d=e", (("a.b/c", "d=e"),)),
    ],
)
def test_pairs(text: str, pairs: tuple[tuple[str, str], ...]) -> None:
    found = one(text)
    assert isinstance(found, Pairs)
    assert found.pairs == pairs


def test_arguments_with_and_without_a_default() -> None:
    found = one("ARG a b= c='x y'")
    assert isinstance(found, Arg)
    assert found.pairs == (("a", None), ("b", ""), ("c", "'x y'"))


def test_the_escape_directive_holds_for_every_instruction() -> None:
    program = parse_program("# escape=`\nARG g=x` y\nFROM x\nARG a=x` y\nENV b=x` y c=d\\\nCOPY c:\\a d e\n")
    arg, env, copied = program.stages[0].body
    assert isinstance(arg, Arg)
    assert isinstance(env, Pairs)
    assert isinstance(copied, Copy)
    assert (program.arguments[0].pairs, arg.pairs) == ((("g", "x` y"),), (("a", "x` y"),))
    assert env.pairs == (("b", "x` y"), ("c", "d\\"))
    assert (copied.sources, copied.target) == (("c:\\a", "d"), "e")


@pytest.mark.parametrize("keyword", ["CMD", "ENTRYPOINT"])
def test_commands_may_be_empty(keyword: str) -> None:
    assert isinstance(one(keyword), Plain)
    assert isinstance(one(f"{keyword} []"), Plain)


@pytest.mark.parametrize(
    ("text", "trigger"),
    [
        ("ONBUILD RUN a \\\n# comment\n b", "RUN a  b"),
        ("onbuild\tCOPY --from=a b /c", "COPY --from=a b /c"),
        ("ONBUILD COPY <<-A /c\n\tx\n\tA", "COPY <<-A /c\nx\nA"),
    ],
)
def test_a_trigger_can_be_read_again(text: str, trigger: str) -> None:
    found = one(text)
    assert trigger_text(found.line) == trigger
    again = parse_trigger(trigger)
    assert again.line.heredocs == found.line.heredocs


def test_a_trigger_may_use_the_escape_of_its_file() -> None:
    program = parse_program("# escape=`\nFROM x\nONBUILD RUN a `\n b\\\nRUN c")
    assert [trigger_text(program.stages[0].body[0].line), len(program.stages[0].body)] == ["RUN a  b\\", 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN x", "the first instruction must be FROM or ARG"),
        ("ARG a", "a Dockerfile needs a FROM"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a IS b", "FROM requires either one or three arguments"),
        ("FROM a AS 1b", "invalid name for build stage: '1b'"),
        ("FROM a AS b$", "invalid name for build stage"),
        ("FROM --foo=1 a", "unknown flag: --foo"),
        ("FROM --platform=a --platform=b c", "duplicate flag specified: platform"),
        ("FROM --platform a", "missing a value on flag: platform"),
    ],
)
def test_a_program_refused(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        parse_program(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN", "RUN requires at least one argument"),
        ("RUN []", "RUN requires at least one argument"),
        ("RUN --network=bridge x", "invalid network mode 'bridge'"),
        ("RUN --security=none x", "invalid security mode 'none'"),
        ("RUN --device=a x", "--device is not served"),
        ("RUN --foo x", "unknown flag: --foo"),
        ("RUN --mount x", "missing a value on flag: mount"),
        ("COPY a", "COPY requires at least two arguments, but only 1 provided"),
        ("COPY []", "COPY requires at least two arguments"),
        ("COPY --unpack a b", "unknown flag: --unpack"),
        ("COPY --link=x a b", "expecting boolean value for flag link, not: x"),
        ("ADD --from=x a b", "unknown flag: --from"),
        ("ADD --parents a b", "unknown flag: --parents"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=b c", "can't find = in 'c'"),
        ("LABEL =b", "LABEL names can not be blank"),
        ("ARG =b", "ARG names can not be blank"),
        ("ARG a-b=1", "invalid ARG name 'a-b'"),
        ("SHELL /bin/sh -c", "SHELL requires the arguments to be in JSON form"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL ['a']", "SHELL requires the arguments to be in JSON form"),
        ("SHELL [1]", "arrays must be comprised of strings only"),
        ('CMD ["a", 1]', "arrays must be comprised of strings only"),
        ("ENTRYPOINT [null]", "arrays must be comprised of strings only"),
        ('RUN ["echo", 1]', "arrays must be comprised of strings only"),
        ("VOLUME [1]", "arrays must be comprised of strings only"),
        ('COPY ["a", 1]', "arrays must be comprised of strings only"),
        ('ADD ["a", ["b"]]', "arrays must be comprised of strings only"),
        ("USER --x=1 a", "unknown flag: --x"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD maintainer x", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("ONBUILD FOO x", "on line 2: unknown instruction: FOO"),
        ("ONBUILD COPY a", "on line 2: COPY requires at least two arguments"),
    ],
)
def test_an_instruction_refused(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message) as error:
        one(text)
    assert error.value.line == 2


@pytest.mark.parametrize("text", ["FROM x", "ONBUILD RUN x", "MAINTAINER x", "RUN a\nRUN b"])
def test_a_trigger_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match="isn't allowed as an ONBUILD trigger"):
        parse_trigger(text)


PROGRAM = """\
FROM alpine AS base
FROM base AS unused
FROM base AS tools
FROM busybox AS data
FROM scratch
COPY --from=tools /a /a
RUN --mount=type=bind,FROM=data,target=/m x
FROM 0 AS numbered
COPY --from=3 /a /a
COPY --from=nginx /a /a
"""


def bases(program: Program) -> list[str]:
    return [stage.start.image for stage in program.stages]


def test_sources_of_a_stage() -> None:
    program = parse_program(PROGRAM)
    assert [sources_of(stage) for stage in program.stages] == [[], [], [], [], ["tools", "data"], ["3", "nginx"]]


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ("base", [0]),
        ("tools", [0, 2]),
        ("4", [0, 2, 3, 4]),
        ("", [3, 5]),  # FROM 0 is an image called 0
        ("Numbered", [3, 5]),
    ],
)
def test_only_what_a_target_stands_on_is_needed(target: str, stages: list[int]) -> None:
    program = parse_program(PROGRAM)
    assert needed(program, target, bases(program)) == stages


def test_a_stage_may_take_from_a_later_one_but_not_stand_on_it() -> None:
    program = parse_program("FROM a AS a\nCOPY --from=b /x /x\nFROM b AS b")
    assert needed(program, "a", bases(program)) == [0, 1]


def test_a_target_that_is_not_there() -> None:
    program = parse_program(PROGRAM)
    with pytest.raises(InvalidArgument, match=r"^target stage 'nope' could not be found; there are 'base', 'unused'"):
        needed(program, "nope", bases(program))
