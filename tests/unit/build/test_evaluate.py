"""What instructions do to a configuration, the scopes of ARG, and what a RUN or COPY asks for in the end."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from tare.build.evaluate import (
    DEFAULT_PATH,
    SCRIPT_PATH,
    CopyStep,
    Evaluator,
    Given,
    Platform,
    RunStep,
    StageState,
    base_of,
    begin,
    created_by,
    global_arguments,
)
from tare.build.instructions import Copy, Run, parse_program
from tare.build.lexer import DockerfileError
from tare.wire.config import ContainerConfig

AMD = Platform(architecture="amd64")
ARM = Platform(architecture="arm", variant="v7")


def given(**arguments: str) -> Given:
    return Given(arguments=arguments, build=AMD, target=ARM)


class Built:
    """The first stage of a Dockerfile gone through."""

    def __init__(self, text: str, arguments: Mapping[str, str] | None = None, *, base: ContainerConfig | None = None):
        program = parse_program(text if text.upper().startswith(("FROM", "ARG G", "#")) else f"FROM x\n{text}")
        self.given = given(**(arguments or {}))
        evaluator = Evaluator(self.given, global_arguments(program, self.given), escape=program.dockerfile.escape)
        self.state: StageState = begin(base or ContainerConfig())
        self.history: list[str] = []
        self.runs: list[RunStep] = []
        self.copies: list[CopyStep] = []
        for instruction in program.stages[0].body:
            if isinstance(instruction, Run):
                self.runs.append(evaluator.run(self.state, instruction))
            elif isinstance(instruction, Copy):
                self.copies.append(evaluator.copy(self.state, instruction))
            else:
                self.state, told = evaluator.apply(self.state, instruction)
                self.history.append(told)

    def config(self, field: str) -> object:
        return msgspec.to_builtins(self.state.config).get(field)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("ENV a=1 b=$a", "Env", [DEFAULT_PATH, "a=1", "b="]),
        ("ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc", "Env", [DEFAULT_PATH, "abc=bye", "def=hello", "ghi=bye"]),
        ("ENV a \"x y\" 'z'", "Env", [DEFAULT_PATH, "a=x y z"]),
        ("ENV a=\"x y\" b=x\\ y c='$a'", "Env", [DEFAULT_PATH, "a=x y", "b=x y", "c=$a"]),
        ("ENV PATH=/x:$PATH", "Env", ["PATH=/x:" + DEFAULT_PATH[5:]]),
        ("ENV n=k\nENV $n=v", "Env", [DEFAULT_PATH, "n=k", "k=v"]),
        ("ENV v=1\nLABEL a=$v \"b c\"='$v'", "Labels", {"a": "1", "b c": "$v"}),
        ("CMD echo $HOME", "Cmd", ["/bin/sh", "-c", "echo $HOME"]),
        ('CMD ["a", "$b"]', "Cmd", ["a", "$b"]),
        ('SHELL ["/bin/bash", "-ec"]\nCMD a', "Cmd", ["/bin/bash", "-ec", "a"]),
        ('SHELL ["/bin/bash", "-ec"]\nENTRYPOINT a', "Entrypoint", ["/bin/bash", "-ec", "a"]),
        ('SHELL ["/bin/bash", "-ec"]', "Shell", ["/bin/bash", "-ec"]),
        ('SHELL ["/bin/bash", "-ec"]\nHEALTHCHECK CMD a', "Healthcheck", {"Test": ["CMD-SHELL", "a"]}),
        ("ENV p=80 r=90-91/udp\nEXPOSE $p $r", "ExposedPorts", {"80/tcp": {}, "90/udp": {}, "91/udp": {}}),
        ("ENV p='80 81'\nEXPOSE $p", "ExposedPorts", {"80/tcp": {}, "81/tcp": {}}),
        ('ENV d=/d\nVOLUME ["$d", "/e f"]', "Volumes", {"/d": {}, "/e f": {}}),
        ("ENV d=/d\nVOLUME $d /e", "Volumes", {"/d": {}, "/e": {}}),
        ("ENV u=me\nUSER $u:users", "User", "me:users"),
        ("ENV d=b\nWORKDIR /a\nWORKDIR $d\nWORKDIR ../c", "WorkingDir", "/a/c"),
        ('WORKDIR "/a b"', "WorkingDir", "/a b"),
        ("ENV s=INT\nSTOPSIGNAL SIG$s", "StopSignal", "SIGINT"),
        ("STOPSIGNAL rtmin+3", "StopSignal", "rtmin+3"),
        ("STOPSIGNAL 99", "StopSignal", "99"),
        ("ONBUILD VOLUME dir", "OnBuild", ["VOLUME dir"]),
        ("VOLUME dir", "Volumes", {"dir": {}}),
        ("VOLUME '/a' \"/b\"", "Volumes", {"/a": {}, "/b": {}}),
        ('VOLUME ["/a b", " /c "]', "Volumes", {"/a b": {}, "/c": {}}),
        ("VOLUME ['/a']", "Volumes", {"[/a]": {}}),
        ("ENV two='/a /b'\nVOLUME $two", "Volumes", {"/a /b": {}}),
        ("CMD ['a', 'b']", "Cmd", ["/bin/sh", "-c", "['a', 'b']"]),
        ('CMD ["a"] b', "Cmd", ["/bin/sh", "-c", '["a"] b']),
        ('CMD ["a",]', "Cmd", ["/bin/sh", "-c", '["a",]']),
        ('CMD "a b"', "Cmd", ["/bin/sh", "-c", '"a b"']),
        ('ENTRYPOINT ["a"] ; b', "Entrypoint", ["/bin/sh", "-c", '["a"] ; b']),
        ("ENTRYPOINT []", "Entrypoint", []),
        ("HEALTHCHECK --interval=5s CMD a $b", "Healthcheck", {"Test": ["CMD-SHELL", "a $b"], "Interval": 5 * 10**9}),
        ("ONBUILD RUN a $b \\\n c", "OnBuild", ["RUN a $b  c"]),
        ("ONBUILD COPY <<A /b\nx\nA\nONBUILD USER c", "OnBuild", ["COPY <<A /b\nx\nA", "USER c"]),
    ],
)
def test_the_configuration_after(text: str, field: str, value: object) -> None:
    assert Built(text).config(field) == value


def test_a_stage_begins_with_the_configuration_of_its_base() -> None:
    base = ContainerConfig(
        Env=["PATH=/p", "A=b"], OnBuild=["RUN x"], Shell=["/sh"], User="u", WorkingDir="/w", Cmd=["c"]
    )
    state = begin(base)
    assert state.config == msgspec.structs.replace(base, OnBuild=None)
    assert (state.shell, state.environment) == (("/sh",), {"PATH": "/p", "A": "b"})
    assert begin(ContainerConfig()).config.Env == [DEFAULT_PATH]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("USER a", ["of", "base"]),
        ("ENTRYPOINT a", None),
        ("CMD b\nENTRYPOINT a", ["/bin/sh", "-c", "b"]),
        ("ENTRYPOINT a\nCMD b", ["/bin/sh", "-c", "b"]),
    ],
)
def test_an_entrypoint_takes_the_command_of_the_base_away(text: str, command: list[str] | None) -> None:
    assert Built(text, base=ContainerConfig(Cmd=["of", "base"])).state.config.Cmd == command


def test_history() -> None:
    built = Built(
        "ARG a=1 b\nENV c=$a d='x y'\nLABEL e=f\nWORKDIR w\nUSER u\nEXPOSE 80\nCMD x\nMAINTAINER me <a@b>\nONBUILD RUN x"
    )
    assert built.history == [
        "ARG a=1 b",
        "ENV c=1 d=x y",
        "LABEL e=f",
        "WORKDIR /w",
        "USER u",
        "EXPOSE 80",
        'CMD ["/bin/sh","-c","x"]',
        "MAINTAINER me <a@b>",
        "ONBUILD RUN x",
    ]
    assert built.state.author == "me <a@b>"


@pytest.mark.parametrize(
    ("text", "arguments", "value"),
    [
        ("ARG a=1\nENV v=$a", {}, "1"),
        ("ARG a=1\nENV v=$a", {"a": "2"}, "2"),
        ("ARG a\nENV v=$a", {"a": "2"}, "2"),
        ("ENV v=$a", {"a": "2"}, ""),  # not declared
        ("ARG a=1\nARG b=$a.x\nENV v=$b", {}, "1.x"),
        ("ARG a=1 b=$a\nENV v=$b", {}, "1"),
        ("ENV a=env\nARG a=arg\nENV v=$a", {"a": "2"}, "env"),
        ("ARG a=arg\nENV a=env\nENV v=$a", {}, "env"),
        ("ARG a=1\nARG a\nENV v=$a", {}, "1"),
        ("ARG G=g\nFROM x\nENV v=$G", {}, ""),  # of the global ones a stage sees only what it names
        ("ARG G=g\nFROM x\nARG G\nENV v=$G", {}, "g"),
        ("ARG G=g\nFROM x\nARG G=own\nENV v=$G", {}, "own"),
        ("ARG G=g\nFROM x\nARG G\nENV v=$G", {"G": "2"}, "2"),
        ("ENV v=$TARGETARCH", {}, ""),
        ("ARG TARGETARCH\nARG TARGETPLATFORM\nENV v=$TARGETARCH-$TARGETPLATFORM", {}, "arm-linux/arm/v7"),
        ("ARG BUILDPLATFORM\nARG TARGETSTAGE\nENV v=$BUILDPLATFORM-$TARGETSTAGE", {}, "linux/amd64-default"),
    ],
)
def test_what_an_argument_is_worth(text: str, arguments: dict[str, str], value: str) -> None:
    assert Built(text, arguments).state.environment["v"] == value


def test_from_sees_global_arguments_and_platforms() -> None:
    program = parse_program(
        "ARG V=1\nARG W=$V.$TARGETARCH\nFROM --platform=$BUILDPLATFORM a:${W:-x} AS b\nARG V=2\nFROM ${N:-b}\nFROM $N"
    )
    asked = given(V="9")
    known = global_arguments(program, asked)
    assert known == {"V": "9", "W": "9.arm"}
    assert base_of(program, 0, known, asked) == ("a:9.arm", "linux/amd64")
    assert base_of(program, 1, known, asked) == ("b", "")
    with pytest.raises(DockerfileError, match=r"base name \(\$N\) should not be blank"):
        base_of(program, 2, known, asked)


def test_arguments_that_no_line_took() -> None:
    given_arguments = {
        "a": "",
        "b": "",
        "http_proxy": "",
        "SOURCE_DATE_EPOCH": "",
        "BUILDKIT_INLINE_CACHE": "1",
        "c": "",
    }
    assert Built("ARG b\nRUN $a", given_arguments).given.unused() == ["a", "c"]


def test_names_without_a_value_are_told_with_their_line() -> None:
    assert Built("ENV a=$b\nCOPY $c d\nRUN $e").given.undefined == [(2, "b"), (3, "c")]


def test_a_run_brings_arguments_that_key_the_cache_and_proxies_that_do_not() -> None:
    built = Built(
        "ARG b=2\nARG a\nENV a=env c=3\nUSER u\nWORKDIR /w\nRUN --network=none --security=insecure x $b",
        {"HTTP_PROXY": "p", "other": "x"},
    )
    (step,) = built.runs
    assert (step.argv, step.environment) == (("/bin/sh", "-c", "x $b"), (DEFAULT_PATH, "a=env", "c=3"))
    assert (step.arguments, step.hidden) == (("b=2",), ("HTTP_PROXY=p",))
    assert (step.user, step.workdir, step.network, step.is_privileged) == ("u", "/w", "none", True)
    assert created_by(step) == "RUN |1 b=2 /bin/sh -c x $b"


@pytest.mark.parametrize(
    ("arguments", "value"), [({}, "http_proxy=default"), ({"http_proxy": "asked"}, "http_proxy=asked")]
)
def test_a_proxy_that_is_declared_is_an_argument_like_others(arguments: dict[str, str], value: str) -> None:
    (step,) = Built("ARG http_proxy=default\nRUN x", arguments).runs
    assert (step.arguments, step.hidden) == ((value,), ())


@pytest.mark.parametrize(
    ("text", "argv", "script"),
    [
        ("RUN a", ("/bin/sh", "-c", "a"), ""),
        ('RUN ["a", "$b"]', ("a", "$b"), ""),
        ('SHELL ["/b", "-x"]\nRUN a', ("/b", "-x", "a"), ""),
        ("RUN <<E\na $b\nc\nE", ("/bin/sh", "-c", "a $b\nc\n"), ""),
        ("RUN <<-'E F'\n\ta\n\tE F", ("/bin/sh", "-c", "a\n"), ""),
        ("RUN <<E\n#!/usr/bin/x\na\nE", (SCRIPT_PATH,), "#!/usr/bin/x\na\n"),
        ("RUN cat <<E >/f\na\nE", ("/bin/sh", "-c", "cat <<E >/f\na\nE"), ""),
        ("RUN cat <<'A' <<B\n1\nA\n2\nB", ("/bin/sh", "-c", "cat <<'A' <<B\n1\nA\n2\nB"), ""),
    ],
)
def test_the_command_of_a_run(text: str, argv: tuple[str, ...], script: str) -> None:
    (step,) = Built(text).runs
    assert (step.argv, step.script) == (argv, script)


def test_values_of_mounts_are_replaced_but_not_where_they_come_from() -> None:
    built = Built("ENV d=/d,rw i=a,b\nWORKDIR /w\nRUN --mount=type=cache,id=$i,target=$d --mount=target=m,from=st x")
    cache, bind = built.runs[0].mounts
    assert (cache.target, cache.id, cache.kind) == ("/d,rw", "a,b", "cache")
    assert (bind.target, bind.origin) == ("/w/m", "st")
    with pytest.raises(DockerfileError, match="'from' doesn't support variable expansion"):
        Built("RUN --mount=target=/m,from=$i x")


def test_sockets_of_agents_have_numbers() -> None:
    (step,) = Built("RUN --mount=type=ssh --mount=type=ssh,id=b --mount=type=ssh,target=/s x").runs
    assert [mount.target for mount in step.mounts] == ["/run/buildkit/ssh_agent.0", "/run/buildkit/ssh_agent.1", "/s"]


def test_a_copy_has_its_variables_replaced() -> None:
    built = Built(
        "ENV a=x b=1:2\nWORKDIR /w\nCOPY --from=st --chown=$b --chmod=${m:-755} --link --parents --exclude=*.$a $a 'y' d/"
    )
    (step,) = built.copies
    assert (step.sources, step.target, step.origin, step.workdir) == (("x", "y"), "d/", "st", "/w")
    assert (step.chown, step.chmod, step.link, step.parents, step.excludes) == ("1:2", "755", True, True, ("*.x",))


@pytest.mark.parametrize(
    ("text", "sources", "files"),
    [
        ("COPY <<f /d\n$a\nf", (), (("f", "x\n"),)),
        ("COPY <<'f' /d\n$a\nf", (), (("f", "$a\n"),)),
        ("COPY <<f'g' /d\n$a\nfg", (), (("fg", "$a\n"),)),
        ('COPY <<-f s <<g /d/\n\t"$a"\nf\n\\$a\ng', ("s",), (("f", '"x"\n'), ("g", "$a\n"))),
    ],
)
def test_documents_in_a_copy(text: str, sources: tuple[str, ...], files: tuple[tuple[str, str], ...]) -> None:
    (step,) = Built(f"ENV a=x\n{text}").copies
    assert (step.sources, step.files) == (sources, files)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "COPY a b c",
            "When using COPY with more than one source file, the destination must be a directory and end with",
        ),
        ("ADD <<a <<b c\na\nb", "When using ADD with more than one source file"),
        ("COPY a $n", "COPY needs a destination"),
        ("ENV $n=1", "ENV names can not be blank"),
        ("ENV a=${n:?why}", "n: why"),
        ("ENV a='b", "single-quote"),
        ("USER $n", "USER requires exactly one argument"),
        ("USER a b", "USER requires exactly one argument"),
        ("WORKDIR $n", "WORKDIR requires exactly one argument"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ("STOPSIGNAL NOSUCH", "Invalid signal: NOSUCH"),
        ("STOPSIGNAL 0", "Invalid signal: 0"),
        ("STOPSIGNAL SIGRTMAX-99", "Invalid signal: SIGRTMAX-99"),
        ("HEALTHCHECK CMD [1]", "arrays must be comprised of strings only"),
        (
            'COPY "a b" /x/',
            'failed to process "\\\\"a": unexpected end of statement while looking for matching double-quote',
        ),
        ("ADD 'a b' /x/", "looking for matching single-quote"),
        ('VOLUME "/a b"', "looking for matching double-quote"),
        ("STOPSIGNAL a b", "STOPSIGNAL requires exactly one argument"),
        ("HEALTHCHECK --interval=" + "9" * 400 + "s CMD x", "invalid duration"),
        ("HEALTHCHECK --retries=" + "9" * 5000 + " CMD x", "--retries"),
        ("RUN --mount=type=x,target=/a b", "unsupported mount type 'x'"),
        ("RUN --mount='\"' b", "cannot read mount"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message) as error:
        Built(text)
    assert error.value.line == 2


def test_several_sources_may_go_to_the_working_directory() -> None:
    assert Built("COPY a b .").copies[0].target == "."


@pytest.mark.parametrize(("platform", "text"), [(AMD, "linux/amd64"), (ARM, "linux/arm/v7")])
def test_platforms(platform: Platform, text: str) -> None:
    assert str(platform) == text
