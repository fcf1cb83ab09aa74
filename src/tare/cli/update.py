"""`tare update`: change the limits of containers."""

from __future__ import annotations

from tare.cli import createspec, flags, mountspec
from tare.cli import exit as exits
from tare.cli.context import each
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context

NAMES = (
    "blkio-weight", "cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "cpu-shares", "cpus", "cpuset-cpus",
    "cpuset-mems", "memory", "memory-reservation", "memory-swap", "pids-limit", "restart",
)  # fmt: skip
_KEYS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}


def body(options: flags.Options) -> dict[str, object]:
    """What was given and nothing else: an absent limit stays as it is. Raises ValueError."""
    from tare.cli.human import parse_cpus

    found: dict[str, object] = {}
    for name, key in _KEYS.items():
        if options.changed(name):
            found[key] = options.text(name) if name.startswith("cpuset") else options.number(name)
    if options.changed("cpus"):
        found["NanoCpus"] = parse_cpus(options.text("cpus"))
    if options.changed("restart"):
        found["RestartPolicy"] = mountspec.restart_policy(options.text("restart"))
    return found


def _update(context: Context, options: flags.Options, operands: list[str]) -> int:
    if not options.given():
        raise exits.Exit(exits.FAILED, "you must provide one or more flags when using this command")
    try:
        wanted = body(options)
    except ValueError as error:
        raise exits.Exit(exits.FAILED, str(error)) from None
    warnings: list[str] = []

    def update(name: str) -> str:
        answer = context.client.post(f"/containers/{percent(name)}/update", body=wanted)
        found = answer.get("Warnings") if isinstance(answer, dict) else None
        warnings.extend(str(warning) for warning in (found if isinstance(found, list) else []))
        return name

    code = each(context, operands, update)
    if warnings:
        context.line("\n".join(warnings))
    return code


UPDATE = flags.Command(
    _update,
    "Change the limits of containers",
    operands="CONTAINER [CONTAINER...]",
    least=1,
    most=None,
    flags=tuple(
        flags.Flag("restart", "", flags.STRING, flag.help) if flag.name == "restart" else flag
        for flag in createspec.FLAGS
        if flag.name in NAMES
    ),
)
