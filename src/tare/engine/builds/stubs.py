"""What a RUN step's mounts were put on: made in its file system where nothing was, and no part of its result."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tare.drivers import linux


def missing(root: Path, targets: Iterable[str]) -> list[str]:
    """The paths that the runtime will have to make in `root` for these targets, relative to it, deepest first.

    Links are followed as a process in `root` would.
    """
    found: list[str] = []
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        top = os.readlink(f"/proc/self/fd/{root_fd}")
        for target in targets:
            found += [path for path in _missing(root_fd, top, PurePosixPath(target)) if path not in found]
    finally:
        os.close(root_fd)
    return sorted(found, key=lambda path: -path.count("/"))


def _missing(root_fd: int, top: str, target: PurePosixPath) -> list[str]:
    rest: list[str] = []
    for place in (target, *target.parents):
        try:
            fd = linux.open_in_root(root_fd, str(place), os.O_PATH)
        except OSError:
            rest.insert(0, place.name)
            continue
        try:
            real = PurePosixPath(os.readlink(f"/proc/self/fd/{fd}")).relative_to(top)
        finally:
            os.close(fd)
        return [str(real.joinpath(*rest[: count + 1])) for count in range(len(rest))]
    return []


def remove(upper: Path, paths: Iterable[str]) -> None:
    """Take away those that are still empty in what a step has written; the times of their parents stay."""
    upper_fd = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in paths:
            parent, name = os.path.split(path)
            try:
                parent_fd = linux.open_in_root(upper_fd, parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue  # the step has removed it, or put something else there
            try:
                _remove(parent_fd, name)
            finally:
                os.close(parent_fd)
    finally:
        os.close(upper_fd)


def _remove(parent_fd: int, name: str) -> None:
    try:
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    before = os.fstat(parent_fd)
    if stat.S_ISDIR(found.st_mode):
        try:
            os.rmdir(name, dir_fd=parent_fd)
        except OSError:
            return  # the step has put something in it
    elif stat.S_ISREG(found.st_mode) and not found.st_size:
        os.unlink(name, dir_fd=parent_fd)
    else:
        return
    os.utime(parent_fd, ns=(before.st_atime_ns, before.st_mtime_ns))
