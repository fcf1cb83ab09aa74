"""What instructions do to the configuration of a stage, and what a RUN or COPY asks for once variables are replaced.

Source: Dockerfile reference; ENGINE-API 4.3, 4.4, 4.9.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import UNSET, Struct, field
from msgspec.structs import replace

from tare.base.errors import InvalidArgument
from tare.build.instructions import Arg, Copy, Instruction, Pairs, Plain, Program, Run, trigger_text
from tare.build.lexer import DockerfileError, Line, heredoc_name, split_blanks
from tare.build.mounts import Mount, parse_mount
from tare.wire import changes
from tare.wire.config import ContainerConfig
from tare.wire.expand import ExpansionError, expand, expand_raw, expand_words, split_words

DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PROXY_NAMES = frozenset((*_PROXIES, *(name.lower() for name in _PROXIES)))
_FOR_THE_BUILDER = ("BUILDKIT_", "SOURCE_DATE_EPOCH")  # arguments that mean something without an ARG


class Platform(Struct, frozen=True, kw_only=True):
    """`os/architecture[/variant]`."""

    system: str = "linux"
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.system, self.architecture, self.variant) if part)


class Given(Struct, kw_only=True):
    """What the request brings: build arguments, platforms, target. `used` collects the arguments some line took."""

    arguments: Mapping[str, str]
    build: Platform
    target: Platform
    target_stage: str = "default"
    used: set[str] = field(default_factory=set)
    undefined: list[tuple[int, str]] = field(default_factory=list)

    def take(self, name: str) -> str | None:
        """The value given for an argument, noting that it was asked for."""
        if name in self.arguments:
            self.used.add(name)
        return self.arguments.get(name)

    def unused(self) -> list[str]:
        """Names given that no line declared."""
        names = set(self.arguments) - self.used - PROXY_NAMES
        return sorted(name for name in names if not name.startswith(_FOR_THE_BUILDER))

    def platform_arguments(self) -> dict[str, str]:
        """What is predefined, for FROM lines at once and in stages after an ARG of that name."""
        found = {"TARGETSTAGE": self.target_stage}
        for prefix, platform in (("BUILD", self.build), ("TARGET", self.target)):
            found[f"{prefix}PLATFORM"] = str(platform)
            found[f"{prefix}OS"] = platform.system
            found[f"{prefix}OSVERSION"] = ""
            found[f"{prefix}ARCH"] = platform.architecture
            found[f"{prefix}VARIANT"] = platform.variant
        return found


class StageState(Struct, frozen=True, kw_only=True):
    """A stage between two instructions. `arguments` are the ARGs declared so far; `shell` is for shell forms."""

    config: ContainerConfig
    arguments: Mapping[str, str] = field(default_factory=dict)
    shell: tuple[str, ...] = DEFAULT_SHELL
    author: str = ""
    has_command: bool = False  # CMD was set in this stage, so ENTRYPOINT leaves it

    @property
    def environment(self) -> dict[str, str]:
        """ENV as a mapping."""
        return dict(entry.partition("=")[::2] for entry in self.config.Env or ())

    @property
    def variables(self) -> dict[str, str]:
        """What a line may name: arguments, and above them the environment."""
        return {**self.arguments, **self.environment}


class RunStep(Struct, frozen=True, kw_only=True):
    """A RUN with everything replaced. `environment` are `name=value` entries that key the cache; `hidden` ones do not."""

    argv: tuple[str, ...]
    script: str = ""  # of a here-document with `#!`: a file that argv[0] names
    environment: tuple[str, ...]
    arguments: tuple[str, ...]
    hidden: tuple[str, ...]
    user: str
    workdir: str
    mounts: tuple[Mount, ...]
    network: str
    is_privileged: bool


class CopyStep(Struct, frozen=True, kw_only=True):
    """A COPY or ADD with everything replaced. `files` are here-documents: name, content."""

    line: Line
    adds: bool
    sources: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    target: str
    origin: str
    chown: str
    chmod: str
    link: bool
    parents: bool
    excludes: tuple[str, ...]
    checksum: str
    keeps_git: bool
    unpacks: bool | None
    workdir: str


SCRIPT_PATH = "/dev/pipes/EOF"


def global_arguments(program: Program, given: Given) -> dict[str, str]:
    """The ARGs before the first FROM, with what FROM lines may name besides."""
    known: dict[str, str] = {}
    predefined = given.platform_arguments()
    for argument in program.arguments:
        for name, default in argument.pairs:
            value = given.take(name)
            if value is None and default is not None:
                value = _replaced(argument.line, default, {**predefined, **known}, program.dockerfile.escape, given)
            if value is not None:
                known[name] = value
    return known


def base_of(program: Program, number: int, arguments: Mapping[str, str], given: Given) -> tuple[str, str]:
    """The image (or stage) name and the platform text of a stage's FROM. Raises DockerfileError."""
    start = program.stages[number].start
    variables = {**given.platform_arguments(), **arguments}
    escape = program.dockerfile.escape
    image = _replaced(start.line, start.image, variables, escape, given)
    if not image:
        raise start.line.error(f"base name ({start.image}) should not be blank")
    return image, _replaced(start.line, start.platform, variables, escape, given)


