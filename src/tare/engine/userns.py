"""Containers whose ids are not the host's: namespaces made before a start, files and streams given to their root.

On disk nothing is shifted: images, snapshots and volumes hold the container's ids, and are seen through mounts that map
them. See docs/adr/0008-userns.md.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tare.base.errors import Conflict, InternalError, InvalidArgument
from tare.containers import checks, spec
from tare.containers.container import Container
from tare.drivers import userns
from tare.drivers.snapshots import Ids
from tare.drivers.userns import Mapping, UserNamespace
from tare.engine.engine import Engine, directory_of
from tare.wire.config import HostConfig

_OPEN_TO_GROUP = 0o710


def mapping_of(engine: Engine, host: HostConfig) -> Mapping | None:
    """How the ids of a container are mapped; None: they are the host's."""
    return None if host.UsernsMode == "host" else engine.settings.id_mapping


def check(engine: Engine, host: HostConfig) -> None:
    """Refuse what a container with mapped ids cannot have, in dockerd's words. Raises InvalidArgument."""
    if mapping_of(engine, host) is None:
        return
    if host.Privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace "
            "when running privileged mode"
        )
    if host.NetworkMode == "host":
        raise InvalidArgument("cannot share the host's network namespace when user namespaces are enabled")
    if host.PidMode == "host":
        raise InvalidArgument("cannot share the host PID namespace when user namespaces are enabled")


@asynccontextmanager
async def provided(engine: Engine, container: Container) -> AsyncIterator[UserNamespace | None]:
    """The namespaces of a container that starts, held for the time of a block; None where its ids are the host's.

    Raises Conflict, InvalidArgument when it shall join a container that has other ids.
    """
    mapping = mapping_of(engine, container.host_config)
    joined = _joined(engine, container.host_config)
    if mapping is None:
        for pid in joined:
            if (fd := userns.of_process(pid)) is not None:
                os.close(fd)
                raise InvalidArgument("cannot join a container in a user namespace with --userns=host")
        yield None
        return
    space = _of_joined(joined[0], mapping) if joined else await userns.make(mapping)
    try:
        yield space
    finally:
        space.close()


def _joined(engine: Engine, host: HostConfig) -> list[int]:
    """The first processes of the containers whose namespaces it joins."""
    found = []
    for kind, mode in (("network", host.NetworkMode), ("PID", host.PidMode), ("IPC", host.IpcMode)):
        if (name := checks.joined_container(mode)) is None:
            continue
        other = engine.containers.find(name).container
        if not other.is_running or other.process is None:
            if kind == "network":
                raise Conflict(f"cannot join network of a non running container: {other.id}")
            raise InternalError(f"failed to join {kind} namespace: container {other.id} is not running")
        found.append(other.process.pid)
    return found


def _of_joined(pid: int, mapping: Mapping) -> UserNamespace:
    """Whoever shares a namespace with a container must be in its user namespace too."""
    fd = userns.of_process(pid)
    wanted = userns.map_text(mapping.uids).split()
    if fd is None or Path(f"/proc/{pid}/uid_map").read_text().split() != wanted:
        if fd is not None:
            os.close(fd)
        raise InvalidArgument("cannot join a container whose ids are mapped differently")
    try:
        net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        os.close(fd)
        raise Conflict("cannot join a namespace of a non running container") from None
    return UserNamespace(fd, net)


def ids_of(space: UserNamespace, mapping: Mapping) -> Ids:
    """For the mounts."""
    return Ids(space.user_fd, *mapping.root)


def spec_of(space: UserNamespace, mapping: Mapping) -> spec.UserNamespace:
    """For the specification."""
    return spec.UserNamespace(
        path=space.path,
        uids=tuple((found.first, found.size) for found in mapping.uids),
        gids=tuple((found.first, found.size) for found in mapping.gids),
    )


def let_in(engine: Engine, container: Container, mapping: Mapping) -> None:
    """Its root may pass through the directories that lead to its own files, and see the files that are made for it."""
    group = mapping.root[1]
    exec_root = engine.settings.exec_root
    for path in (
        exec_root / "containers",
        engine.monitor.bundle(container.id),
        exec_root / "mounts",
        exec_root / "mounts" / container.id,
        directory_of(engine, container.id).parent,
        directory_of(engine, container.id),
        engine.settings.data_root / "volumes",
    ):
        if path.is_dir():
            os.chown(path, 0, group)
            os.chmod(path, _OPEN_TO_GROUP)
    for name in ("hosts", "hostname", "resolv.conf"):
        path = directory_of(engine, container.id) / name
        if path.exists():
            os.chown(path, *mapping.root)


def give_streams(pid: int, user: spec.User, mapping: Mapping) -> None:
    """The pipes of a process that has not begun yet become its user's: it may open /dev/stdout as it may write there."""
    owner = (outside(mapping.uids, user.uid), outside(mapping.gids, user.gid))
    for number in range(3):
        path = f"/proc/{pid}/fd/{number}"
        try:
            if os.readlink(path).startswith("pipe:"):
                os.chown(path, *owner)
        except OSError:
            continue


def outside(ranges: tuple[userns.Range, ...], inside: int) -> int:
    """The host's number for a container's. Raises InvalidArgument when nothing is mapped to it."""
    rest = inside
    for found in ranges:
        if rest < found.size:
            return found.first + rest
        rest -= found.size
    raise InvalidArgument(f"the id {inside} is not mapped: the user namespace has {sum(r.size for r in ranges)} ids")
