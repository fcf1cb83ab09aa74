"""`tare attach` and `tare start -a`: this terminal on a container that exists already."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags, streams
from tare.cli.run import Session, exit_status
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.context import Context


def _inspect(context: Context, name: str) -> dict[str, Any]:
    answer = context.client.get(f"/containers/{percent(name)}/json")
    assert isinstance(answer, dict)
    return answer


def _keys(options: flags.Options) -> bytes:
    try:
        return streams.detach_bytes(options.text("detach-keys"))
    except ValueError as error:
        raise exits.Exit(exits.FAILED, f"invalid detach keys ({options.text('detach-keys')}): {error}") from None


def _attach(context: Context, options: flags.Options, operands: list[str]) -> int:
    keys = _keys(options)
    info = _inspect(context, operands[0])
    state = info["State"]
    for flag, text in (
        (not state["Running"], "cannot attach to a stopped container, start it first"),
        (state["Paused"], "cannot attach to a paused container, unpause it first"),
        (state["Restarting"], "cannot attach to a restarting container, wait until it is running"),
    ):
        if flag:
            raise exits.Exit(exits.FAILED, f"You {text}" if text.startswith("cannot") else text)
    tty = bool(info["Config"]["Tty"])
    stdin = bool(info["Config"]["OpenStdin"]) and not options.on("no-stdin")
    _check_terminal(tty=tty, stdin=stdin)
    session = Session(context, str(info["Id"]), tty=tty, stdin=stdin)
    session.started = True
    waiting = session.wait("")
    session.attach(stdout=True, stderr=True, detach_keys=options.text("detach-keys"))
    with session.signals(proxy=options.on("sig-proxy")) as signals:
        with streams.RawTerminal(tty and stdin):
            if tty:
                streams.resize(session.client, session.path, wiggle=True)
            detached = session.pump(signals, detach=keys)
        if detached:
            raise exits.Exit(exits.FAILED, "read escape sequence")
        return exit_status(context, streams.await_answer(waiting, signals))


def _check_terminal(*, tty: bool, stdin: bool) -> None:
    import os

    if tty and stdin and not os.isatty(0):
        raise exits.Exit(exits.FAILED, "the input device is not a TTY")


def start_attached(context: Context, options: flags.Options, name: str) -> int:
    """`start -a`/`-i`: attach, wait, start, in the order that loses no output. The program's exit code."""
    keys = _keys(options)
    info = _inspect(context, name)
    tty = bool(info["Config"]["Tty"])
    stdin = options.on("interactive") and bool(info["Config"]["OpenStdin"])
    _check_terminal(tty=tty, stdin=stdin)
    session = Session(context, str(info["Id"]), tty=tty, stdin=stdin)
    with session.signals(proxy=not tty) as signals:
        session.attach(stdout=True, stderr=True, detach_keys=options.text("detach-keys"))
        waiting = session.wait("removed" if info["HostConfig"].get("AutoRemove") else "next-exit")
        session.client.post(f"{session.path}/start", query={"detachKeys": options.text("detach-keys")})
        session.started = True
        with streams.RawTerminal(tty and stdin):
            if tty:
                streams.resize(session.client, session.path)
            detached = session.pump(signals, detach=keys)
        if detached:
            return exits.OK
        return exit_status(context, streams.await_answer(waiting, signals))


ATTACH = flags.Command(
    _attach,
    "Connect this terminal to a running container",
    operands="CONTAINER",
    least=1,
    most=1,
    flags=(
        flags.Flag("detach-keys", "", flags.STRING, "Keys that detach this terminal, ctrl-p,ctrl-q by default"),
        flags.Flag("no-stdin", "", flags.BOOL, "Do not attach stdin"),
        flags.Flag("sig-proxy", "", flags.BOOL, "Pass signals on to the process", default=True),
    ),
)
