"""What is unwise in a Dockerfile though it can be built: BuildKit's build checks, by its names and in its words. Pure.

`# check=skip=RULE,RULE;error=true;experimental=RULE` (or `all`) in the Dockerfile, or the build argument
BUILDKIT_DOCKERFILE_CHECK, says which count and whether they end the build.
Source: Docker's reference of build checks; ENGINE-API 4.9.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from msgspec import Struct, field
from msgspec.structs import replace

from tare.base.errors import InvalidArgument
from tare.base.reference import parse_reference
from tare.build import evaluate
from tare.build.evaluate import Evaluator, Given, StageState
from tare.build.gitref import parse_git
from tare.build.instructions import SCRATCH, Arg, Copy, Instruction, Pairs, Plain, Program, Run, Stage
from tare.build.lexer import DockerfileError, Line, distance, heredoc_name
from tare.wire.config import ContainerConfig
from tare.wire.expand import ExpansionError, expand, split_words

RULES = frozenset(
    {
        "ConsistentInstructionCasing", "CopyIgnoredFile", "DuplicateStageName", "ExposeInvalidFormat",
        "ExposeProtoCasing", "FromAsCasing", "FromPlatformFlagConstDisallowed", "InvalidDefaultArgInFrom",
        "InvalidDefinitionDescription", "JSONArgsRecommended", "LegacyKeyValueFormat", "MaintainerDeprecated",
        "MultipleInstructionsDisallowed", "NoEmptyContinuation", "RedundantTargetPlatform", "ReservedStageName",
        "SecretsUsedInArgOrEnv", "StageNameCasing", "UndefinedArgInFrom", "UndefinedVar", "WorkdirRelativePath",
    }
)  # fmt: skip
_EXPERIMENTAL = frozenset({"InvalidDefinitionDescription"})
_RESERVED = frozenset({"context", SCRATCH})
_ONCE = frozenset({"CMD", "ENTRYPOINT", "HEALTHCHECK"})
_WORDS = "apikey|auth|credentials?|key|password|pword|passwd|secret|token"
_SECRET = re.compile(rf"(?:_|^)(?:{_WORDS})(?:_|$)", re.IGNORECASE)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")
_FOLDED = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MAX_WARNINGS = 1000
_MEANT_WITHIN = 2  # edits between a name and the one that was probably meant


class Warned(Struct, frozen=True, order=True):
    """One warning. `line` counts from 1."""

    line: int
    rule: str
    text: str

    @property
    def url(self) -> str:
        """Where Docker explains the rule."""
        return f"https://docs.docker.com/go/dockerfile/rule/{_FOLDED.sub('-', self.rule).lower()}/"


class Settings(Struct, frozen=True):
    """Which rules count. skips: names, or `all`; experimental: those of that kind that are wanted, or `all`."""

    skips: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    is_error: bool = False

    def counts(self, rule: str) -> bool:
        """Whether a warning of that rule is told."""
        if rule in _EXPERIMENTAL and not self.experimental & {rule, "all"}:
            return False
        return not self.skips & {rule, "all"}


def read_settings(text: str) -> Settings:
    """`skip=A,B;error=true;experimental=all`. Raises InvalidArgument."""
    found = Settings()
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, equals, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if not equals:
            raise InvalidArgument(f"invalid check option {part[:100]!r}: it is name=value")
        names = frozenset(word.strip() for word in value.split(",") if word.strip())
        if name == "skip":
            found = replace(found, skips=names)
        elif name == "experimental":
            found = replace(found, experimental=names)
        elif name == "error":
            if value.lower() not in ("true", "false", "1", "0"):
                raise InvalidArgument(f"invalid value {value[:100]!r} for the check option error: use true or false")
            found = replace(found, is_error=value.lower() in ("true", "1"))
        else:
            raise InvalidArgument(f"invalid check option {name[:100]!r}: use skip, error or experimental")
    return found


def refuse(warned: Iterable[Warned]) -> None:
    """`error=true`: raise InvalidArgument if there is any warning."""
    names = list(dict.fromkeys(found.rule for found in warned))
    if names:
        raise InvalidArgument(f"lint violation found for rules: {', '.join(names)}")


class _Stand(Struct):
    """What is known of a stage after its last instruction, for stages on top of it."""

    state: StageState
    declared: frozenset[str] = frozenset()
    has_workdir: bool = False
    is_known: bool = True  # the environment of the image it stands on


class _Linter(Struct):
    program: Program
    text: list[str]
    given: Given
    environment_of: Callable[[str], Sequence[str] | None]
    is_ignored: Callable[[str], bool]
    settings: Settings
    found: list[Warned] = field(default_factory=list)

    def warn(self, line: int, rule: str, text: str) -> None:
        if self.settings.counts(rule) and len(self.found) < _MAX_WARNINGS:
            self.found.append(Warned(line, rule, text))


def lint(
    program: Program,
    text: str,
    given: Given,
    *,
    environment_of: Callable[[str], Sequence[str] | None],
    is_ignored: Callable[[str], bool] = lambda _: False,
    settings: Settings | None = None,
) -> list[Warned]:
    """All warnings, by line. text: the Dockerfile's. given: of the request; it is not changed.

    environment_of: the environment of an image, None where the image is not here; what lines name is not checked then.
    is_ignored: whether `.dockerignore` leaves a path out.
    """
    rows = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    linter = _Linter(program, rows, _copied(given), environment_of, is_ignored, settings or Settings())
    for line, told in program.dockerfile.warnings:
        linter.warn(line, "NoEmptyContinuation", told)
    _casing(linter, program.dockerfile.lines)
    _names(linter)
    _froms(linter)
    for argument in program.arguments:
        _describes(linter, argument.line, [name for name, _ in argument.pairs])
    stands: dict[int, _Stand] = {}
    arguments = evaluate.global_arguments(program, _copied(given))
    for stage in program.stages:
        stands[stage.number] = _stage(linter, stage, arguments, stands)
    return sorted(set(linter.found))


def _copied(given: Given) -> Given:
    return Given(arguments=given.arguments, build=given.build, target=given.target, target_stage=given.target_stage)


# -- how it is written ------------------------------------------------------------------------------------------------


def _casing(linter: _Linter, lines: Sequence[Line]) -> None:
    lower = sum(line.written.islower() for line in lines)
    upper = sum(line.written.isupper() for line in lines)
    wants = "lowercase" if lower > upper else "uppercase"
    for line in lines:
        if line.written != (line.written.lower() if wants == "lowercase" else line.written.upper()):
            text = f"Command '{line.written}' should match the case of the command majority ({wants})"
            linter.warn(line.first, "ConsistentInstructionCasing", text)


def _names(linter: _Linter) -> None:
    seen: set[str] = set()
    for stage in linter.program.stages:
        start, at = stage.start, stage.start.line.first
        if not start.name:
            continue
        _describes(linter, start.line, [start.name])
        written, word = start.line.written, start.line.rest.split()[1]
        if (written.islower() and not word.islower()) or (written.isupper() and not word.isupper()):
            linter.warn(at, "FromAsCasing", f"'{word}' and '{written}' keywords' casing do not match")
        if start.name != start.name.lower():
            linter.warn(at, "StageNameCasing", f"Stage name '{start.name}' should be lowercase")
        if start.name.lower() in seen:
            text = f'Duplicate stage name "{start.name}", stage names should be unique'
            linter.warn(at, "DuplicateStageName", text)
        if start.name.lower() in _RESERVED:
            text = f'Stage name should not use the same name as reserved stage "{start.name}"'
            linter.warn(at, "ReservedStageName", text)
        seen.add(start.name.lower())


def _describes(linter: _Linter, line: Line, names: Sequence[str]) -> None:
    """A comment right above a definition begins with the name it explains."""
    row = linter.text[line.first - 2].strip() if line.first > 1 else ""
    if not row.startswith("#") or line.first - 2 < len(linter.program.dockerfile.directives):
        return
    if row.removeprefix("#").strip().split(" ")[0] not in names:
        shown = names[0] if len(names) == 1 else "<arg_key>"
        text = f"Comment for {line.keyword} should follow the format: `# {shown} <description>`"
        linter.warn(line.first, "InvalidDefinitionDescription", text)


def _froms(linter: _Linter) -> None:
    """What the FROM lines name, as given and with the defaults alone."""
    program, escape = linter.program, linter.program.dockerfile.escape
    known = {**linter.given.platform_arguments(), **evaluate.global_arguments(program, _copied(linter.given))}
    declared = {name for argument in program.arguments for name, _ in argument.pairs} | known.keys()
    bare = replace_arguments(linter.given, {})
    try:
        defaults = {**bare.platform_arguments(), **evaluate.global_arguments(program, bare)}
    except DockerfileError:
        defaults = {}
    for stage in program.stages:
        start, at = stage.start, stage.start.line.first
        for text in (start.image, start.platform):
            for name in dict.fromkeys(_unset(text, known, escape)):
                if name not in declared:
                    told = f"FROM argument '{name}' is not declared{_meant(name, declared)}"
                    linter.warn(at, "UndefinedArgInFrom", told)
        if "$" in start.image and not _is_reference(start.image, defaults, escape):
            told = f"Default value for ARG {start.image} results in empty or invalid base image name"
            linter.warn(at, "InvalidDefaultArgInFrom", told)
        _platform(linter, stage)


def replace_arguments(given: Given, arguments: Mapping[str, str]) -> Given:
    """The same request with other build arguments."""
    return Given(arguments=arguments, build=given.build, target=given.target, target_stage=given.target_stage)


def _is_reference(text: str, variables: Mapping[str, str], escape: str) -> bool:
    try:
        parse_reference(expand(text, variables, escape=escape))
    except InvalidArgument:
        return False
    return True


def _platform(linter: _Linter, stage: Stage) -> None:
    text, at = stage.start.platform, stage.start.line.first
    if text in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
        told = f"Setting platform to predefined {text} in FROM is redundant as this is the default behavior"
        linter.warn(at, "RedundantTargetPlatform", told)
    elif text and "$" not in text and not any(part and part in stage.start.name.lower() for part in text.split("/")):
        told = f'FROM --platform flag should not use constant value "{text}"'
        linter.warn(at, "FromPlatformFlagConstDisallowed", told)


def _unset(text: str, variables: Mapping[str, str], escape: str) -> list[str]:
    names: list[str] = []
    try:
        expand(text, variables, escape=escape, unset=names.append)
    except ExpansionError:
        return []  # the build says it
    return names


def _meant(name: str, known: Iterable[str], sign: str = "") -> str:
    """` (did you mean X?)`, or nothing when no name is near."""
    best = min(known, key=lambda other: (distance(name.upper(), other.upper()), other), default="")
    near = best and best != name and distance(name.upper(), best.upper()) <= min(_MEANT_WITHIN, len(name) - 1)
    return f" (did you mean {sign}{best}?)" if near else ""


# -- stages -----------------------------------------------------------------------------------------------------------


def _stage(linter: _Linter, stage: Stage, arguments: Mapping[str, str], stands: Mapping[int, _Stand]) -> _Stand:
    stand = _begin(linter, stage, arguments, stands)
    evaluator = Evaluator(linter.given, arguments, escape=linter.program.dockerfile.escape)
    once: dict[str, Line] = {}
    for instruction in stage.body:
        line = instruction.line
        if isinstance(instruction, Arg | Pairs):
            _pairs(linter, instruction)
        if isinstance(instruction, Copy) and not instruction.origin:
            _copies(linter, instruction, stand)
        if isinstance(instruction, Plain):
            _plain(linter, instruction, stand)
        if line.keyword in _ONCE:
            if line.keyword in once:
                told = (
                    f"Multiple {line.keyword} instructions should not be used in the same stage because only the last "
                    "one will be used"
                )
                linter.warn(once[line.keyword].first, "MultipleInstructionsDisallowed", told)
            once[line.keyword] = line
        stand = _evaluated(linter, evaluator, instruction, stand)
    return stand


def _begin(linter: _Linter, stage: Stage, arguments: Mapping[str, str], stands: Mapping[int, _Stand]) -> _Stand:
    try:
        name, _ = evaluate.base_of(linter.program, stage.number, arguments, _copied(linter.given))
    except DockerfileError:
        return _Stand(evaluate.begin(ContainerConfig()), is_known=False)
    before = linter.program.find(name, before=stage.number)
    if before is not None:
        return stands[before.number]
    entries = () if name.lower() == SCRATCH else linter.environment_of(name)
    state = evaluate.begin(ContainerConfig(Env=list(entries or ())))
    return _Stand(state, is_known=entries is not None)


def _evaluated(linter: _Linter, evaluator: Evaluator, instruction: Instruction, stand: _Stand) -> _Stand:
    """The stage after an instruction; what it named that nobody gave a value is told."""
    given, state, line = linter.given, stand.state, instruction.line
    given.undefined.clear()
    try:
        if isinstance(instruction, Run):
            evaluator.run(state, instruction)
        elif isinstance(instruction, Copy):
            evaluator.copy(state, instruction)
        else:
            state, _ = evaluator.apply(state, instruction)
    except DockerfileError:
        pass  # the build says it; what is known stays as it was
    if stand.is_known and line.keyword != "ONBUILD":
        known = stand.declared | state.variables.keys()
        for name in dict.fromkeys(name for _, name in given.undefined):
            if name not in stand.declared:
                told = f"Usage of undefined variable '${name}'{_meant(name, known, '$')}"
                linter.warn(line.first, "UndefinedVar", told)
    declared = stand.declared
    if isinstance(instruction, Arg):
        declared |= {name for name, _ in instruction.pairs}
    has_workdir = stand.has_workdir or (line.keyword == "WORKDIR" and line.rest.strip("'\"").startswith(("/", "$")))
    return replace(stand, state=state, declared=declared, has_workdir=has_workdir)


def _pairs(linter: _Linter, instruction: Arg | Pairs) -> None:
    line = instruction.line
    names = [name for name, _ in instruction.pairs]
    if isinstance(instruction, Arg):
        _describes(linter, line, names)
    elif "=" not in split_words(line.rest, linter.program.dockerfile.escape)[0]:
        told = f'"{line.keyword} key=value" should be used instead of legacy "{line.keyword} key value" format'
        linter.warn(line.first, "LegacyKeyValueFormat", told)
    if line.keyword == "LABEL":
        return
    for name in names:
        if is_secret_name(name):
            told = f'Do not use ARG or ENV instructions for sensitive data ({line.keyword} "{name}")'
            linter.warn(line.first, "SecretsUsedInArgOrEnv", told)


def is_secret_name(name: str) -> bool:
    """Whether the name of a variable says that its value is a secret."""
    return bool(_SECRET.search(name) and not _NO_SECRET.search(name))


def _copies(linter: _Linter, copy: Copy, stand: _Stand) -> None:
    escape = linter.program.dockerfile.escape
    for source in copy.sources:
        if heredoc_name(source, escape) is not None or _unset(source, stand.state.variables, escape):
            continue
        try:
            path = expand(source, stand.state.variables, escape=escape)
            is_elsewhere = copy.adds and (urlsplit(path).scheme in ("http", "https") or parse_git(path) is not None)
        except (InvalidArgument, ValueError):
            continue
        clean = posixpath.normpath(f"/{path}").lstrip("/")
        if not is_elsewhere and clean and linter.is_ignored(clean):
            verb = "Add" if copy.adds else "Copy"
            told = f'Attempting to {verb} file "{path}" that is excluded by .dockerignore'
            linter.warn(copy.line.first, "CopyIgnoredFile", told)


def _plain(linter: _Linter, instruction: Plain, stand: _Stand) -> None:
    line = instruction.line
    if line.keyword == "MAINTAINER":
        text = "Maintainer instruction is deprecated in favor of using label"
        linter.warn(line.first, "MaintainerDeprecated", text)
    elif line.keyword in ("CMD", "ENTRYPOINT"):
        if line.rest and line.array is None and stand.state.shell == evaluate.DEFAULT_SHELL:
            told = f"JSON arguments recommended for {line.keyword} to prevent unintended behavior related to OS signals"
            linter.warn(line.first, "JSONArgsRecommended", told)
    elif line.keyword == "WORKDIR":
        path = line.rest.strip("'\"")
        if not stand.has_workdir and not path.startswith(("/", "$")):
            told = f'Relative workdir "{path}" can have unexpected results if the base image changes'
            linter.warn(line.first, "WorkdirRelativePath", told)
    elif line.keyword == "EXPOSE":
        for word in line.rest.split():
            port, slash, protocol = word.partition("/")
            if slash and protocol != protocol.lower() and "$" not in protocol:
                told = f"Defined protocol '{word}' in EXPOSE instruction should be lowercase"
                linter.warn(line.first, "ExposeProtoCasing", told)
            if ":" in _VARIABLE.sub("", re.sub(r"\$\{[^}]*\}", "", port)):
                told = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
                linter.warn(line.first, "ExposeInvalidFormat", told)


__all__ = ["RULES", "Settings", "Warned", "is_secret_name", "lint", "read_settings", "refuse"]
