"""The file tree of a container as its processes see it, for reading and writing from outside.

Of a running container it is the root of its first process. Of a stopped one it is its snapshot with its binds, mounted
in a mount namespace of its own that only our descriptor keeps alive: nothing of it shows on the host, and it is gone
with the descriptor or the daemon. Paths are resolved in the root by openat2 once, to a descriptor; a container that
swaps links meanwhile changes what is found inside, never leads out.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound, TareError
from tare.drivers import linux, rootfs, userns

_KERNEL_FILE_SYSTEMS = frozenset(
    {
        "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "debugfs", "tracefs", "securityfs", "bpf", "configfs",
        "efivarfs", "pstore", "binfmt_misc", "autofs", "hugetlbfs", "rpc_pipefs", "nsfs",
    }
)  # fmt: skip
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class Bind(Struct, frozen=True, kw_only=True):
    """A bind mount of a stopped container's view. A source that does not exist is left out."""

    source: str
    destination: str
    is_writable: bool = True


class View(Struct, frozen=True):
    """An open root. `hidden`: device numbers of file systems that show the kernel, not files."""

    root: int
    hidden: frozenset[int] = frozenset()
    namespace: int | None = None
    user_fd: int | None = None  # the user namespace by whose ids its files have owners, where that is not ours

    def close(self) -> None:
        """Let go; the mounts of a stopped container's view vanish."""
        os.close(self.root)
        for fd in (self.namespace, self.user_fd):
            if fd is not None:
                os.close(fd)


class Found(Struct, frozen=True, kw_only=True):
    """What a path names. `name` is its last part as asked ("." and "/" included); the caller closes `directory`.

    member None: `directory` is the thing itself; else the thing is that member of it. link_target: where a link leads,
    absolute in the container; "" for other things.
    """

    directory: int
    member: str | None
    name: str
    status: os.stat_result
    link_target: str = ""


def view_running(pid: int, root_path_fd: int) -> View:
    """The view of a running container. root_path_fd: its root, which stays the caller's."""
    try:
        mounts = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape")
        root = os.open(".", _DIRECTORY | os.O_CLOEXEC, dir_fd=root_path_fd)
    except OSError as error:
        raise NotFound(f"the container's root is gone: {error.strerror}") from None
    return View(root, kernel_devices(mounts), user_fd=userns.of_process(pid))


def kernel_devices(mountinfo: str) -> frozenset[int]:
    """Device numbers of the mounted file systems that hold no files of anyone's. Source: proc(5), mountinfo."""
    found = set()
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        if tail.partition(" ")[0] in _KERNEL_FILE_SYSTEMS:
            major, _, minor = head.split()[2].partition(":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


def view_stopped(mount: Callable[[Path], None], directory: Path, binds: Sequence[Bind]) -> View:
    """The view of a stopped container. mount: puts its root at a directory; binds: parents before children.

    Blocks for some milliseconds: use a thread. Raises what `mount` raises.
    """
    result: list[View] = []
    failure: list[BaseException] = []

    def work() -> None:  # a thread of its own: its namespace goes with it
        try:
            result.append(_build(mount, directory, binds))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="tare-view")
    thread.start()
    thread.join()
    if not failure:
        return result[0]
    error = failure[0]
    if isinstance(error, OSError):
        raise InternalError(f"cannot mount the container's file system: {error.strerror}") from error
    raise error


def borrow(pid: int, path: str, place: Path) -> None:
    """Mount what the process `pid` sees at `path` at `place` of ours too. Raises Conflict when the process is gone.

    The kernel binds nothing across mount namespaces: a clone is taken there and attached here.
    """
    result: list[int] = []
    failure: list[OSError] = []

    def work() -> None:  # a thread of its own: it stays there
        try:
            linux.unshare(linux.CLONE_FS)
            namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                linux.setns(namespace, linux.CLONE_NEWNS)
            finally:
                os.close(namespace)
            result.append(linux.open_tree(-1, path, recursive=False))
        except OSError as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="tare-borrow")
    thread.start()
    thread.join()
    if failure:
        raise Conflict(f"cannot share {path} of process {pid}: {failure[0].strerror}") from failure[0]
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        linux.move_mount(result[0], str(place))
    except OSError as error:
        raise InternalError(f"cannot mount {place}: {error.strerror}") from error
    finally:
        os.close(result[0])


