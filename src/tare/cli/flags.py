"""Flags as Docker's users write them, from a table: parsing, errors and the help text.

A command is a `Command`: its flags are data, its work a function. Parsing follows pflag: `--name value`,
`--name=value`, `-n value`, `-nvalue`, clusters `-it`, booleans only with `=`, `--` ends the flags. Where
`interspersed` is false the first operand ends them too (run, create, exec).
Source: pflag's documentation; error texts as the installed docker 28.2 prints them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from tare.cli.context import Context

    Value: TypeAlias = "bool | int | float | str | list[str]"

BOOL, STRING, LIST, INT, UINT16, UINT, INT64 = "bool", "string", "list", "int", "uint16", "uint", "int64"
STRINGS, MAP, BYTES, DECIMAL, DURATION, FILTER = "strings", "map", "bytes", "decimal", "duration", "filter"
MOUNT, NETWORK, ULIMIT, GPUS = "mount", "network", "ulimit", "gpu-request"
DEVICE_RATE, DEVICE_WEIGHT, PUBLISH = "device-rate", "device-weight", "publish"

_REPEATED = frozenset({LIST, STRINGS, MAP, FILTER, MOUNT, NETWORK, ULIMIT, GPUS, DEVICE_RATE, DEVICE_WEIGHT, PUBLISH})
_SHOWN = {DEVICE_RATE: LIST, DEVICE_WEIGHT: LIST, INT64: INT, PUBLISH: LIST}
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class UsageError(Exception):
    """The command line cannot be read. `str()` is Docker's line about it."""


