"""`tare logs`: what a container has written."""

from __future__ import annotations

import sys

from tare.cli import exit as exits
from tare.cli import flags
from tare.client.errors import ConnectionFailed
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context
    from tare.client.http import Answer


def _logs(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli.timearg import wire_time

    path = f"/containers/{percent(operands[0])}"
    if options.on("clear"):
        context.client.request("DELETE", f"/tare/v1{path}/logs")
        return exits.OK
    info = context.client.get(f"{path}/json")
    assert isinstance(info, dict)
    times = {}
    for name in ("since", "until"):
        try:
            times[name] = wire_time(options.text(name))
        except ValueError as error:
            raise exits.Exit(exits.FAILED, f'invalid value for "{name}": {error}') from None
    query: dict[str, str | bool] = {
        "stdout": True,
        "stderr": True,
        "details": options.on("details"),
        "follow": options.on("follow"),
        "tail": options.text("tail"),
        "timestamps": options.on("timestamps"),
        **times,
    }
    answer = context.client.request("GET", f"{path}/logs", query=query)
    config = info.get("Config")
    tty = isinstance(config, dict) and bool(config.get("Tty"))
    sys.stdout.flush()
    if tty:
        from tare.cli.streams import write_all

        for piece in answer:
            write_all(1, piece)
    else:
        _demultiplex(answer)
    return exits.OK


def _demultiplex(answer: Answer) -> None:
    from tare.cli.streams import Demultiplexer, write_all

    frames = Demultiplexer()
    for piece in answer:
        pieces: dict[int, list[bytes]] = {}
        last = -1
        # Consecutive frames of one stream go out in one write.
        for stream, payload in frames.feed(piece):
            if last not in (stream, -1):
                write_all(2 if last == 2 else 1, b"".join(pieces.pop(last)))
            pieces.setdefault(stream, []).append(payload)
            last = stream
        if last != -1:
            write_all(2 if last == 2 else 1, b"".join(pieces[last]))
    if frames.unfinished:
        raise ConnectionFailed("unexpected EOF")


LOGS = flags.Command(
    _logs,
    "Print what a container has written",
    operands="CONTAINER",
    least=1,
    most=1,
    flags=(
        flags.Flag("clear", "", flags.BOOL, "Forget what it has written so far, and print nothing (not in Docker)"),
        flags.Flag("details", "", flags.BOOL, "Show labels and variables the log driver was told to keep"),
        flags.Flag("follow", "f", flags.BOOL, "Go on with what is written from now on"),
        flags.Flag("since", "", flags.STRING, "Only after a time, as 2026-01-02T13:23:37Z, or a while ago, as 42m"),
        flags.Flag("tail", "n", flags.STRING, "Only so many lines from the end", default="all"),
        flags.Flag("timestamps", "t", flags.BOOL, "Put the time before each line"),
        flags.Flag("until", "", flags.STRING, "Only before a time, or a while ago"),
    ),
)
