"""What the lines of a Dockerfile ask for, and the stages they form. Nothing is expanded here.

Source: Dockerfile reference; ENGINE-API 4.1, 4.5.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from msgspec import Struct
from msgspec.structs import replace

from tare.base.errors import InvalidArgument
from tare.build.lexer import Dockerfile, DockerfileError, Heredoc, Line, read_dockerfile, split_blanks
from tare.wire.expand import split_words

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_ARG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_BOOLEANS = {"": True, "true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
SCRATCH = "scratch"


class From(Struct, frozen=True):
    """Begins a stage. `name` is "" without AS."""

    line: Line
    image: str
    platform: str
    name: str


class Run(Struct, frozen=True):
    """`words` is the exec form; `text` the shell form, here-documents after it. `mounts` as written."""

    line: Line
    words: tuple[str, ...] | None
    text: str
    heredocs: tuple[Heredoc, ...]
    mounts: tuple[str, ...] = ()
    network: str = "default"
    security: str = "sandbox"


class Copy(Struct, frozen=True, kw_only=True):
    """COPY, or ADD with `adds`. `sources` and `target` as written; a source may be `<<NAME` of a here-document."""

    line: Line
    adds: bool
    sources: tuple[str, ...]
    target: str
    heredocs: tuple[Heredoc, ...] = ()
    origin: str = ""  # --from
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    checksum: str = ""
    keeps_git: bool = False
    unpacks: bool | None = None


class Arg(Struct, frozen=True):
    """Names with their defaults; None where there is none."""

    line: Line
    pairs: tuple[tuple[str, str | None], ...]


class Pairs(Struct, frozen=True):
    """ENV or LABEL: names and values as written."""

    line: Line
    pairs: tuple[tuple[str, str], ...]


class Plain(Struct, frozen=True):
    """Any other instruction: what it says is in its line."""

    line: Line


Instruction = Run | Copy | Arg | Pairs | Plain


class Stage(Struct, frozen=True):
    """One stage. `number` counts from 0."""

    number: int
    start: From
    body: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """As written after AS, lower case; its number where it has none."""
        return self.start.name.lower() or str(self.number)


class Program(Struct, frozen=True):
    """A Dockerfile understood: global arguments, then stages."""

    dockerfile: Dockerfile
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]

    def find(self, name: str, *, before: int | None = None) -> Stage | None:
        """The stage of that name or number, the last one where a name is used twice; only those before `before`."""
        stages = self.stages if before is None else self.stages[:before]
        wanted = name.lower()
        for stage in reversed(stages):
            if stage.start.name.lower() == wanted and wanted:
                return stage
        if wanted.isdecimal() and len(wanted) < 10 and int(wanted) < len(stages):
            return stages[int(wanted)]
        return None


def parse_program(data: bytes | str) -> Program:
    """Understand a whole Dockerfile. Raises DockerfileError."""
    dockerfile = read_dockerfile(data)
    arguments: list[Arg] = []
    stages: list[Stage] = []
    start: From | None = None
    body: list[Instruction] = []

    def close() -> None:
        if start is not None:
            stages.append(Stage(len(stages), start, tuple(body)))

    for line in dockerfile.lines:
        if line.keyword == "FROM":
            close()
            start, body = _from(line), []
        elif start is None:
            if line.keyword != "ARG":
                raise line.error("no build stage in current context: the first instruction must be FROM or ARG")
            arguments.append(_arg(line, dockerfile.escape))
        else:
            body.append(parse_instruction(line, dockerfile.escape))
    close()
    if not stages:
        raise dockerfile.lines[-1].error("no build stage: a Dockerfile needs a FROM")
    return Program(dockerfile, tuple(arguments), tuple(stages))


def parse_trigger(text: str) -> Instruction:
    """An ONBUILD instruction as an image keeps it. Raises DockerfileError."""
    return parse_instruction(_only_line(text, "\\"), "\\")


def _only_line(text: str, escape: str) -> Line:
    lines = read_dockerfile(text if escape == "\\" else f"# escape={escape}\n{text}").lines
    if lines[0].keyword in ("FROM", "ONBUILD", "MAINTAINER") or len(lines) != 1:
        raise lines[0].error(f"{lines[0].keyword} isn't allowed as an ONBUILD trigger")
    return lines[0]


def trigger_text(line: Line) -> str:
    """What an image keeps of an ONBUILD: its instruction on one line, then its here-documents."""
    return line.rest + "".join(f"\n{doc.content}{doc.name}" for doc in line.heredocs)


def parse_instruction(line: Line, escape: str) -> Instruction:
    """Everything but FROM. Raises DockerfileError."""
    if line.keyword == "RUN":
        return _run(line)
    if line.keyword in ("COPY", "ADD"):
        return _copy(line)
    if line.keyword == "ARG":
        return _arg(line, escape)
    if line.keyword in ("ENV", "LABEL"):
        _Flags(line).done()
        return Pairs(line, _pairs(line, escape))
    if line.keyword == "SHELL":
        _Flags(line).done()
        if line.array == ():
            raise line.error("SHELL requires at least one argument")
        if line.array is None:
            raise line.error("SHELL requires the arguments to be in JSON form")
    if line.keyword == "ONBUILD":
        trigger = line.rest.split()[0].upper()
        if trigger == "ONBUILD":
            raise line.error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
        if trigger in ("MAINTAINER", "FROM"):
            raise line.error(f"{trigger} isn't allowed as an ONBUILD trigger")
        try:
            parse_instruction(_only_line(trigger_text(line), escape), escape)
        except DockerfileError as error:
            raise line.error(error.reason) from None
    if line.keyword not in ("HEALTHCHECK",):
        _Flags(line).done()
    if line.keyword in ("CMD", "ENTRYPOINT", "VOLUME"):
        _ = line.array  # a list of something else than strings is told before anything is built
    return Plain(line)


class _Flags:
    """Takes the flags of a line one by one; what is left at the end is unknown."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._values: dict[str, list[str | None]] = {}
        for flag in line.flags:
            name, equals, value = flag[2:].partition("=")
            self._values.setdefault(name, []).append(value if equals else None)

    def text(self, name: str) -> str:
        found = self._values.pop(name, [])
        if len(found) > 1:
            raise self._line.error(f"duplicate flag specified: {name}")
        if found and found[0] is None:
            raise self._line.error(f"missing a value on flag: {name}")
        return found[0] or "" if found else ""

    def many(self, name: str) -> tuple[str, ...]:
        found = self._values.pop(name, [])
        if any(value is None for value in found):
            raise self._line.error(f"missing a value on flag: {name}")
        return tuple(value for value in found if value is not None)

    def switch(self, name: str) -> bool | None:
        found = self._values.pop(name, [])
        if len(found) > 1:
            raise self._line.error(f"duplicate flag specified: {name}")
        if not found:
            return None
        value = (found[0] or "").lower()
        if value not in _BOOLEANS:
            raise self._line.error(f"expecting boolean value for flag {name}, not: {found[0]}")
        return _BOOLEANS[value]

    def done(self) -> None:
        for name in self._values:
            raise self._line.error(f"unknown flag: --{name}")


