"""What runs: the image's configuration under the container's (pure).

Source: moby daemon/commit.go `merge`, daemon/create.go `mergeAndVerifyConfig`, container/env.go.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from tare.base.errors import InvalidArgument
from tare.wire.config import ContainerConfig, Empty, HealthConfig, as_list

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _clean(directory: str) -> str:
    """A working directory without what makes no difference, as dockerd keeps it."""
    return "/" + posixpath.normpath(directory).lstrip("/") if directory.startswith("/") else directory


def merge(own: ContainerConfig, image: ContainerConfig | None) -> ContainerConfig:
    """The container's configuration with the image's filled in where the container says nothing.

    Raises InvalidArgument `no command specified` when neither names a program.
    """
    entrypoint, cmd = as_list(own.Entrypoint), as_list(own.Cmd)
    args_escaped = own.ArgsEscaped
    changes: dict[str, object] = {}
    if image is not None:
        if not own.User:
            changes["User"] = image.User
        changes["ExposedPorts"] = _union(own.ExposedPorts, image.ExposedPorts)
        changes["Env"] = merge_env(own.Env or (), image.Env or ())
        changes["Labels"] = {**(image.Labels or {}), **(own.Labels or {})}
        if not entrypoint:
            if not cmd:
                cmd = as_list(image.Cmd)
                args_escaped = image.ArgsEscaped
            if entrypoint is None:
                entrypoint = as_list(image.Entrypoint)
        changes["Healthcheck"] = merge_health(own.Healthcheck, image.Healthcheck)
        if not own.WorkingDir:
            changes["WorkingDir"] = image.WorkingDir
        changes["Volumes"] = {**(image.Volumes or {}), **(own.Volumes or {})} or None
        if not own.StopSignal and image.StopSignal:
            changes["StopSignal"] = image.StopSignal
        if not own.Shell and image.Shell:
            changes["Shell"] = image.Shell
        changes["OnBuild"] = own.OnBuild if own.OnBuild is not None else image.OnBuild
    if directory := own.WorkingDir or (image.WorkingDir if image is not None else ""):
        changes["WorkingDir"] = _clean(directory)
    if entrypoint == [""]:
        entrypoint = None
    if not entrypoint and not cmd:
        raise InvalidArgument("no command specified")
    changes.update(Entrypoint=entrypoint, Cmd=cmd, ArgsEscaped=args_escaped)
    if changes.get("Labels", own.Labels) is None:
        changes["Labels"] = {}
    return msgspec.structs.replace(own, **changes)


def _union(own: dict[str, Empty] | UnsetType, image: dict[str, Empty] | UnsetType) -> dict[str, Empty] | UnsetType:
    return {**(image or {}), **(own or {})} or UNSET


def merge_env(own: Sequence[str], image: Sequence[str]) -> list[str]:
    """The container's variables, then those of the image it does not name."""
    named = {entry.partition("=")[0] for entry in own}
    return [*own, *(entry for entry in image if entry.partition("=")[0] not in named)]


def merge_health(own: HealthConfig | UnsetType, image: HealthConfig | UnsetType) -> HealthConfig | UnsetType:
    """Field by field: what the container leaves open the image decides."""
    if image is UNSET:
        return own
    if own is UNSET:
        return image
    assert isinstance(own, HealthConfig)
    assert isinstance(image, HealthConfig)
    return HealthConfig(**{name: getattr(own, name) or getattr(image, name) for name in HealthConfig.__struct_fields__})


def argv_of(config: ContainerConfig) -> list[str]:
    """Entrypoint, then command."""
    return [*(as_list(config.Entrypoint) or ()), *(as_list(config.Cmd) or ())]


def environment(config: ContainerConfig, *, hostname: str, links: Sequence[str] = ()) -> list[str]:
    """The process's environment: defaults, then links, then what was asked; a bare `NAME` unsets."""
    values: dict[str, str] = {}
    defaults = [DEFAULT_PATH, f"HOSTNAME={hostname}", *(["TERM=xterm"] if config.Tty else []), *links]
    for entry in [*defaults, *(config.Env or ())]:
        name, equals, value = entry.partition("=")
        if equals:
            values[name] = value
        else:
            values.pop(name, None)
    return [f"{name}={value}" for name, value in values.items()]
