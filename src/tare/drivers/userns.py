"""User namespaces: which ids of the host a container's ids are, and namespaces that map them.

`--userns-remap` names a user (and group); the ranges that /etc/subuid and /etc/subgid give them become the container's
ids from 0 on. A namespace is made by a child that lives only until we hold descriptors of it, together with a network
namespace that belongs to it, so that the container's root may rule that.
Source: user_namespaces(7), subuid(5), dockerd's manual, "Daemon user namespace options".
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from tare.aio import proc
from tare.base.errors import InternalError, InvalidArgument, Unavailable

DEFAULT_USER = "dockremap"
SUBUID, SUBGID = Path("/etc/subuid"), Path("/etc/subgid")
_MADE_SIZE = 65536
_FIRST = 100000
_EXPLICIT = "ids="  # beyond Docker
_PATIENCE_S = 10.0


class Range(Struct, frozen=True):
    """Ids that follow each other: the first on the host, and how many."""

    first: int
    size: int


class Mapping(Struct, frozen=True):
    """The container's ids from 0 on, range after range. name: the user whose ranges these are."""

    name: str
    uids: tuple[Range, ...]
    gids: tuple[Range, ...]

    @property
    def root(self) -> tuple[int, int]:
        """User and group on the host that the container's root is."""
        return self.uids[0].first, self.gids[0].first

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """What a container's user and group are on the host. Raises InvalidArgument for ids it does not have."""
        return _outside(self.uids, uid), _outside(self.gids, gid)


class UserNamespace(Struct, frozen=True):
    """Descriptors of a user namespace and of a bare network namespace that it owns; `close` it."""

    user_fd: int
    net_fd: int

    @property
    def path(self) -> str:
        """A path that works as long as it is open."""
        return f"/proc/{os.getpid()}/fd/{self.user_fd}"

    def close(self) -> None:
        """Let go; processes in them keep them alive."""
        os.close(self.user_fd)
        os.close(self.net_fd)


def _outside(ranges: Sequence[Range], number: int) -> int:
    left = number
    for found in ranges:
        if left < found.size:
            return found.first + left
        left -= found.size
    raise InvalidArgument(f"id {number} is not among those that containers have here")


def map_text(ranges: Sequence[Range]) -> str:
    """What is written to /proc/PID/uid_map."""
    lines, inside = [], 0
    for found in ranges:
        lines.append(f"{inside} {found.first} {found.size}\n")
        inside += found.size
    return "".join(lines)


def parse_ranges(text: str, names: Sequence[str]) -> tuple[Range, ...]:
    """The ranges that /etc/subuid's text gives to any of `names` (a name, a number)."""
    out: list[Range] = []
    for line in text.splitlines():
        fields = line.split("#")[0].strip().split(":")
        if len(fields) == 3 and fields[0] in names and fields[1].isdecimal() and fields[2].isdecimal():
            out.append(Range(int(fields[1]), int(fields[2])))
    return tuple(found for found in out if found.size > 0)


def split_option(option: str) -> tuple[str, str]:
    """`user[:group]` in its two parts; the group is the user's name where none is given. Raises InvalidArgument."""
    user, colon, group = option.partition(":")
    if not user or (colon and not group) or ":" in group:
        raise InvalidArgument(
            f"invalid --userns-remap {option!r}", hint="write default, USER, USER:GROUP, UID or UID:GID"
        )
    return user, group


def resolve(
    option: str, *, subuid: Path = SUBUID, subgid: Path = SUBGID, run: Callable[..., object] = subprocess.run
) -> Mapping:
    """The mapping of `--userns-remap`. `default` makes the user dockremap, and its ranges, where they are missing.

    Raises InvalidArgument for users, groups and ranges that are not there.
    """
    if option.startswith(_EXPLICIT):
        return _explicit(option)
    if option == "default":
        _make_default(subuid, subgid, run=run)
    user, group = split_option(DEFAULT_USER if option == "default" else option)
    user_name, user_id = _user(user)
    group_name, group_id = _group(group) if group else (user_name, None)
    uids = parse_ranges(_text(subuid), [user_name, str(user_id)])
    gids = parse_ranges(_text(subgid), [group_name, *([str(group_id)] if group_id is not None else [])])
    for found, place, whose in ((uids, subuid, user_name), (gids, subgid, group_name)):
        if not found:
            raise InvalidArgument(
                f"Can't create ID mappings: no subordinate ids of {whose} in {place}",
                hint=f"add a line such as {whose}:{_FIRST}:{_MADE_SIZE}",
            )
    return Mapping(user_name, uids, gids)


