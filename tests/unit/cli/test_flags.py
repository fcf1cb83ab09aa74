from __future__ import annotations

import pytest

from tare.cli import flags
from tare.cli.flags import Flag, UsageError, parse

FLAGS = (
    Flag("all", "a", flags.BOOL, "All"),
    Flag("env", "e", flags.LIST, "Env"),
    Flag("names", "", flags.STRINGS, "Names"),
    Flag("name", "n", flags.STRING, "Name", default="x"),
    Flag("count", "c", flags.INT, "Count"),
    Flag("memory", "m", flags.BYTES, "Memory"),
    Flag("weight", "", flags.UINT16, "Weight"),
    Flag("wait", "", flags.DURATION, "Wait"),
    Flag("filter", "f", flags.FILTER, "Filter"),
    Flag("cpus", "", flags.DECIMAL, "Cpus"),
    Flag("tty", "t", flags.BOOL, "Tty"),
    Flag("yes", "", flags.BOOL, "Yes", default=True),
    Flag("old", "", flags.STRING, "Old", of="name", hidden=True),
)


def test_every_spelling() -> None:
    argv = [
        "-at",
        "--name",
        "v",
        "x",
        "-eA=1",
        "-e",
        "B",
        "--env=C",
        "--count=-3",
        "-m1k",
        "--wait",
        "1m",
        "--yes=false",
    ]
    options, operands, wants_help = parse(FLAGS, argv)
    assert operands == ["x"]
    assert not wants_help
    assert options.on("all")
    assert options.on("tty")
    assert not options.on("yes")
    assert options.text("name") == "v"
    assert options.many("env") == ["A=1", "B", "C"]
    assert (options.number("count"), options.number("memory"), options.number("wait")) == (-3, 1024, 60 * 10**9)


def test_defaults_and_changed() -> None:
    options, _, _ = parse(FLAGS, [])
    assert (options.text("name"), options.many("env"), options.number("count")) == ("x", [], 0)
    assert not options.changed("name")


def test_an_old_spelling_lands_in_the_new_flag() -> None:
    assert parse(FLAGS, ["--old", "z"])[0].text("name") == "z"


def test_strings_split_at_commas_and_lists_do_not() -> None:
    options, _, _ = parse(FLAGS, ["--names", "a,b", "--names", "c", "-e", "a,b"])
    assert (options.many("names"), options.many("env")) == (["a", "b", "c"], ["a,b"])


def test_options_end_at_the_first_operand_where_asked() -> None:
    options, operands, _ = parse(FLAGS, ["-a", "image", "-t", "--x"], interspersed=False)
    assert operands == ["image", "-t", "--x"]
    assert not options.on("tty")


def test_two_dashes_end_the_flags() -> None:
    assert parse(FLAGS, ["--", "-a"])[1] == ["-a"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["-aZ"], "unknown shorthand flag: 'Z' in -Z"),
        (["-Zab"], "unknown shorthand flag: 'Z' in -Zab"),
        (["--name"], "flag needs an argument: --name"),
        (["-n"], "flag needs an argument: 'n' in -n"),
        (["-c", "x"], 'invalid argument "x" for "-c, --count" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        (["--all=x"], 'invalid argument "x" for "-a, --all" flag: strconv.ParseBool: parsing "x": invalid syntax'),
        (["-f", "x"], 'invalid argument "x" for "-f, --filter" flag: bad format of filter (expected name=value)'),
        (["-m", "abc"], "invalid argument \"abc\" for \"-m, --memory\" flag: invalid size: 'abc'"),
        (["--weight", "70000"], 'invalid argument "70000" for "--weight" flag: strconv.ParseUint: parsing "70000": value out of range'),
        (["---x"], "bad flag syntax: ---x"),
    ],
)  # fmt: skip
def test_errors_are_those_of_docker(argv: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(FLAGS, argv)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("least", "most", "count", "words"),
    [
        (0, 0, 1, "accepts no arguments"),
        (1, None, 0, "requires at least 1 argument"),
        (2, 2, 1, "requires 2 arguments"),
        (0, 1, 2, "requires at most 1 argument"),
        (1, 2, 3, "requires at most 2 arguments"),
        (1, 1, 1, None),
    ],
)
def test_operand_counts(least: int, most: int | None, count: int, words: str | None) -> None:
    command = flags.Command(lambda *_: 0, "x", operands="X", least=least, most=most)
    text = flags.operand_error(command, "tare x", count)
    assert (text is None) if words is None else (text is not None and words in text)


def test_help_wraps_and_groups() -> None:
    text = flags.flag_help((Flag("b", "", flags.STRING, "word " * 20, group="G"), Flag("a", "x", flags.BOOL, "A")), 60)
    assert text.startswith("Options:\n  -x, --a   A\n\nG:\n      --b string   word")
    assert max(len(line) for line in text.splitlines()) <= 60
