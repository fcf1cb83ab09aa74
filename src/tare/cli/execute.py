"""`tare exec`: a further process in a running container."""

from __future__ import annotations

import sys

from tare.cli import createspec, flags, streams
from tare.cli import exit as exits
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context


def _exec(context: Context, options: flags.Options, operands: list[str]) -> int:
    client, name = context.client, operands[0]
    detached, tty = options.on("detach"), options.on("tty")
    stdin = options.on("interactive") and not detached
    try:
        keys = streams.detach_bytes(options.text("detach-keys"))
        environment = createspec.environment(options.many("env-file"), options.many("env"), context.environ)
    except ValueError as error:
        raise exits.Exit(exits.FAILED, str(error)) from None
    except OSError as error:
        raise exits.Exit(exits.FAILED, f"open {error.filename}: {(error.strerror or '').lower()}") from None
    client.get(f"/containers/{percent(name)}/json")
    if stdin and tty and not sys.stdin.isatty():
        raise exits.Exit(exits.FAILED, "the input device is not a TTY")
    body: dict[str, object] = {
        "User": options.text("user"),
        "Privileged": options.on("privileged"),
        "Tty": tty,
        "AttachStdin": stdin,
        "AttachStderr": not detached,
        "AttachStdout": not detached,
        "DetachKeys": options.text("detach-keys"),
        "Env": environment or None,
        "WorkingDir": options.text("workdir"),
        "Cmd": operands[1:],
    }
    if tty and not detached:
        body["ConsoleSize"] = list(streams.terminal_size())
    created = client.post(f"/containers/{percent(name)}/exec", body=body)
    assert isinstance(created, dict)
    path = f"/exec/{created['Id']}"
    if detached:
        client.post(f"{path}/start", body={"Detach": True, "Tty": tty})
        return exits.OK
    return _attached(context, path, tty=tty, stdin=stdin, keys=keys)


def _attached(context: Context, path: str, *, tty: bool, stdin: bool, keys: bytes) -> int:
    import signal

    client = context.client
    start: dict[str, object] = {"Detach": False, "Tty": tty}
    if tty:
        start["ConsoleSize"] = list(streams.terminal_size())
    connection, _ = client.hijack(f"{path}/start", body=start)
    numbers = [int(signal.SIGWINCH)] if tty else []
    sys.stdout.flush()
    with streams.Signals(numbers, lambda _: streams.resize(client, path)) as signals:
        with streams.RawTerminal(tty and stdin):
            if tty:
                streams.resize(client, path)
            detached = streams.pump(
                connection, stdin=stdin, multiplexed=not tty, detach=keys if tty else b"", signals=signals
            )
        connection.close()
        if detached:
            context.error("read escape sequence")
            return exits.FAILED
    state = client.get(f"{path}/json")
    code = state.get("ExitCode") if isinstance(state, dict) else None
    return code if isinstance(code, int) else exits.OK


EXEC = flags.Command(
    _exec,
    "Run a further command in a running container",
    operands="CONTAINER COMMAND [ARG...]",
    least=2,
    most=None,
    interspersed=False,
    flags=(
        flags.Flag("detach", "d", flags.BOOL, "Start it in the background"),
        flags.Flag("detach-keys", "", flags.STRING, "Keys that detach this terminal, ctrl-p,ctrl-q by default"),
        flags.Flag("env", "e", flags.LIST, "Set an environment variable, name=value", check=createspec.check_env),
        flags.Flag("env-file", "", flags.LIST, "Read environment variables from a file, one a line"),
        flags.Flag("interactive", "i", flags.BOOL, "Attach stdin"),
        flags.Flag("privileged", "", flags.BOOL, "Give it all capabilities"),
        flags.Flag("tty", "t", flags.BOOL, "Give it a terminal"),
        flags.Flag("user", "u", flags.STRING, "User and group, name or number[:group]"),
        flags.Flag("workdir", "w", flags.STRING, "Working directory"),
    ),
)