def _explicit(option: str) -> Mapping:
    """`ids=FIRST:COUNT`, which no file needs to know of."""
    first, _, size = option.removeprefix(_EXPLICIT).partition(":")
    if not (first.isdecimal() and size.isdecimal() and int(first) > 0 and 0 < int(size) < 2**31 > int(first)):
        raise InvalidArgument(f"invalid --userns-remap {option!r}", hint="write ids=FIRST:COUNT, as ids=100000:65536")
    found = (Range(int(first), int(size)),)
    return Mapping(f"{first}:{size}", found, found)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _user(text: str) -> tuple[str, int]:
    try:
        entry = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        raise InvalidArgument(f"Invalid username in userns-remap: no user {text}") from None
    return entry.pw_name, entry.pw_uid


def _group(text: str) -> tuple[str, int]:
    try:
        entry = grp.getgrgid(int(text)) if text.isdecimal() else grp.getgrnam(text)
    except (KeyError, OverflowError):
        raise InvalidArgument(f"Invalid groupname in userns-remap: no group {text}") from None
    return entry.gr_name, entry.gr_gid


def _make_default(subuid: Path, subgid: Path, *, run: Callable[..., object]) -> None:
    try:
        pwd.getpwnam(DEFAULT_USER)
    except KeyError:
        argv = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", DEFAULT_USER]
        try:
            run(argv, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"cannot make the user {DEFAULT_USER}: {error}", hint="make it by hand") from None
    for place in (subuid, subgid):
        text = _text(place)
        if not parse_ranges(text, [DEFAULT_USER]):
            line = f"{DEFAULT_USER}:{next_free(text)}:{_MADE_SIZE}\n"
            with place.open("a") as file:
                file.write(line if not text or text.endswith("\n") else f"\n{line}")


def next_free(text: str) -> int:
    """The first id behind every range that /etc/subuid's text gives to anybody."""
    ends = [_FIRST]
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) == 3 and fields[1].isdecimal() and fields[2].strip().isdecimal():
            ends.append(int(fields[1]) + int(fields[2]))
    return max(ends)


async def make(mapping: Mapping) -> UserNamespace:
    """A new pair of namespaces, in about three milliseconds. Raises InternalError."""
    unshare = shutil.which("unshare") or "/usr/bin/unshare"
    here_in, there_in = os.pipe2(os.O_CLOEXEC)
    there_out, here_out = os.pipe2(os.O_CLOEXEC)
    with contextlib.ExitStack() as stack:
        for fd in (here_in, here_out):
            stack.callback(os.close, fd)
        try:
            child = proc.start([unshare, "--user", "--net", "--", "cat"], stdin=there_out, stdout=there_in)
        finally:
            os.close(there_in)
            os.close(there_out)
        try:
            # What comes back has been through a program that runs inside: the namespaces are there.
            os.write(here_out, b"x")
            await asyncio.wait_for(proc.readable(here_in), _PATIENCE_S)
            if os.read(here_in, 1) != b"x":
                raise InternalError("cannot make a user namespace", hint="see /proc/sys/user/max_user_namespaces")
            for name, ranges in (("uid_map", mapping.uids), ("gid_map", mapping.gids)):
                Path(f"/proc/{child.pid}/{name}").write_text(map_text(ranges))
            user_fd = os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            try:
                net_fd = os.open(f"/proc/{child.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                os.close(user_fd)
                raise
        except (OSError, TimeoutError) as error:
            raise InternalError(f"cannot make a user namespace: {error}") from None
        finally:
            child.kill()
            await proc.wait(child)
    return UserNamespace(user_fd, net_fd)


def of_process(pid: int) -> int | None:
    """A descriptor of a process's user namespace; None when that is ours, or the process is gone."""
    try:
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    if os.fstat(fd).st_ino != os.stat("/proc/self/ns/user").st_ino:
        return fd
    os.close(fd)
    return None


def blocked_at(path: Path, mapping: Mapping) -> Path | None:
    """The first directory on the way to `path` that the container's root may not pass through; None: it gets there."""
    uid, gid = mapping.root
    for directory in reversed(path.parents):
        found = os.stat(directory)
        bit = 0o100 if found.st_uid == uid else 0o010 if found.st_gid == gid else 0o001
        if not found.st_mode & bit:
            return directory
    return None
