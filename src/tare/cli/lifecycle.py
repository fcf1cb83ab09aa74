"""start, stop, kill, restart, pause, unpause, rename, rm, wait."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags
from tare.cli.context import each
from tare.client.errors import ApiError
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context
    from tare.client.http import Client

_MANY = "CONTAINER [CONTAINER...]"
_SIGNAL = flags.Flag("signal", "s", flags.STRING, "Signal to send, by name or number")


def path(name: str) -> str:
    """The container's path in the API."""
    return f"/containers/{percent(name)}"


_STOPPING = (
    _SIGNAL,
    flags.Flag("timeout", "t", flags.INT, "Seconds to wait before it is killed; -1 waits for ever"),
    flags.Flag("time", "", flags.INT, "Old spelling of --timeout", hidden=True, of="timeout"),
)


def _stop_query(options: flags.Options) -> dict[str, str | int]:
    query: dict[str, str | int] = {"signal": options.text("signal")}
    if options.changed("timeout"):
        query["t"] = options.number("timeout")
    return query


def _stop(context: Context, options: flags.Options, operands: list[str]) -> int:
    def stop(name: str) -> str:
        context.client.post(f"{path(name)}/stop", query=_stop_query(options))
        return name

    return each(context, operands, stop)


def _restart(context: Context, options: flags.Options, operands: list[str]) -> int:
    def restart(name: str) -> str:
        context.client.post(f"{path(name)}/restart", query=_stop_query(options))
        return name

    return each(context, operands, restart)


def _kill(context: Context, options: flags.Options, operands: list[str]) -> int:
    def kill(name: str) -> str:
        context.client.post(f"{path(name)}/kill", query={"signal": options.text("signal")})
        return name

    return each(context, operands, kill)


def _pause(context: Context, _: flags.Options, operands: list[str]) -> int:
    def pause(name: str) -> str:
        context.client.post(f"{path(name)}/pause")
        return name

    return each(context, operands, pause)


def _unpause(context: Context, _: flags.Options, operands: list[str]) -> int:
    def unpause(name: str) -> str:
        context.client.post(f"{path(name)}/unpause")
        return name

    return each(context, operands, unpause)


def _rename(context: Context, _: flags.Options, operands: list[str]) -> int:
    old, new = (operand.strip() for operand in operands)
    if not old or not new:
        raise exits.Exit(exits.FAILED, "Error: Neither old nor new names may be empty")
    context.client.post(f"{path(old)}/rename", query={"name": new})
    return exits.OK


def _rm(context: Context, options: flags.Options, operands: list[str]) -> int:
    query = {"v": options.on("volumes"), "link": options.on("link"), "force": options.on("force")}

    def remove(name: str) -> str | None:
        name = name.strip("/")
        if not name:
            raise exits.Exit(exits.FAILED, "Container name cannot be empty")
        try:
            context.client.call("DELETE", path(name), query=query)
        except ApiError as error:
            if options.on("force") and error.status == 404:
                context.error(str(error))
                return None
            raise
        return name

    return each(context, operands, remove)


def wait_for(client: Client, name: str, condition: str = "") -> str:
    """The exit code when the condition holds. Raises ApiError, also when it cannot hold any more."""
    answer = client.post(f"{path(name)}/wait", query={"condition": condition})
    if not isinstance(answer, dict):
        raise ApiError(500, "the engine gave no exit code")
    problem = answer.get("Error")
    if isinstance(problem, dict) and problem.get("Message"):
        raise ApiError(500, str(problem["Message"]))
    return str(answer.get("StatusCode"))


def _wait(context: Context, options: flags.Options, operands: list[str]) -> int:
    return each(context, operands, lambda name: wait_for(context.client, name, options.text("condition")))


def _start(context: Context, options: flags.Options, operands: list[str]) -> int:
    if options.on("attach") or options.on("interactive"):
        if len(operands) > 1:
            raise exits.Exit(exits.FAILED, "you cannot start and attach multiple containers at once")
        from tare.cli.attach import start_attached

        return start_attached(context, options, operands[0])

    failed: list[str] = []

    def start(name: str) -> str:
        query = {
            "checkpoint": options.text("checkpoint"),
            "checkpoint-dir": options.text("checkpoint-dir"),
            "detachKeys": options.text("detach-keys"),
        }
        try:
            context.client.post(f"{path(name)}/start", query=query)
        except ApiError:
            failed.append(name)
            raise
        if options.on("wait"):
            wait_for(context.client, name, "healthy")
        return name

    code = each(context, operands, start)
    if failed:
        context.error(f"Error: failed to start containers: {', '.join(failed)}")
    return code


START = flags.Command(
    _start,
    "Start stopped containers",
    operands=_MANY,
    least=1,
    most=None,
    flags=(
        flags.Flag("attach", "a", flags.BOOL, "Attach its output, pass signals on, and exit with its code"),
        flags.Flag("checkpoint", "", flags.STRING, "Go on from this checkpoint", hidden=True),
        flags.Flag("checkpoint-dir", "", flags.STRING, "Where checkpoints are kept", hidden=True),
        flags.Flag("detach-keys", "", flags.STRING, "Keys that detach this terminal, ctrl-p,ctrl-q by default"),
        flags.Flag("interactive", "i", flags.BOOL, "Attach stdin too"),
        flags.Flag("wait", "", flags.BOOL, "Wait until its health check passes; fail when it does not (beyond Docker)"),
    ),
)
STOP = flags.Command(
    _stop,
    "Stop running containers",
    operands=_MANY,
    least=1,
    most=None,
    flags=_STOPPING,
    about="The container's stop signal is sent; what still runs after its time-out is killed.",
)
RESTART = flags.Command(
    _restart,
    "Stop containers and start them again",
    operands=_MANY,
    least=1,
    most=None,
    flags=_STOPPING,
)
KILL = flags.Command(_kill, "Send a signal to running containers", operands=_MANY, least=1, most=None, flags=(_SIGNAL,))
PAUSE = flags.Command(_pause, "Freeze all processes of containers", operands=_MANY, least=1, most=None)
UNPAUSE = flags.Command(_unpause, "Let frozen containers go on", operands=_MANY, least=1, most=None)
RENAME = flags.Command(_rename, "Give a container another name", operands="CONTAINER NEW_NAME", least=2, most=2)
RM = flags.Command(
    _rm,
    "Remove containers",
    operands=_MANY,
    least=1,
    most=None,
    flags=(
        flags.Flag("force", "f", flags.BOOL, "Kill what is running first"),
        flags.Flag("link", "l", flags.BOOL, "Remove the link of this name, not a container"),
        flags.Flag("volumes", "v", flags.BOOL, "Remove its unnamed volumes too"),
    ),
)
WAIT = flags.Command(
    _wait,
    "Wait until containers stop and print their exit codes",
    operands=_MANY,
    least=1,
    most=None,
    flags=(
        flags.Flag(
            "condition", "", flags.STRING, "not-running, next-exit, removed or (beyond Docker) healthy", default=""
        ),
    ),
)
