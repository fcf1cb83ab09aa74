"""What an edit makes of a container's configuration (pure). Its file system stays; Docker has nothing like it.

Asked for in moby/moby#2045 and #21282.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET, Struct

from tare.base.errors import InvalidArgument
from tare.containers.container import Container, MountPoint
from tare.containers.merge import argv_of, merge_health
from tare.containers.mounts import from_mount, parse_bind
from tare.wire.config import ContainerConfig, HealthConfig, HostConfig, Mount, UpdateBody


class Edit(Struct, frozen=True, kw_only=True):
    """The new configuration. added: mounts that are not provided yet; kept: those that stay as they are.

    later: what a running container takes up at its next start, in words.
    """

    config: ContainerConfig
    host_config: HostConfig
    added: tuple[MountPoint, ...]
    kept: tuple[MountPoint, ...]
    later: tuple[str, ...]

    def changes(self, container: Container) -> bool:
        """Whether anything is different from before."""
        present = container.mounts if container.next_mounts is None else container.next_mounts
        return bool(self.added) or (self.config, self.host_config, self.kept) != (
            container.config,
            container.host_config,
            present,
        )


def plan(container: Container, wanted: UpdateBody) -> Edit:
    """What the container is after the edit; limits and restart policy aside. Raises InvalidArgument."""
    config, later = container.config, []
    changes: dict[str, object] = {}
    if isinstance(wanted.Labels, dict):
        changes["Labels"] = edit_labels(config.Labels or {}, wanted.Labels)
    if isinstance(wanted.Healthcheck, HealthConfig):
        changes["Healthcheck"] = merge_health(wanted.Healthcheck, config.Healthcheck)
    if isinstance(wanted.Env, list):
        changes["Env"] = edit_env(config.Env or (), wanted.Env)
        later.append("environment")
    for name in ("Cmd", "Entrypoint"):
        value = getattr(wanted, name)
        if value is not UNSET:
            changes[name] = value or None
            later.append("command")
    config = msgspec.structs.replace(config, **changes)
    if not argv_of(config):
        raise InvalidArgument("no command specified")
    added = _added(wanted)
    removed = {posixpath.normpath(place) for place in wanted.RemoveMounts or ()}
    gone = removed | {point.destination for point in added}
    present = container.mounts if container.next_mounts is None else container.next_mounts
    unknown = removed - {point.destination for point in present}
    if unknown:
        raise InvalidArgument(f"no such mount: {', '.join(sorted(unknown))}")
    if gone:
        later.append("mounts")
    return Edit(
        config=config,
        host_config=edit_mounts(container.host_config, wanted, gone),
        added=added,
        kept=tuple(point for point in present if point.destination not in gone),
        later=tuple(dict.fromkeys(later)),
    )


def edit_labels(labels: dict[str, str], wanted: dict[str, str | None]) -> dict[str, str]:
    """Labels with those of `wanted` set, or taken away where the value is None."""
    return {key: value for key, value in {**labels, **wanted}.items() if value is not None}


def edit_env(env: Sequence[str], wanted: Iterable[str]) -> list[str]:
    """Variables in their order, set anew by `NAME=value`, taken away by `NAME`; new ones at the end."""
    found = {entry.partition("=")[0]: entry for entry in env}
    for entry in wanted:
        name, equals, _ = entry.partition("=")
        if not name:
            raise InvalidArgument(f"invalid environment variable: {entry}")
        if equals:
            found[name] = entry
        else:
            found.pop(name, None)
    return list(found.values())


def _added(wanted: UpdateBody) -> tuple[MountPoint, ...]:
    points = [parse_bind(text, driver=wanted.VolumeDriver) for text in wanted.Binds or ()]
    points += [from_mount(mount) for mount in wanted.Mounts or () if isinstance(mount, Mount)]
    for point in points:
        if sum(point.destination == other.destination for other in points) > 1:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
    return tuple(points)


def edit_mounts(host: HostConfig, wanted: UpdateBody, gone: set[str]) -> HostConfig:
    """The HostConfig whose Binds, Mounts and Tmpfs say what is mounted; `gone`: destinations removed or replaced."""
    if not gone:
        return host
    binds = [text for text in host.Binds or () if parse_bind(text).destination not in gone]
    mounts = [
        mount for mount in host.Mounts or () if isinstance(mount, Mount) and from_mount(mount).destination not in gone
    ]
    tmpfs = {place: words for place, words in (host.Tmpfs or {}).items() if posixpath.normpath(place) not in gone}
    return msgspec.structs.replace(
        host,
        Binds=[*binds, *(wanted.Binds or ())] or None,
        Mounts=[*mounts, *(wanted.Mounts or ())] or UNSET,
        Tmpfs=tmpfs or UNSET,
    )