class Flag:
    """One flag. `check` raises ValueError for a text that can never be right; `group` heads it in the help.

    of: the flag that this one is another spelling of; values land there. since: API version it needs.
    """

    __slots__ = ("check", "default", "group", "help", "hidden", "kind", "name", "of", "short", "since")

    def __init__(
        self,
        name: str,
        short: str,
        kind: str,
        text: str,
        *,
        default: Value | None = None,
        group: str = "",
        hidden: bool = False,
        since: str = "",
        of: str = "",
        check: Callable[[str], object] | None = None,
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.help = text
        self.default = default
        self.group = group
        self.hidden = hidden
        self.since = since
        self.of = of or name
        self.check = check

    @property
    def zero(self) -> Value:
        """The value when the flag is not given."""
        if self.default is not None:
            return self.default
        if self.kind in _REPEATED:
            return []
        if self.kind == BOOL:
            return False
        if self.kind in (INT, INT64, UINT16, UINT, BYTES, DURATION):
            return 0
        return ""

    @property
    def shown(self) -> str:
        """`-a, --all` as error messages name it."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Options:
    """What was given. Ask with the accessor of the flag's kind; asking for an unknown name is a programming error."""

    def __init__(self, flags: tuple[Flag, ...]) -> None:
        self._flags = {flag.name: flag for flag in flags}
        self._given: dict[str, Value] = {}

    def changed(self, name: str) -> bool:
        """Whether the flag stood on the command line."""
        return name in self._given

    def given(self) -> list[Flag]:
        """The flags that stood on the command line, in order of first appearance."""
        return [self._flags[name] for name in self._given]

    def _value(self, name: str) -> Value:
        return self._given[name] if name in self._given else self._flags[name].zero

    def on(self, name: str) -> bool:
        """A boolean."""
        return self._value(name) is True

    def text(self, name: str) -> str:
        """A string (also `decimal`, kept as written)."""
        return str(self._value(name))

    def number(self, name: str) -> int:
        """An integer: int, bytes in bytes, duration in nanoseconds."""
        value = self._value(name)
        return value if isinstance(value, int) else 0

    def many(self, name: str) -> list[str]:
        """A repeated flag, in order."""
        value = self._value(name)
        return list(value) if isinstance(value, list) else []

    def put(self, flag: Flag, text: str) -> None:
        """Take one occurrence. Raises UsageError with Docker's words."""
        try:
            self._put(flag, text)
        except ValueError as error:
            from tare.cli.human import quote_go

            raise UsageError(f'invalid argument {quote_go(text)} for "{flag.shown}" flag: {error}') from None

    def _put(self, flag: Flag, text: str) -> None:
        if flag.check is not None:
            flag.check(text)
        if flag.kind in _REPEATED:
            known = self._given.setdefault(flag.of, [])
            if isinstance(known, list):
                known.extend(_csv(text) if flag.kind == STRINGS else [_checked(flag.kind, text)])
            return
        self._given[flag.of] = _scalar(flag.kind, text)


def _csv(text: str) -> list[str]:
    if '"' not in text:
        return text.split(",")
    from tare.cli.csvline import fields

    return fields(text)


def _checked(kind: str, text: str) -> str:
    if kind == FILTER and "=" not in text:
        if not text:
            return text
        raise ValueError("bad format of filter (expected name=value)")
    return text


def _scalar(kind: str, text: str) -> Value:
    if kind == BOOL:
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    if kind in (INT, INT64, UINT16, UINT):
        return _integer(kind, text)
    if kind == BYTES:
        from tare.base.sizes import parse_bytes

        return -1 if text == "-1" else parse_bytes(text)
    if kind == DURATION:
        from tare.cli.human import parse_duration

        return parse_duration(text)
    if kind == DECIMAL:
        from tare.cli.human import parse_cpus

        parse_cpus(text)
    return text


_RANGE = {INT: (-(1 << 63), (1 << 63) - 1), UINT16: (0, 65535), UINT: (0, (1 << 64) - 1)}


def _integer(kind: str, text: str) -> int:
    function = "ParseUint" if kind in (UINT, UINT16) else "ParseInt"
    digits = text[1:] if text[:1] in ("+", "-") and kind not in (UINT, UINT16) else text
    try:
        if digits[:1] in ("+", "-", "") or not digits.isascii():
            raise ValueError
        value = int(digits, 0) if not digits.isdigit() else int(digits, 8 if digits[0] == "0" else 10)
    except ValueError:
        raise ValueError(f'strconv.{function}: parsing "{text}": invalid syntax') from None
    value = -value if text[0] == "-" else value
    low, high = _RANGE[INT if kind == INT64 else kind]
    if not low <= value <= high:
        raise ValueError(f'strconv.{function}: parsing "{text}": value out of range')
    return value


HELP = Flag("help", "", BOOL, "Show this text")


class Command:
    """One command: how it is called, what it says about itself, and the function that does it.

    operands: the usage line after the flags, `CONTAINER [CONTAINER...]`. least/most: how many operands (most None:
    no limit). run: `run(context, options, operands) -> exit code`.
    """

    __slots__ = ("about", "flags", "interspersed", "least", "most", "operands", "run", "summary")

    def __init__(
        self,
        run: Callable[[Context, Options, list[str]], int],
        summary: str,
        *,
        operands: str = "",
        flags: tuple[Flag, ...] = (),
        least: int = 0,
        most: int | None = 0,
        interspersed: bool = True,
        about: str = "",
    ) -> None:
        self.run = run
        self.summary = summary
        self.operands = operands
        self.flags = flags
        self.least = least
        self.most = most
        self.interspersed = interspersed
        self.about = about

    def usage(self, path: str) -> str:
        """`Usage:  tare ps [OPTIONS]`."""
        words = ["Usage: ", path]
        if self.flags:
            words.append("[OPTIONS]")
        if self.operands:
            words.append(self.operands)
        return " ".join(words)


def parse(
    flags: tuple[Flag, ...], argv: list[str], *, interspersed: bool = True, short_help: bool = True
) -> tuple[Options, list[str], bool]:
    """Read `argv`: the options, the operands, and whether help was asked for. Raises UsageError."""
    names = {flag.name: flag for flag in flags}
    shorts = {flag.short: flag for flag in flags if flag.short}
    names.setdefault("help", HELP)
    if short_help:
        shorts.setdefault("h", HELP)
    options = Options((*flags, HELP))
    operands: list[str] = []
    at = 0
    while at < len(argv):
        word = argv[at]
        at += 1
        if word == "--":
            operands.extend(argv[at:])
            break
        if not word.startswith("-") or word == "-":
            if not interspersed:
                operands.extend(argv[at - 1 :])
                break
            operands.append(word)
        elif word.startswith("--"):
            at = _long(options, names, word, argv, at)
        else:
            at = _cluster(options, shorts, word, argv, at)
    return options, operands, options.on("help")


def _long(options: Options, names: dict[str, Flag], word: str, argv: list[str], at: int) -> int:
    name, has_value, value = word[2:].partition("=")
    if not name or name[0] == "-":
        raise UsageError(f"bad flag syntax: {word}")
    flag = names.get(name)
    if flag is None:
        raise UsageError(f"unknown flag: --{name}")
    if has_value:
        options.put(flag, value)
    elif flag.kind == BOOL:
        options.put(flag, "true")
    elif at < len(argv):
        options.put(flag, argv[at])
        at += 1
    else:
        raise UsageError(f"flag needs an argument: --{name}")
    return at


def _cluster(options: Options, shorts: dict[str, Flag], word: str, argv: list[str], at: int) -> int:
    rest = word[1:]
    while rest:
        letter, rest = rest[0], rest[1:]
        flag = shorts.get(letter)
        if flag is None:
            raise UsageError(f"unknown shorthand flag: '{letter}' in -{letter}{rest}")
        if rest[:1] == "=":
            options.put(flag, rest[1:])
            return at
        if flag.kind == BOOL:
            options.put(flag, "true")
        elif rest:
            options.put(flag, rest)
            return at
        elif at < len(argv):
            options.put(flag, argv[at])
            return at + 1
        else:
            raise UsageError(f"flag needs an argument: '{letter}' in -{letter}")
    return at


def operand_error(command: Command, path: str, count: int) -> str | None:
    """Docker's sentence about a wrong number of operands, with the usage line; None when the number is right."""
    least, most = command.least, command.most
    if count >= least and (most is None or count <= most):
        return None
    see = "Run"
    if most == 0:
        wrong = "accepts no arguments"
    elif most is None:
        wrong, see = f"requires at least {_arguments(least)}", "See"
    elif least == most:
        wrong = f"requires {_arguments(least)}"
    elif least == 0:
        wrong = f"requires at most {_arguments(most)}"
    else:
        wrong = f"requires at least {least} and at most {_arguments(most)}"
        if count < least:
            wrong, see = f"requires at least {_arguments(least)}", "See"
        elif count > most:
            wrong = f"requires at most {_arguments(most)}"
    return f"tare: '{path}' {wrong}\n\n{command.usage(path)}\n\n{see} '{path} --help' for more information"


def _arguments(count: int) -> str:
    return f"{count} argument" if count == 1 else f"{count} arguments"


def wrap(text: str, width: int) -> list[str]:
    """Break `text` at blanks into lines of at most `width`; a longer word stays whole."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            if line and len(line) + 1 + len(word) > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return lines


def flag_help(flags: tuple[Flag, ...], width: int) -> str:
    """The flags as a manual lists them: one block per group, sorted by name, explanations aligned."""
    groups: dict[str, list[Flag]] = {}
    for flag in sorted(flags, key=lambda f: f.name):
        if not flag.hidden:
            groups.setdefault(flag.group, []).append(flag)
    blocks = []
    for title in sorted(groups, key=lambda t: (t != "", t)) if len(groups) > 1 else groups:
        blocks.append("\n".join([f"{title or 'Options'}:", *_rows(groups[title], width)]))
    return "\n\n".join(blocks)


def _rows(flags: list[Flag], width: int) -> list[str]:
    heads = []
    for flag in flags:
        kind = "" if flag.kind == BOOL else f" {_SHOWN.get(flag.kind, flag.kind)}"
        heads.append(f"  {f'-{flag.short}, ' if flag.short else '    '}--{flag.name}{kind}")
    column = max(len(head) for head in heads) + 3
    rows = []
    for head, flag in zip(heads, flags, strict=True):
        text = flag.help
        if flag.default not in (None, "", 0, False):
            shown = f'"{flag.default}"' if isinstance(flag.default, str) else str(flag.default).lower()
            text = f"{text} (default {shown})"
        lines = wrap(text, max(width - column, 24))
        rows.append(f"{head:<{column}}{lines[0]}")
        rows.extend(f"{'':<{column}}{line}" for line in lines[1:])
    return rows
