"""Device nodes of the host: what `--device` and `--privileged` hand into a container."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from msgspec import Struct

from tare.base.errors import InvalidArgument

_SKIPPED = frozenset({"console", "fd", "full", "lxc", "lxd-monitor", "mqueue", "null", "ptmx", "pts", "random", "shm"})
_SKIPPED_TOO = frozenset({"stderr", "stdin", "stdout", "tty", "urandom", "zero", ".udev", "core"})


class HostDevice(Struct, frozen=True, kw_only=True):
    """A node as the host has it. kind: c, b or p."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


_NO_BLOCK_DEVICE = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "error setting cgroup config for procHooks process: "
)


def expand(path_on_host: str, path_in_container: str) -> list[tuple[str, HostDevice]]:
    """The nodes meant by one `--device`: one node, or all below a directory, with their paths in the container.

    Links are followed. Raises InvalidArgument with Docker's text when there is nothing.
    """
    target = path_in_container or path_on_host
    real = os.path.realpath(path_on_host)
    try:
        if not stat.S_ISDIR(os.stat(real).st_mode):
            return [(target, _node(real))]
    except OSError as error:
        raise _refusal(path_on_host, (error.strerror or "").lower()) from None
    found: list[tuple[str, HostDevice]] = []
    for directory, _, names in os.walk(real):
        for name in sorted(names):
            full = os.path.join(directory, name)
            if _is_node(full):
                found.append((os.path.join(target, os.path.relpath(full, real)), _node(full)))
    if not found:
        raise _refusal(path_on_host, "not a device node")
    return found


def everything() -> list[HostDevice]:
    """Every node below /dev but those a container has of its own: what a privileged container sees."""
    found: list[HostDevice] = []
    for directory, inner, names in os.walk("/dev"):
        inner[:] = [name for name in inner if name not in _SKIPPED | _SKIPPED_TOO]
        for name in sorted(names):
            full = os.path.join(directory, name)
            if name not in _SKIPPED | _SKIPPED_TOO and _is_node(full):
                found.append(_node(full))
    return found


def block_number(path: str) -> tuple[int, int]:
    """(major, minor) of a block device. Raises InvalidArgument; of another one in the words dockerd has from runc, which
    Ansible's tests look for."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise InvalidArgument(f"no such block device: {path}: {(error.strerror or '').lower()}") from None
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidArgument(f"{_NO_BLOCK_DEVICE}{path} is not a block device: no such device")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _is_node(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _node(path: str) -> HostDevice:
    status = os.lstat(path)
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        raise _refusal(path, "not a device node")
    return HostDevice(
        path=path,
        kind=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )


def _refusal(path: str, why: str) -> InvalidArgument:
    return InvalidArgument(f'error gathering device information while adding custom device "{path}": {why}')