def begin(config: ContainerConfig, *, author: str = "") -> StageState:
    """A stage on an image's configuration: PATH is there, triggers are consumed."""
    entries = list(config.Env or ())
    if not any(entry.startswith("PATH=") for entry in entries):
        entries.append(DEFAULT_PATH)
    shell = tuple(config.Shell) if config.Shell is not UNSET and config.Shell else DEFAULT_SHELL
    return StageState(config=msgspec.structs.replace(config, Env=entries, OnBuild=None), shell=shell, author=author)


class Evaluator:
    """Applies the instructions of one stage, one after the other."""

    def __init__(self, given: Given, arguments: Mapping[str, str], *, escape: str = "\\") -> None:
        """arguments: the global ones, which a bare ARG brings into the stage."""
        self._given = given
        self._globals = arguments
        self._escape = escape

    def _one(self, line: Line, text: str, state: StageState) -> str:
        return _replaced(line, text, state.variables, self._escape, self._given)

    def _many(self, line: Line, text: str, state: StageState) -> list[str]:
        def unset(name: str) -> None:
            self._given.undefined.append((line.first, name))

        try:
            return expand_words(text, state.variables, escape=self._escape, unset=unset)
        except ExpansionError as error:
            raise line.error(error.message) from None

    def apply(self, state: StageState, instruction: Arg | Pairs | Plain) -> tuple[StageState, str]:
        """The state after an instruction that makes no layer, and how history tells it. Raises DockerfileError."""
        line = instruction.line
        try:
            if isinstance(instruction, Arg):
                return self._arg(state, instruction)
            if isinstance(instruction, Pairs):
                return self._pairs(state, instruction)
            return _PLAIN[line.keyword](self, state, line)
        except DockerfileError:
            raise
        except InvalidArgument as error:
            raise line.error(error.message) from None

    def _arg(self, state: StageState, instruction: Arg) -> tuple[StageState, str]:
        known = dict(state.arguments)
        predefined = self._given.platform_arguments()
        told = []
        for name, default in instruction.pairs:
            value = self._given.take(name)
            if value is None and default is not None:
                variables = {**known, **state.environment}
                value = _replaced(instruction.line, default, variables, self._escape, self._given)
            if value is None:
                value = self._globals.get(name, predefined.get(name))
            told.append(name if default is None else f"{name}={default}")
            if value is not None:
                known[name] = value
        return replace(state, arguments=known), "ARG " + " ".join(told)

    def _pairs(self, state: StageState, instruction: Pairs) -> tuple[StageState, str]:
        line = instruction.line
        pairs = [(self._one(line, name, state), self._one(line, value, state)) for name, value in instruction.pairs]
        if any(not name for name, _ in pairs):
            raise line.error(f"{line.keyword} names can not be blank")
        setter = changes.set_env if line.keyword == "ENV" else changes.set_labels
        told = " ".join(f"{name}={value}" for name, value in pairs)
        return replace(state, config=setter(state.config, pairs)), f"{line.keyword} {told}"

    def _command(self, state: StageState, line: Line) -> list[str]:
        words = line.array
        return list(words) if words is not None else [*state.shell, line.rest] if line.rest else []

    def _cmd(self, state: StageState, line: Line) -> tuple[StageState, str]:
        words = self._command(state, line)
        config = msgspec.structs.replace(state.config, Cmd=words)
        return replace(state, config=config, has_command=True), f"CMD {_json(words)}"

    def _entrypoint(self, state: StageState, line: Line) -> tuple[StageState, str]:
        words = self._command(state, line)
        command = state.config.Cmd if state.has_command else None
        config = msgspec.structs.replace(state.config, Entrypoint=words, Cmd=command)
        return replace(state, config=config), f"ENTRYPOINT {_json(words)}"

    def _shell(self, state: StageState, line: Line) -> tuple[StageState, str]:
        words = line.array or ()
        config = msgspec.structs.replace(state.config, Shell=list(words))
        return replace(state, config=config, shell=words), f"SHELL {_json(words)}"

    def _expose(self, state: StageState, line: Line) -> tuple[StageState, str]:
        words = self._many(line, line.rest, state)
        config = changes.expose(state.config, words)
        return replace(state, config=config), "EXPOSE " + " ".join(words)

    def _volume(self, state: StageState, line: Line) -> tuple[StageState, str]:
        words = line.array
        given = split_blanks(line.rest) if words is None else words
        paths = [self._one(line, word, state) for word in given]
        if not paths:
            raise line.error("VOLUME requires at least one argument")
        config = changes.add_volumes(state.config, paths)
        return replace(state, config=config), f"VOLUME {_json(paths)}"

    def _user(self, state: StageState, line: Line) -> tuple[StageState, str]:
        words = self._many(line, line.rest, state)
        if len(words) != 1:
            raise line.error("USER requires exactly one argument")
        return replace(state, config=msgspec.structs.replace(state.config, User=words[0])), f"USER {words[0]}"

    def _workdir(self, state: StageState, line: Line) -> tuple[StageState, str]:
        path = self._one(line, line.rest, state)
        if not path:
            raise line.error("WORKDIR requires exactly one argument")
        config = changes.set_workdir(state.config, path)
        return replace(state, config=config), f"WORKDIR {config.WorkingDir}"

    def _stopsignal(self, state: StageState, line: Line) -> tuple[StageState, str]:
        word = self._one(line, line.rest, state)
        return replace(state, config=changes.set_stop_signal(state.config, word)), f"STOPSIGNAL {word}"

    def _health(self, state: StageState, line: Line) -> tuple[StageState, str]:
        text = " ".join((*line.flags, line.rest))
        config = changes.set_health(state.config, text)
        return replace(state, config=config), f"HEALTHCHECK {text}"

    def _onbuild(self, state: StageState, line: Line) -> tuple[StageState, str]:
        text = trigger_text(line)
        return replace(state, config=changes.add_trigger(state.config, text)), f"ONBUILD {text}"

    def _maintainer(self, state: StageState, line: Line) -> tuple[StageState, str]:
        return replace(state, author=line.rest), f"MAINTAINER {line.rest}"

    # -- steps that make layers ---------------------------------------------------------------------------------------

    def run(self, state: StageState, run: Run) -> RunStep:
        """A RUN as it will be executed. Raises DockerfileError."""
        workdir = state.config.WorkingDir or "/"
        mounts = self._mounts(state, run, workdir)
        script = ""
        if run.words is not None:
            argv = run.words
        elif run.heredocs and len(split_words(run.text, self._escape)) == 1:
            body = run.heredocs[0].content
            if body.startswith("#!"):
                script, argv = body, (SCRIPT_PATH,)
            else:
                argv = (*state.shell, body)
        else:
            tail = "".join(f"\n{doc.content}{doc.name}" for doc in run.heredocs)
            argv = (*state.shell, run.text + tail)
        environment = state.environment
        arguments = tuple(
            f"{name}={value}" for name, value in sorted(state.arguments.items()) if name not in environment
        )
        hidden = tuple(
            f"{name}={value}"
            for name, value in sorted(self._given.arguments.items())
            if name in PROXY_NAMES and name not in environment and name not in state.arguments
        )
        return RunStep(
            argv=argv,
            script=script,
            environment=tuple(state.config.Env or ()),
            arguments=arguments,
            hidden=hidden,
            user=state.config.User,
            workdir=workdir,
            mounts=mounts,
            network=run.network,
            is_privileged=run.security == "insecure",
        )

    def _mount_text(self, state: StageState, run: Run, text: str) -> str:
        """The fields with their variables replaced; a comma in a value does not begin another field."""
        try:
            fields = next(csv.reader([text], strict=True))
        except (csv.Error, StopIteration):
            raise run.line.error(f"cannot read mount {text!r}") from None
        told = io.StringIO()
        csv.writer(told, lineterminator="").writerow(
            part if part.strip().lower().startswith("from=") else self._one(run.line, part, state) for part in fields
        )
        return told.getvalue()

    def _mounts(self, state: StageState, run: Run, workdir: str) -> tuple[Mount, ...]:
        """The mounts; sockets of agents that name no target have numbers."""
        mounts: list[Mount] = []
        for text in run.mounts:
            mount = parse_mount(run, self._mount_text(state, run, text), workdir=workdir)
            if mount.kind == "ssh" and any(mount.target == other.target for other in mounts):
                number = sum(other.kind == "ssh" for other in mounts)
                mount = replace(mount, target=f"{mount.target.rpartition('.')[0]}.{number}")
            mounts.append(mount)
        return tuple(mounts)

    def copy(self, state: StageState, copy: Copy) -> CopyStep:
        """A COPY or ADD as it will be done. Raises DockerfileError."""
        line = copy.line
        files: list[tuple[str, str]] = []
        contents = {doc.name: doc for doc in copy.heredocs}
        sources: list[str] = []
        for source in copy.sources:
            name = heredoc_name(source, self._escape)
            if name in contents:
                doc = contents[name]
                files.append((doc.name, self._document(line, doc.content, state) if doc.expands else doc.content))
            else:
                sources.append(self._one(line, source, state))
        target = self._one(line, copy.target, state)
        if len(sources) + len(files) > 1 and not target.endswith("/") and target != ".":
            raise line.error(
                f"When using {line.keyword} with more than one source file, the destination must be a directory and "
                "end with a /"
            )
        if not target:
            raise line.error(f"{line.keyword} needs a destination")
        return CopyStep(
            line=line,
            adds=copy.adds,
            sources=tuple(sources),
            files=tuple(files),
            target=target,
            origin=copy.origin,
            chown=self._one(line, copy.chown, state),
            chmod=self._one(line, copy.chmod, state),
            link=copy.link,
            parents=copy.parents,
            excludes=tuple(self._one(line, pattern, state) for pattern in copy.excludes),
            checksum=self._one(line, copy.checksum, state),
            keeps_git=copy.keeps_git,
            unpacks=copy.unpacks,
            workdir=state.config.WorkingDir or "/",
        )

    def _document(self, line: Line, text: str, state: StageState) -> str:
        try:
            return expand_raw(text, state.variables, escape=self._escape)
        except ExpansionError as error:
            raise line.error(error.message) from None