def _from(line: Line) -> From:
    flags = _Flags(line)
    platform = flags.text("platform")
    flags.done()
    words = line.rest.split()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise line.error("FROM requires either one or three arguments")
    name = words[2] if len(words) == 3 else ""
    if name and not _STAGE_NAME.match(name.lower()):
        raise line.error(f"invalid name for build stage: {name!r}, name can't start with a number or contain symbols")
    return From(line, words[0], platform, name)


def _arg(line: Line, escape: str) -> Arg:
    _Flags(line).done()
    pairs: list[tuple[str, str | None]] = []
    for word in split_words(line.rest, escape):
        name, equals, value = word.partition("=")
        if not _ARG_NAME.match(name):
            raise line.error("ARG names can not be blank" if not name else f"invalid ARG name {name!r}")
        pairs.append((name, value if equals else None))
    return Arg(line, tuple(pairs))


def _pairs(line: Line, escape: str) -> tuple[tuple[str, str], ...]:
    words = split_words(line.rest, escape)
    if "=" not in words[0]:  # the old form: the name, then the rest of the line as it is
        named = line.rest.split(maxsplit=1)
        if len(named) < 2:
            raise line.error(f"{line.keyword} must have two arguments")
        return ((named[0], named[1].strip()),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise line.error(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        if not name:
            raise line.error(f"{line.keyword} names can not be blank")
        pairs.append((name, value))
    return tuple(pairs)


def _run(line: Line) -> Run:
    flags = _Flags(line)
    mounts, network, security = flags.many("mount"), flags.text("network"), flags.text("security")
    if flags.many("device"):
        raise line.error("--device is not served: name devices in the engine's own run")
    flags.done()
    if network not in ("", "default", "none", "host"):
        raise line.error(f"invalid network mode {network!r}: use default, none or host")
    if security not in ("", "sandbox", "insecure"):
        raise line.error(f"invalid security mode {security!r}: use sandbox or insecure")
    if not line.rest:
        raise line.error("RUN requires at least one argument")
    words = None if line.heredocs else line.array
    if words == ():
        raise line.error("RUN requires at least one argument")
    return Run(line, words, line.rest, line.heredocs, mounts, network or "default", security or "sandbox")


def _copy(line: Line) -> Copy:
    adds = line.keyword == "ADD"
    flags = _Flags(line)
    copy = Copy(
        line=line,
        adds=adds,
        sources=(),
        target="",
        heredocs=line.heredocs,
        origin="" if adds else flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.switch("link")),
        parents=False if adds else bool(flags.switch("parents")),
        excludes=flags.many("exclude"),
        checksum=flags.text("checksum") if adds else "",
        keeps_git=bool(flags.switch("keep-git-dir")) if adds else False,
        unpacks=flags.switch("unpack") if adds else None,
    )
    flags.done()
    words = line.array or tuple(split_blanks(line.rest))
    if len(words) < 2:
        raise line.error(
            f"{line.keyword} requires at least two arguments, but only {len(words)} provided. Destination could not be determined"
        )
    return replace(copy, sources=words[:-1], target=words[-1])


def sources_of(stage: Stage) -> list[str]:
    """The names in `--from` of its COPY lines and in `from=` of its mounts, as written."""
    found: list[str] = []
    for instruction in stage.body:
        if isinstance(instruction, Copy) and instruction.origin:
            found.append(instruction.origin)
        if isinstance(instruction, Run):
            for mount in instruction.mounts:
                found += [
                    part.partition("=")[2]
                    for part in mount.split(",")
                    if part.partition("=")[0].strip().lower() == "from"
                ]
    return found


def needed(program: Program, target: str, bases: Sequence[str], *, replaced: Collection[str] = ()) -> list[int]:
    """The numbers of the stages that the target stage stands on or takes from, itself included, in order.

    target: a name or number, "" for the last. bases: the image name of each stage with its variables replaced.
    replaced: names, lower case, that something else than a stage stands for.
    Raises InvalidArgument when there is no such stage.
    """
    chosen = program.stages[-1] if not target else program.find(target)
    if chosen is None:
        raise InvalidArgument(
            f"target stage {target!r} could not be found; there are "
            + ", ".join(repr(stage.name) for stage in program.stages)
        )
    wanted: set[int] = set()
    pending = [chosen.number]
    while pending:
        number = pending.pop()
        if number in wanted:
            continue
        wanted.add(number)
        stage = program.stages[number]
        # FROM means a stage above, never by its number; COPY --from may mean one further down
        base = program.find(bases[number], before=number) if not bases[number].isdecimal() else None
        names = [name for name in sources_of(stage) if name.lower() not in replaced]
        found = [base if bases[number].lower() not in replaced else None, *map(program.find, names)]
        pending += [stage.number for stage in found if stage is not None]
    return sorted(wanted)
