"""Handing in devices by name (`--device vendor.com/class=name`, `--gpus`): files read, names resolved, edits made.

The files are the administrator's: their hooks run as root on this machine, by the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tare.base.errors import InvalidArgument
from tare.containers import cdi
from tare.containers.cdi import Known, Node
from tare.drivers import cdi as files
from tare.drivers import devices
from tare.engine.engine import Engine
from tare.wire.config import HostConfig


def known(engine: Engine) -> Known:
    """What the files say now. One that is wrong does not hide the others."""
    specs, problems = [], {}
    for document in files.read([Path(directory) for directory in engine.settings.cdi_directories]):
        try:
            if document.problem:
                raise InvalidArgument(document.problem)
            specs.append(cdi.parse(document.value, path=document.path, priority=document.priority))
        except InvalidArgument as error:
            problems[document.path] = error.message
    return Known(tuple(specs), problems)


def check(engine: Engine, host: HostConfig) -> None:
    """At create: every device is known. Raises InvalidArgument."""
    if host.DeviceRequests:
        there = known(engine)
        cdi.edits_of(cdi.names_of(host.DeviceRequests, there), there)


def edit(engine: Engine, host: HostConfig, config: dict[str, Any]) -> bool:
    """At start: add the devices to the specification. Whether it has hooks now. Raises InvalidArgument."""
    if not host.DeviceRequests:
        return False
    there = known(engine)
    cdi.apply(config, cdi.edits_of(cdi.names_of(host.DeviceRequests, there), there), numbered)
    return bool(config.get("hooks"))


def numbered(node: Node) -> Mapping[str, Any]:
    """A node with what this machine knows of it, as in `linux.devices`. Raises InvalidArgument when it is not there."""
    kind, major, minor, mode = node.kind, node.major, node.minor, node.mode
    if kind != "p" and (not kind or major is None or minor is None):
        _, found = devices.expand(node.host_path or node.path, node.path)[0]
        kind, major, minor = found.kind, found.major, found.minor
        mode = found.mode if mode is None else mode
    return {
        "path": node.path,
        "type": kind,
        "major": major or 0,
        "minor": minor or 0,
        "fileMode": 0o666 if mode is None else mode,
        "uid": node.uid or 0,
        "gid": node.gid or 0,
    }
