from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.build.evaluate import Given, Platform
from tare.build.ignore import read_ignore
from tare.build.instructions import parse_program
from tare.build.lint import RULES, Settings, Warned, lint, read_settings, refuse

HOST = Platform(architecture="amd64")


def warned(text: str, *, ignore: str = "", check: str = "", **arguments: str) -> list[Warned]:
    program = parse_program(text)
    settings = read_settings(check or program.dockerfile.directives.get("check", ""))
    return lint(
        program,
        text,
        Given(arguments=arguments, build=HOST, target=HOST),
        environment_of=lambda name: ["FROM_IMAGE=1"] if name.startswith("here") else None,
        is_ignored=read_ignore(ignore).leaves_out,
        settings=settings,
    )


CASES = [
    ("StageNameCasing", "FROM here AS Big", 1, "Stage name 'Big' should be lowercase"),
    ("FromAsCasing", "FROM here as x", 1, "'as' and 'FROM' keywords' casing do not match"),
    ("NoEmptyContinuation", "FROM here\nRUN a \\\n\n b", 2, "Empty continuation line found in: RUN a"),
    (
        "ConsistentInstructionCasing", "FROM here\nRUN a\nrun b", 3,
        "Command 'run' should match the case of the command majority (uppercase)",
    ),
    (
        "ConsistentInstructionCasing", "from here\nrun a\nRun b", 3,
        "Command 'Run' should match the case of the command majority (lowercase)",
    ),
    (
        "DuplicateStageName", "FROM here AS x\nFROM here AS x", 2,
        'Duplicate stage name "x", stage names should be unique',
    ),
    (
        "ReservedStageName", "FROM here AS context", 1,
        'Stage name should not use the same name as reserved stage "context"',
    ),
    (
        "JSONArgsRecommended", "FROM here\nCMD a b", 2,
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
    ),
    (
        "MaintainerDeprecated", "FROM here\nMAINTAINER me", 2,
        "Maintainer instruction is deprecated in favor of using label",
    ),
    ("UndefinedArgInFrom", "ARG VERSION=1\nFROM here${VERSON}", 2,
     "FROM argument 'VERSON' is not declared (did you mean VERSION?)"),
    (
        "WorkdirRelativePath", "FROM here\nWORKDIR a/b", 2,
        'Relative workdir "a/b" can have unexpected results if the base image changes',
    ),
    ("UndefinedVar", "FROM here\nARG NAME\nCOPY $NAMES /", 3,
     "Usage of undefined variable '$NAMES' (did you mean $NAME?)"),
    ("UndefinedVar", "FROM scratch\nLABEL a=$nothing", 2, "Usage of undefined variable '$nothing'"),
    (
        "MultipleInstructionsDisallowed", 'FROM here\nCMD ["a"]\nCMD ["b"]', 2,
        "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
    ),
    (
        "LegacyKeyValueFormat", "FROM here\nENV a b", 2,
        '"ENV key=value" should be used instead of legacy "ENV key value" format',
    ),
    (
        "RedundantTargetPlatform", "FROM --platform=$TARGETPLATFORM here", 1,
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    ),
    (
        "SecretsUsedInArgOrEnv", "FROM here\nARG API_TOKEN", 2,
        'Do not use ARG or ENV instructions for sensitive data (ARG "API_TOKEN")',
    ),
    (
        "InvalidDefaultArgInFrom", "ARG TAG\nFROM here:${TAG}", 2,
        "Default value for ARG here:${TAG} results in empty or invalid base image name",
    ),
    (
        "FromPlatformFlagConstDisallowed", "FROM --platform=linux/arm64 here", 1,
        'FROM --platform flag should not use constant value "linux/arm64"',
    ),
    (
        "CopyIgnoredFile", "FROM here\nCOPY a/b /", 2,
        'Attempting to Copy file "a/b" that is excluded by .dockerignore',
    ),
    (
        "InvalidDefinitionDescription", "FROM here\n# what it is\nARG X", 3,
        "Comment for ARG should follow the format: `# X <description>`",
    ),
    (
        "ExposeProtoCasing", "FROM here\nEXPOSE 80/TCP", 2,
        "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
    ),
    (
        "ExposeInvalidFormat", "FROM here\nEXPOSE 127.0.0.1:80:80", 2,
        "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
    ),
]  # fmt: skip


def test_every_rule_has_a_case() -> None:
    assert {rule for rule, *_ in CASES} == RULES


@pytest.mark.parametrize(
    ("rule", "text", "line", "said"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
def test_a_rule_is_told_once_with_its_line(rule: str, text: str, line: int, said: str) -> None:
    found = warned(text, ignore="a\n", check="experimental=all", TAG="1")
    assert found == [Warned(line, rule, said)]
    assert warned(text, ignore="a\n", check=f"experimental=all;skip={rule}", TAG="1") == []


@pytest.mark.parametrize(
    "text",
    [
        'FROM here AS build\n# X is the thing\nARG X=1\nENV Y=$X Z=${NOT:-x}\nWORKDIR /a\nWORKDIR b\nCMD ["a"]',
        "FROM here\nENV A=$FROM_IMAGE",
        "FROM elsewhere\nENV A=$WHO_KNOWS",
        "FROM here\nARG PUBLIC_KEY\nENV TOKEN_FILE=/x",
        "FROM here AS one\nENV A=1\nWORKDIR /x\nFROM one\nENV B=$A\nWORKDIR y",
        "ARG T=1\nFROM here:$T",
        "FROM --platform=$BUILDPLATFORM here\nARG TARGETARCH\nRUN x\nENV a=$TARGETARCH",
        "FROM --platform=linux/arm64 here AS base-arm64",
        'FROM here\nSHELL ["/bin/bash", "-c"]\nCMD a',
        "FROM here\nCOPY --from=x a /b\nADD https://h.example/a /\nCOPY <<EOF /x\n$PATH\nEOF\n",
        "FROM here\nONBUILD COPY $LATER /\nEXPOSE 80/tcp 81-82/udp ${PATH:-9}",
    ],
)
def test_what_is_well_is_not_warned_of(text: str) -> None:
    assert warned(text, ignore="a\n", check="experimental=all") == []


def test_the_directive_and_the_error() -> None:
    text = "# check=skip=JSONArgsRecommended;error=true\nFROM here\nCMD a\nMAINTAINER x\n"
    found = warned(text)
    assert [one.rule for one in found] == ["MaintainerDeprecated"]
    assert read_settings("skip=all") == Settings(skips=frozenset({"all"}))
    assert read_settings("error=true").is_error
    with pytest.raises(InvalidArgument, match="lint violation found for rules: MaintainerDeprecated"):
        refuse(found)
    refuse([])
    for wrong in ("skip", "what=1", "error=maybe"):
        with pytest.raises(InvalidArgument):
            read_settings(wrong)


def test_where_a_rule_is_explained() -> None:
    assert Warned(1, "JSONArgsRecommended", "").url.endswith("/rule/json-args-recommended/")
    assert Warned(1, "SecretsUsedInArgOrEnv", "").url.endswith("/rule/secrets-used-in-arg-or-env/")