def _replaced(line: Line, text: str, variables: Mapping[str, str], escape: str, given: Given) -> str:
    def unset(name: str) -> None:
        given.undefined.append((line.first, name))

    try:
        return expand(text, variables, escape=escape, unset=unset)
    except ExpansionError as error:
        raise line.error(f"failed to process {msgspec.json.encode(text).decode()}: {error.message}") from None


def _json(words: Sequence[str]) -> str:
    return msgspec.json.encode(list(words)).decode()


def created_by(step: RunStep) -> str:
    """How history tells a RUN: arguments counted and named before the command."""
    words = " ".join(step.argv)
    count = f"|{len(step.arguments)} {' '.join(step.arguments)} " if step.arguments else ""
    return f"RUN {count}{words}"


_PLAIN: dict[str, Callable[[Evaluator, StageState, Line], tuple[StageState, str]]] = {
    "CMD": Evaluator._cmd,
    "ENTRYPOINT": Evaluator._entrypoint,
    "SHELL": Evaluator._shell,
    "EXPOSE": Evaluator._expose,
    "VOLUME": Evaluator._volume,
    "USER": Evaluator._user,
    "WORKDIR": Evaluator._workdir,
    "STOPSIGNAL": Evaluator._stopsignal,
    "HEALTHCHECK": Evaluator._health,
    "ONBUILD": Evaluator._onbuild,
    "MAINTAINER": Evaluator._maintainer,
}

__all__ = ["CopyStep", "Evaluator", "Given", "Instruction", "Platform", "RunStep", "StageState", "begin"]
