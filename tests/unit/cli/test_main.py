from __future__ import annotations

import pytest

from tare import __version__
from tare.cli.__main__ import main


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (["foo"], 1, "tare: unknown command: tare foo\n\nRun 'tare --help' for more information\n"),
        (["container", "foo"], 1, "tare: unknown command: tare container foo\n\nUsage:  tare container\n\nRun 'tare container --help' for more information\n"),
        (["--foo", "ps"], 125, "unknown flag: --foo\n\nUsage:  tare [OPTIONS] COMMAND [ARG...]\n\nRun 'tare --help' for more information\n"),
        (["ps", "-Z"], 125, "unknown shorthand flag: 'Z' in -Z\n\nUsage:  tare ps [OPTIONS]\n\nRun 'tare ps --help' for more information\n"),
        (["ps", "x"], 1, "tare: 'tare ps' accepts no arguments\n\nUsage:  tare ps [OPTIONS]\n\nRun 'tare ps --help' for more information\n"),
        (["help", "foo"], 1, "unknown help topic: foo\n"),
        (["-H", "a", "-H", "b", "ps"], 1, "specify only one -H\n"),
        (["-c", "other", "ps"], 1, 'context "other": only the context default exists\n'),
        (["-H", "unix:///nosuch/x", "run", "x"], 125, "tare: Cannot connect to the tare daemon at unix:///nosuch/x. Is the tare daemon running?\nStart it with `tare daemon` as root, or name another one with -H or DOCKER_HOST.\n\nRun 'tare run --help' for more information\n"),
    ],
)  # fmt: skip
def test_failures(argv: list[str], code: int, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (main(argv), capsys.readouterr()) == (code, ("", error))


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_the_manual(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith("Usage:  tare [OPTIONS] COMMAND\n")


@pytest.mark.parametrize("argv", [["help", "ps"], ["ps", "--help"], ["ps", "-h"], ["container", "ls", "--help"]])
def test_pages(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert "List containers" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tare version {__version__}\n"
