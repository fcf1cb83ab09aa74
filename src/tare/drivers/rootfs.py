"""Looking into a container's root file system: users, working directory, the program to be executed.

Whatever the image put there is looked at as a process chrooted into it would, by descriptor, and never followed out.
Only regular files of at most 10 MiB are read; nothing found here is executed by the engine.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence

from msgspec import Struct

from tare.base.errors import InvalidArgument
from tare.drivers import linux

MAX_FILE_BYTES = 10 * 1024 * 1024
MAX_ID = 2147483647
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RANGE = f"uids and gids must be in range 0-{MAX_ID}"

NOT_FOUND = 127
NOT_EXECUTABLE = 126


class ResolvedUser(Struct, frozen=True, kw_only=True):
    """A user string made numbers. `additional_gids` begins with the primary group; `home` is "" if unknown."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...]
    home: str = ""
    name: str = ""


class CannotExecute(InvalidArgument):
    """The program of a container cannot be started; `exit_code` is what its exit status shall read (126 or 127)."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def open_root(path: str | os.PathLike[str]) -> int:
    """A descriptor of a root directory for the functions below; the caller closes it."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


# --- users


class _Account(Struct, frozen=True):
    name: str
    uid: int
    gid: int
    home: str


class _Group(Struct, frozen=True):
    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(root_fd: int, user: str, group_add: Sequence[str] = ()) -> ResolvedUser:
    """Numbers for `name`, `uid`, `uid:gid`, `name:group` or "" (root), by the passwd and group files in the root.

    Digits are a number and never looked up as a name. Without an explicit group the supplementary groups are those
    that list the user. Raises InvalidArgument with Docker's texts.
    """
    who, colon, which = user.partition(":")
    accounts = list(_accounts(_read(root_fd, "/etc/passwd")))
    groups = list(_groups(_read(root_fd, "/etc/group")))
    number = _number(who) if who else 0
    account = next((a for a in accounts if (a.uid == number if number is not None else a.name == who)), None)
    if account is None and number is None:
        raise InvalidArgument(f"unable to find user {who}: no matching entries in passwd file")
    if account is None:
        assert number is not None
        account = _Account(name="", uid=number, gid=0, home="/")
    gid, listed = account.gid, [g.gid for g in groups if account.name and account.name in g.members]
    if colon and which:
        gid, listed = _group_id(groups, which, word="unable"), []
    added = [_group_id(groups, name, word="Unable") for name in group_add]
    return ResolvedUser(
        uid=account.uid,
        gid=gid,
        additional_gids=tuple(dict.fromkeys([gid, *listed, *added])),
        home=account.home,
        name=account.name,
    )


def _group_id(groups: Sequence[_Group], text: str, *, word: str) -> int:
    number = _number(text)
    if number is not None:
        return number
    for group in groups:
        if group.name == text:
            return group.gid
    raise InvalidArgument(f"{word} to find group {text}: no matching entries in group file")


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal()):
        return None
    # Twenty digits are past any id; int() of a text without bound is not.
    if len(text) > 20 or int(text) > MAX_ID:
        raise InvalidArgument(_RANGE)
    return int(text)


def _accounts(text: str) -> Iterator[_Account]:
    for fields in _fields(text, least=6):
        if _is_id(fields[2]) and _is_id(fields[3]):
            yield _Account(name=fields[0], uid=int(fields[2]), gid=int(fields[3]), home=fields[5])


def _groups(text: str) -> Iterator[_Group]:
    for fields in _fields(text, least=4):
        if _is_id(fields[2]):
            yield _Group(name=fields[0], gid=int(fields[2]), members=tuple(m for m in fields[3].split(",") if m))


def _fields(text: str, *, least: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) >= least and not line.startswith("#"):
            yield fields


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MAX_ID


def _read(root_fd: int, path: str) -> str:
    """A small regular file in the root; "" when it is not there. O_NONBLOCK: a fifo must not hold us."""
    try:
        fd = linux.open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return ""
        raise InvalidArgument(f"cannot read {path} of the container: {(error.strerror or '').lower()}") from None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgument(f"cannot read {path} of the container: not a regular file")
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise InvalidArgument(f"cannot read {path} of the container: larger than {MAX_FILE_BYTES} bytes")
    return data.decode(errors="surrogateescape")


# --- working directory


