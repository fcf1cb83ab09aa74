"""`tare edit`: change an existing container, which keeps its file system. Docker has no such command."""

from __future__ import annotations

from tare.cli import createspec, flags, mountspec, update
from tare.cli import exit as exits
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tare.cli.context import Context

_NAMES = frozenset(
    [
        "entrypoint",
        "env",
        "env-file",
        "health-cmd",
        "health-interval",
        "health-retries",
        "health-start-interval",
        "health-start-period",
        "health-timeout",
        "label",
        "label-file",
        "mount",
        "no-healthcheck",
        "volume",
    ]
)


def body(options: flags.Options, command: list[str], environ: Mapping[str, str]) -> dict[str, object]:
    """The request: what was given and nothing else. Raises ValueError."""
    found = update.body(options)
    labels: dict[str, str | None] = dict.fromkeys(options.many("label-rm"))
    labels |= createspec.labels(options.many("label-file"), options.many("label"))
    if labels:
        found["Labels"] = labels
    env = createspec.environment(options.many("env-file"), options.many("env"), environ)
    for name in options.many("env-rm"):
        if not name or "=" in name:
            raise ValueError(f"--env-rm wants the name of a variable: {name}")
        env.append(name)
    if env:
        found["Env"] = env
    if command:
        found["Cmd"] = command
    if options.changed("entrypoint"):
        found["Entrypoint"] = [options.text("entrypoint")] if options.text("entrypoint") else []
    if health := createspec.health(options):
        found["Healthcheck"] = health
    binds, anonymous = createspec.volumes(options)
    mounts = [mountspec.mount(text) for text in options.many("mount")]
    mounts += [{"Type": "volume", "Target": place} for place in anonymous]
    for key, value in (("Binds", binds), ("Mounts", mounts), ("RemoveMounts", options.many("mount-rm"))):
        if value:
            found[key] = value
    if options.text("name"):
        found["Name"] = options.text("name")
    return found


def _edit(context: Context, options: flags.Options, operands: list[str]) -> int:
    try:
        wanted = body(options, operands[1:], context.environ)
    except ValueError as error:
        raise exits.Exit(exits.FAILED, str(error)) from None
    if not wanted:
        raise exits.Exit(exits.FAILED, "nothing to change: name a flag or a command")
    answer = context.client.post(f"/containers/{percent(operands[0])}/update", body=wanted)
    warnings = answer.get("Warnings") if isinstance(answer, dict) else None
    context.line(operands[0])
    for warning in warnings if isinstance(warnings, list) else []:
        context.error(f"WARNING: {warning}")
    return exits.OK


EDIT = flags.Command(
    _edit,
    "Change an existing container, which keeps its file system",
    operands="CONTAINER [-- COMMAND [ARG...]]",
    least=1,
    most=None,
    about="Name, labels, health check, limits and restart policy hold at once; of a running container, environment, "
    "command and mounts hold from its next start on. Only for engines of tare.",
    flags=(
        *(
            flags.Flag("restart", "", flags.STRING, flag.help) if flag.name == "restart" else flag
            for flag in createspec.FLAGS
            if flag.name in _NAMES or flag.name in update.NAMES
        ),
        flags.Flag("env-rm", "", flags.LIST, "Take an environment variable away", group="Process"),
        flags.Flag("label-rm", "", flags.LIST, "Take a label away"),
        flags.Flag("mount-rm", "", flags.LIST, "Take the mount at this place away", group="Storage"),
        flags.Flag("name", "", flags.STRING, "Give it another name"),
    ),
)