def _build(mount: Callable[[Path], None], directory: Path, binds: Sequence[Bind]) -> View:
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mount(directory)
    root = os.open(directory, _DIRECTORY | os.O_CLOEXEC)
    try:
        for bind in binds:
            _bind(root, bind)
        return View(root, namespace=os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
    except BaseException:
        os.close(root)
        raise


def _bind(root: int, bind: Bind) -> None:
    try:
        is_directory = stat.S_ISDIR(os.stat(bind.source).st_mode)
    except OSError:
        return
    if is_directory:
        rootfs.ensure_directory(root, bind.destination)
    else:
        _ensure_file(root, bind.destination)
    target = linux.open_in_root(root, bind.destination, os.O_PATH)
    try:
        linux.mount(bind.source, f"/proc/self/fd/{target}", None, linux.MS_BIND | linux.MS_REC)
    finally:
        os.close(target)
    if not bind.is_writable:
        mounted = linux.open_in_root(root, bind.destination, os.O_PATH)
        try:
            flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY
            linux.mount("none", f"/proc/self/fd/{mounted}", None, flags)
        finally:
            os.close(mounted)


def _ensure_file(root: int, path: str) -> None:
    rootfs.ensure_directory(root, posixpath.dirname(path))
    try:
        os.close(linux.open_in_root(root, path, os.O_PATH))
    except FileNotFoundError:
        os.close(linux.open_in_root(root, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o644))


# --- paths


def clean(path: str) -> tuple[str, bool]:
    """A client's path made absolute, and whether it insists on a directory (`/` or `/.` at its end)."""
    absolute = "/" + posixpath.normpath("/" + path).lstrip("/")
    return absolute, path.endswith(("/", "/.")) or path in (".", "")


def shown_name(path: str) -> str:
    """The last part as asked: `/etc/` is etc, `/etc/.` and `/etc/./` are ".", `/` is "/"."""
    if posixpath.basename(path.rstrip("/")) == ".":
        return "."
    return posixpath.basename(clean(path)[0]) or "/"


def find(view: View, path: str) -> Found:
    """What `path` names; a link at the end is not followed unless the path insists on a directory.

    Raises NotFound (with the path as text), InvalidArgument when a directory is insisted on and it is none.
    """
    absolute, insists = clean(path)
    parent, base = posixpath.split(absolute)
    name = shown_name(path)
    try:
        if insists or not base:
            return _directory(view, linux.open_in_root(view.root, absolute, _DIRECTORY), name)
        directory = linux.open_in_root(view.root, parent, _DIRECTORY)
        try:
            status = os.stat(base, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                inner = linux.openat2(
                    directory,
                    base,
                    _DIRECTORY | os.O_NOFOLLOW,
                    resolve=linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_SYMLINKS,
                )
                os.close(directory)
                directory = -1
                return _directory(view, inner, name)
            if status.st_dev in view.hidden:
                raise NotFound(path)
            target = _link_target(view.root, absolute) if stat.S_ISLNK(status.st_mode) else ""
            found = Found(directory=directory, member=base, name=name, status=status, link_target=target)
            directory = -1
            return found
        finally:
            if directory >= 0:
                os.close(directory)
    except OSError as error:
        raise _path_error(path, error) from None


def _directory(view: View, fd: int, name: str) -> Found:
    status = os.fstat(fd)
    if status.st_dev in view.hidden:
        os.close(fd)
        raise NotFound(name)
    return Found(directory=fd, member=None, name=name, status=status)


def _path_error(path: str, error: OSError) -> TareError:
    if error.errno == errno.ENOTDIR:
        return InvalidArgument(f"{path}: not a directory")
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.EXDEV):
        return NotFound(path)
    return InvalidArgument(f"{path}: {(error.strerror or '').lower()}")


def open_target(view: View, path: str) -> int:
    """The directory that an archive is to be extracted in, links followed inside the container; the caller closes it.

    Raises NotFound (with the path as text), InvalidArgument when it is no directory.
    """
    try:
        fd = linux.open_in_root(view.root, clean(path)[0], _DIRECTORY)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise InvalidArgument("extraction point is not a directory") from None
        raise _path_error(path, error) from None
    if os.fstat(fd).st_dev in view.hidden:
        os.close(fd)
        raise NotFound(path)
    return fd


def _link_target(root: int, absolute: str) -> str:
    """Where a link leads: all the way where that exists, else one step, made absolute."""
    try:
        fd = linux.open_in_root(root, absolute, os.O_PATH)
    except OSError:
        directory = linux.open_in_root(root, posixpath.dirname(absolute), os.O_PATH | os.O_DIRECTORY)
        try:
            text = os.readlink(posixpath.basename(absolute), dir_fd=directory)
        finally:
            os.close(directory)
        return clean(posixpath.join(posixpath.dirname(absolute), text))[0]
    try:
        top, full = os.readlink(f"/proc/self/fd/{root}"), os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return "/" + full.removeprefix(top.rstrip("/")).lstrip("/")


def is_readonly(fd: int) -> bool:
    """Whether the mount that a descriptor lies on refuses writing."""
    return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)