def ensure_directory(root_fd: int, path: str) -> None:
    """Make `path` exist as a directory inside the root: missing parts get mode 0755 and owner root.

    path: absolute. Raises InvalidArgument (`Cannot mkdir: X is not a directory`) and for anything below /proc.
    """
    if not path.startswith("/"):
        raise InvalidArgument(f"the working directory '{path}' is invalid, it needs to be an absolute path")
    clean = "/" + posixpath.normpath(path).lstrip("/")
    if clean == "/proc" or clean.startswith("/proc/"):
        raise InvalidArgument(f"the working directory '{path}' is invalid, it must not be below /proc")
    done = "/"
    for part in clean.split("/")[1:]:
        parent, done = done, posixpath.join(done, part)
        if part:
            _ensure_one(root_fd, parent=parent, name=part, full=done, wanted=clean)


def _ensure_one(root_fd: int, *, parent: str, name: str, full: str, wanted: str) -> None:
    try:
        os.close(linux.open_in_root(root_fd, full, os.O_PATH | os.O_DIRECTORY))
    except FileNotFoundError:
        parent_fd = linux.open_in_root(root_fd, parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.mkdir(name, 0o755, dir_fd=parent_fd)
            fd = linux.openat2(
                parent_fd, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=linux.RESOLVE_BENEATH
            )
            try:
                os.fchmod(fd, 0o755)
                os.fchown(fd, 0, 0)
            finally:
                os.close(fd)
        except FileExistsError:  # a link to nowhere
            raise InvalidArgument(f"Cannot mkdir: {wanted} is not a directory") from None
        finally:
            os.close(parent_fd)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise InvalidArgument(f"Cannot mkdir: {wanted} is not a directory") from None
        raise InvalidArgument(f"Cannot mkdir: {wanted}: {(error.strerror or '').lower()}") from None


# --- the program


def check_executable(
    root_fd: int, program: str, *, path: str = DEFAULT_PATH, cwd: str = "/", mounts: Sequence[str] = ()
) -> None:
    """Raise CannotExecute, as a runtime would say it, if `program` cannot be there.

    path: the PATH of the container's environment. mounts: where the user mounts something; what may lie there is not
    judged but left to the runtime. Permission is judged for root (some execute bit), as the runtime checks again.
    """
    if not program:
        raise CannotExecute('exec: "": executable file not found in $PATH', exit_code=NOT_FOUND)
    if "/" in program:
        candidates = [posixpath.join(cwd, program)]
    else:
        candidates = [posixpath.join(posixpath.join(cwd, entry or "."), program) for entry in path.split(":")]
    refused = False
    for candidate in candidates:
        if _is_hidden(root_fd, candidate, mounts):
            return
        try:
            fd = linux.open_in_root(root_fd, candidate, os.O_PATH)
        except OSError as error:
            refused = refused or error.errno == errno.EACCES
            continue
        try:
            mode = os.fstat(fd).st_mode
        finally:
            os.close(fd)
        if stat.S_ISREG(mode) and mode & 0o111:
            return
        if "/" in program:
            why = "is a directory" if stat.S_ISDIR(mode) else "permission denied"
            raise CannotExecute(f'exec: "{program}": {why}', exit_code=NOT_EXECUTABLE)
        refused = refused or stat.S_ISREG(mode)
    if refused:
        raise CannotExecute(f'exec: "{program}": permission denied', exit_code=NOT_EXECUTABLE)
    if "/" in program:
        raise CannotExecute(f'exec: "{program}": stat {program}: no such file or directory', exit_code=NOT_FOUND)
    raise CannotExecute(f'exec: "{program}": executable file not found in $PATH', exit_code=NOT_FOUND)


def _is_hidden(root_fd: int, candidate: str, mounts: Sequence[str]) -> bool:
    """Whether a mount may decide what `candidate` is: it lies below one, or a link on its way may lead there."""
    if not mounts:
        return False
    clean = posixpath.normpath(candidate)
    if any(mount == "/" or clean == mount or clean.startswith(mount.rstrip("/") + "/") for mount in mounts):
        return True
    done = ""
    for part in clean.strip("/").split("/"):
        done = f"{done}/{part}"
        try:
            fd = linux.openat2(
                root_fd, done, os.O_PATH | os.O_NOFOLLOW, resolve=linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
            )
        except OSError:
            return False
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode) and _leads_into(root_fd, fd, done, mounts):
                return True
        finally:
            os.close(fd)
    return False


def _leads_into(root_fd: int, link_fd: int, place: str, mounts: Sequence[str]) -> bool:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(place), os.readlink("", dir_fd=link_fd)))
    target = "/" + target.lstrip("/")
    if any(target == mount or target.startswith(mount.rstrip("/") + "/") for mount in mounts):
        return True
    try:  # a link to a link: leave that to the runtime
        fd = linux.openat2(root_fd, target, os.O_PATH | os.O_NOFOLLOW, resolve=linux.RESOLVE_IN_ROOT)
    except OSError:
        return False
    try:
        return stat.S_ISLNK(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
