"""`tare port add|rm`: published ports of a container that exists. Docker has no such commands."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags, mountspec
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.context import Context


def bindings(texts: list[str], *, empties: bool) -> dict[str, list[dict[str, Any]]]:
    """`-p` texts as `PortBindings`. empties: a text that names no port of the host means all of that port's.

    Raises ValueError.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for text in texts:
        for port, binding in mountspec.publish(text):
            known = found.setdefault(port, [])
            if not (empties and not binding["HostPort"]):
                known.append(binding)
    return found


def _change(context: Context, container: str, body: dict[str, Any]) -> int:
    answer = context.client.post(f"/tare/v1/containers/{percent(container)}/ports", body=body)
    ports = answer.get("Ports") if isinstance(answer, dict) else None
    for port, given in sorted((ports or {}).items()) if isinstance(ports, dict) else ():
        for binding in given if isinstance(given, list) else ():
            if isinstance(binding, dict):
                address, number = str(binding.get("HostIp")), binding.get("HostPort")
                context.line(f"{port} -> [{address}]:{number}" if ":" in address else f"{port} -> {address}:{number}")
    return exits.OK


def _add(context: Context, _: flags.Options, operands: list[str]) -> int:
    return _change(context, operands[0], {"Add": _read(operands[1:], empties=False)})


def _rm(context: Context, _: flags.Options, operands: list[str]) -> int:
    return _change(context, operands[0], {"Remove": _read(operands[1:], empties=True)})


def _read(texts: list[str], *, empties: bool) -> dict[str, list[dict[str, Any]]]:
    try:
        return bindings(texts, empties=empties)
    except ValueError as error:
        raise exits.Exit(exits.FAILED, str(error)) from None


ADD = flags.Command(
    _add,
    "Publish ports of an existing container, at once",
    operands="CONTAINER [IP:][HOST_PORT:]PORT[/PROTO] [...]",
    least=2,
    most=None,
    about="Of a running container the ports are open when the command returns; it prints what is published then.",
)
RM = flags.Command(
    _rm,
    "Take published ports of a container back, at once",
    operands="CONTAINER [IP:][HOST_PORT:]PORT[/PROTO] [...]",
    least=2,
    most=None,
    about="Without a port of the host every binding of the container's port goes. TCP connections that are open stay "
    "open, UDP flows end.",
)
