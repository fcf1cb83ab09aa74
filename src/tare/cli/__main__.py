"""The command line `tare`: global flags, finding the command, and the exit code of whatever happens.

Imports here are paid by every call, so there are almost none: a command's module is imported when it is called.
"""

from __future__ import annotations

import sys

from tare.cli import catalog, flags
from tare.cli import exit as exits
from tare.cli.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

GLOBAL = (
    flags.Flag("config", "", flags.STRING, "Directory of the client's own settings and credentials"),
    flags.Flag("context", "c", flags.STRING, 'Accepted for compatibility; only "default" exists'),
    flags.Flag("debug", "D", flags.BOOL, "Show where an unexpected error came from"),
    flags.Flag("host", "H", flags.LIST, "Address of the engine: unix:///path or tcp://name:port"),
    flags.Flag("log-level", "l", flags.STRING, "Accepted for compatibility with Docker", default="info"),
    flags.Flag("tls", "", flags.BOOL, "Use TLS; implied by --tlsverify"),
    flags.Flag("tlscacert", "", flags.STRING, "Trust certs signed only by this CA"),
    flags.Flag("tlscert", "", flags.STRING, "Path to TLS certificate file"),
    flags.Flag("tlskey", "", flags.STRING, "Path to TLS key file"),
    flags.Flag("tlsverify", "", flags.BOOL, "Use TLS and verify the remote"),
    flags.Flag("version", "v", flags.BOOL, "Print the version and leave"),
)


def main(argv: list[str] | None = None) -> int:
    """Run one command line (without the program's name); the result is the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["daemon"]:
        return _daemon(words[1:])
    debug = any(word in ("-D", "--debug") for word in words)
    try:
        code = _run(words, _environ())
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough. The interpreter must not try to flush again at its end.
        _abandon_stdout()
        return exits.SIGPIPE
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except exits.Exit as leaving:
        _flush()
        if leaving.message:
            sys.stderr.write(f"{leaving.message}\n")
        return leaving.code
    except Exception as error:
        if debug:
            raise
        _flush()
        sys.stderr.write(f"{_text(error)}\n")
        return exits.FAILED
    return code


def _daemon(words: list[str]) -> int:
    import importlib

    run = importlib.import_module("tare.daemon.app").main
    return int(run(words) or 0)


def _environ() -> Mapping[str, str]:
    # `os` costs a millisecond to import where nothing else needs it.
    from posix import environ

    return {_decode(key): _decode(value) for key, value in environ.items()}


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _text(error: Exception) -> str:
    from tare.base.errors import TareError

    if isinstance(error, (TareError, ValueError)):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror.lower()}"
    return f"tare: unexpected {type(error).__name__}: {error} (run again with --debug to see where)"


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()


def _abandon_stdout() -> None:
    import os

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _run(words: list[str], environ: Mapping[str, str]) -> int:
    try:
        options, rest, wants_help = flags.parse(GLOBAL, words, interspersed=False)
    except flags.UsageError as error:
        usage = "Usage:  tare [OPTIONS] COMMAND [ARG...]\n\nRun 'tare --help' for more information"
        raise exits.Exit(exits.USAGE, f"{error}\n\n{usage}") from None
    if options.on("version"):
        from tare import __version__

        sys.stdout.write(f"tare version {__version__}\n")
        return exits.OK
    if options.text("context") not in ("", "default"):
        raise exits.Exit(exits.FAILED, f'context "{options.text("context")}": only the context default exists')
    if wants_help or not rest or (rest == ["help"]):
        return _print_help(catalog.root_help(GLOBAL, width()))
    if rest[0] == "help":
        rest = [*rest[1:], "--help"]
        if catalog.find(rest) is None and rest[0] not in catalog.GROUPS:
            raise exits.Exit(exits.FAILED, f"unknown help topic: {' '.join(rest[:-1])}")
    return _dispatch(rest, options, environ)


def _dispatch(words: list[str], options: flags.Options, environ: Mapping[str, str]) -> int:
    found = catalog.find(words)
    if found is None:
        return _no_command(words)
    path, command, rest = found
    name = f"tare {path}"
    try:
        given, operands, wants_help = flags.parse(
            command.flags,
            rest,
            interspersed=command.interspersed,
        )
    except flags.UsageError as error:
        text = f"{error}\n\n{command.usage(name)}\n\nRun '{name} --help' for more information"
        raise exits.Exit(exits.USAGE, text) from None
    if wants_help:
        return _print_help(catalog.command_help(path, command, width()))
    if wrong := flags.operand_error(command, name, len(operands)):
        raise exits.Exit(exits.FAILED, wrong)
    tls = {option: options.text(option) for option in ("tlscacert", "tlscert", "tlskey")}
    tls |= {option: "1" if options.on(option) else "" for option in ("tls", "tlsverify")}
    hosts, config = options.many("host"), options.text("config")
    context = Context(hosts=hosts, environ=environ, path=name, config_dir=config, tls=tls)
    return command.run(context, given, operands)


def _no_command(words: list[str]) -> int:
    group = words[0]
    if group not in catalog.GROUPS:
        raise exits.Exit(exits.FAILED, f"tare: unknown command: tare {group}\n\nRun 'tare --help' for more information")
    rest = [word for word in words[1:] if word not in ("--help", "-h")]
    if not rest or rest[0].startswith("-"):
        return _print_help(catalog.group_help(group))
    text = f"tare: unknown command: tare {group} {rest[0]}\n\nUsage:  tare {group}\n\n"
    raise exits.Exit(exits.FAILED, f"{text}Run 'tare {group} --help' for more information")


def width() -> int:
    """Columns to lay text out in: those of the terminal, at most 100; 80 when there is none."""
    if not sys.stdout.isatty():
        return 80
    import os

    try:
        return min(os.get_terminal_size(1).columns or 80, 100)
    except OSError:
        return 80


def _print_help(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    return exits.OK


if __name__ == "__main__":
    sys.exit(main())
