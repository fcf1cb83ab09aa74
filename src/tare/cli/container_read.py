"""diff, export, port, top: reading from a container."""

from __future__ import annotations

import sys

from tare.cli import exit as exits
from tare.cli import flags, listing
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context
    from tare.client.http import Answer

_KINDS = {0: "C", 1: "A", 2: "D"}


def _diff(context: Context, options: flags.Options, operands: list[str]) -> int:
    if not operands[0]:
        raise exits.Exit(exits.FAILED, "Container name cannot be empty")
    if len(operands) > 1 or options.given():
        from tare.cli import difference

        return difference.run(context, options, operands)
    changes = context.client.get(f"/containers/{percent(operands[0])}/changes")
    clean = listing.escape if context.is_terminal else str
    for change in changes if isinstance(changes, list) else []:
        assert isinstance(change, dict)
        kind = change["Kind"]
        context.line(f"{_KINDS.get(kind if isinstance(kind, int) else -1, '?')} {clean(str(change['Path']))}")
    return exits.OK


def write_stream(context: Context, answer: Answer, output: str, *, label: str) -> None:
    """The body of `answer` to a file (written beside and renamed when complete) or to stdout."""
    from tare.cli import progress

    if not output:
        if context.is_terminal:
            answer.close()
            raise exits.Exit(exits.FAILED, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
        sys.stdout.flush()
        for piece in answer:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    import os

    directory = os.path.dirname(output) or "."
    if not os.path.isdir(directory):
        answer.close()
        why = f'invalid output path: directory "{directory}" does not exist'
        raise exits.Exit(exits.FAILED, f"failed to {label}: {why}" if label == "save image" else why)
    if os.path.isdir(output) or (os.path.exists(output) and not os.path.isfile(output)):
        answer.close()
        kind = "a directory" if os.path.isdir(output) else "not a regular file"
        raise exits.Exit(exits.FAILED, f'invalid output path: "{output}" is {kind}')
    temporary = f"{output}.{os.getpid()}.tmp"
    meter = progress.Meter(os.path.basename(output), total=None, wanted=True)
    try:
        with open(temporary, "xb") as file:
            for piece in answer:
                file.write(piece)
                meter.add(len(piece))
        os.replace(temporary, output)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    finally:
        meter.close()


def refuse_terminal(context: Context, output: str) -> None:
    """Archives do not go to a terminal. Raises Exit."""
    if not output and context.is_terminal:
        raise exits.Exit(exits.FAILED, "cowardly refusing to save to a terminal. Use the -o flag or redirect")


def _export(context: Context, options: flags.Options, operands: list[str]) -> int:
    output = options.text("output")
    refuse_terminal(context, output)
    answer = context.client.request("GET", f"/containers/{percent(operands[0])}/export")
    write_stream(context, answer, output, label="export container")
    return exits.OK


def _port(context: Context, _: flags.Options, operands: list[str]) -> int:
    info = context.client.get(f"/containers/{percent(operands[0])}/json")
    assert isinstance(info, dict)
    settings = info.get("NetworkSettings")
    ports = settings.get("Ports") if isinstance(settings, dict) else None
    known = ports if isinstance(ports, dict) else {}

    def lines(port: str) -> list[str]:
        bindings = known.get(port)
        found = [b for b in bindings if isinstance(b, dict)] if isinstance(bindings, list) else []
        return [_joined(str(b.get("HostIp") or ""), str(b.get("HostPort") or "")) for b in found]

    if len(operands) > 1:
        number, _sep, protocol = operands[1].partition("/")
        wanted = f"{number}/{protocol or 'tcp'}"
        if not number.isdigit() or int(number) > 65535:
            raise exits.Exit(exits.FAILED, f"Error: invalid port ({number})")
        shown = lines(wanted)
        if not shown:
            raise exits.Exit(exits.FAILED, f"Error: No public port '{operands[1]}' published for {operands[0]}")
        context.out("".join(f"{line}\n" for line in shown))
        return exits.OK
    order = sorted(known, key=lambda port: (int(port.partition("/")[0]), port))
    context.out("".join(f"{port} -> {line}\n" for port in order for line in lines(port)))
    return exits.OK


def _joined(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _top(context: Context, _: flags.Options, operands: list[str]) -> int:
    query = {"ps_args": " ".join(operands[1:])}
    answer = context.client.get(f"/containers/{percent(operands[0])}/top", query=query)
    assert isinstance(answer, dict)
    rows = [answer.get("Titles"), *(answer["Processes"] if isinstance(answer.get("Processes"), list) else [])]  # type: ignore[misc]
    clean = listing.escape if context.is_terminal else str
    table = [[clean(str(cell)) for cell in row] for row in rows if isinstance(row, list)]
    context.out(listing.table(table, least=20))
    return exits.OK


DIFF = flags.Command(
    _diff,
    "Show what a container changed, or what is different between two file systems",
    operands="CONTAINER | OLD NEW [-- PATH...]",
    least=1,
    most=None,
    about="A was added, C changed, D deleted, compared with the image. OLD and NEW are images or containers, each as it is "
    "or as its lower layers made it: NAME@2 (the first two layers), NAME@-1 (all but the last), NAME@3fa9c1 (up to the layer "
    "whose diffID begins so). With a flag, one name is compared with what lies under its last layer.",
    flags=(
        flags.Flag("format", "", flags.STRING, "json: a line for each path, with all that is known of it"),
        flags.Flag("patch", "p", flags.BOOL, "Show the lines inside of text files, as git does"),
        flags.Flag("stat", "", flags.BOOL, "Only count what changed"),
        flags.Flag("times", "", flags.BOOL, "Also show what has nothing but another modification time"),
    ),
)
EXPORT = flags.Command(
    _export,
    "Write a container's file system as a tar archive",
    operands="CONTAINER",
    least=1,
    most=1,
    flags=(flags.Flag("output", "o", flags.STRING, "Write to this file instead of stdout"),),
)
PORT = flags.Command(
    _port, "List the published ports of a container", operands="CONTAINER [PRIVATE_PORT[/PROTO]]", least=1, most=2
)
TOP = flags.Command(
    _top, "List the processes of a container", operands="CONTAINER [ps OPTIONS]", least=1, most=None, interspersed=False
)
