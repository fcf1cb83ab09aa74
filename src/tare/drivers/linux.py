"""System calls Python has no name for, each a thin function that raises OSError.

x86_64 and aarch64 share the numbers used here (all are newer than the unification of the tables).
Source: openat2(2), fsopen(2) and its family (Linux 5.2, `lowerdir+` 6.5), setns(2).
"""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_CLOSE_RANGE = 436
SYS_QUOTACTL_FD = 443
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1

MOUNT_ATTR_IDMAP = 0x00100000
_CAPABILITY_VERSION_3 = 0x20080522

CLONE_FS = 0x00000200
CLONE_NEWUSER = 0x10000000
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000

_OPENAT2_TRIES = 64


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _syscall(number: int, *args: object, path: str | None = None) -> int:
    result = int(_libc.syscall(number, *args))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result


def openat2(dirfd: int, path: str | bytes, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open `path` below `dirfd` under the RESOLVE_* rules; the descriptor is close-on-exec.

    Retries EAGAIN (a rename elsewhere raced the walk) a bounded number of times. A NUL in the path is EINVAL: the kernel
    would take what stands before it for the whole.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fsdecode(raw))
    for attempt in range(_OPENAT2_TRIES):
        try:
            return _syscall(
                SYS_OPENAT2,
                ctypes.c_int(dirfd),
                ctypes.c_char_p(raw),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
                path=os.fsdecode(raw),
            )
        except OSError as error:
            if error.errno != errno.EAGAIN or attempt == _OPENAT2_TRIES - 1:
                raise
    raise AssertionError("unreachable")


def quotactl_fd(fd: int, command: int, number: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    """Ask for or set a quota on the file system of `fd`; `command` holds the kind of quota in its low byte."""
    _syscall(
        SYS_QUOTACTL_FD,
        ctypes.c_int(fd),
        ctypes.c_uint(command),
        ctypes.c_uint(number),
        ctypes.cast(buffer, ctypes.c_void_p),
    )


def open_in_root(root_fd: int, path: str | bytes, flags: int, *, mode: int = 0) -> int:
    """Open `path` as a process chrooted to `root_fd` would see it: links and `..` never leave the root."""
    return openat2(root_fd, path, flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, mode=mode)


def open_beneath(dir_fd: int, path: str | bytes, flags: int, *, mode: int = 0) -> int:
    """Open `path` inside one of our own stores: any way out is an error (EXDEV)."""
    return openat2(dir_fd, path, flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS, mode=mode)


def mount(source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(fstype) if fstype else None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    if _libc.umount2(os.fsencode(target), ctypes.c_int(flags)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def fsopen(fstype: str) -> int:
    """Start configuring a file system; the descriptor is close-on-exec."""
    return _syscall(SYS_FSOPEN, ctypes.c_char_p(fstype.encode()), ctypes.c_uint(FSOPEN_CLOEXEC))


def fsconfig_string(fs_fd: int, key: str, value: str) -> None:
    """Set one string option."""
    _syscall(
        SYS_FSCONFIG,
        ctypes.c_int(fs_fd),
        ctypes.c_uint(FSCONFIG_SET_STRING),
        ctypes.c_char_p(key.encode()),
        ctypes.c_char_p(os.fsencode(value)),
        ctypes.c_int(0),
        path=value,
    )


def fsconfig_fd(fs_fd: int, key: str, fd: int) -> None:
    """Set one option to what a descriptor names (for the layers of an overlay: Linux 6.13)."""
    _syscall(
        SYS_FSCONFIG,
        ctypes.c_int(fs_fd),
        ctypes.c_uint(FSCONFIG_SET_FD),
        ctypes.c_char_p(key.encode()),
        None,
        ctypes.c_int(fd),
    )


def fsconfig_create(fs_fd: int) -> None:
    """Make the superblock from the options set so far."""
    _syscall(SYS_FSCONFIG, ctypes.c_int(fs_fd), ctypes.c_uint(FSCONFIG_CMD_CREATE), None, None, ctypes.c_int(0))


def fsmount(fs_fd: int, attributes: int = 0) -> int:
    """A detached mount of the configured file system."""
    return _syscall(SYS_FSMOUNT, ctypes.c_int(fs_fd), ctypes.c_uint(FSMOUNT_CLOEXEC), ctypes.c_uint(attributes))


def move_mount(from_fd: int, target: str) -> None:
    """Attach a detached mount at `target`."""
    _syscall(
        SYS_MOVE_MOUNT,
        ctypes.c_int(from_fd),
        ctypes.c_char_p(b""),
        ctypes.c_int(AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
        path=target,
    )


def open_tree(dirfd: int, path: str, *, recursive: bool = True) -> int:
    """A detached clone of the mount tree at `path` (`""` with a descriptor: at the descriptor itself)."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    return _syscall(
        SYS_OPEN_TREE, ctypes.c_int(dirfd), ctypes.c_char_p(os.fsencode(path)), ctypes.c_uint(flags), path=path
    )


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def map_ids(mount_fd: int, user_fd: int) -> None:
    """Let a detached mount show and take ids as the user namespace `user_fd` maps them. Source: mount_setattr(2)."""
    attr = _MountAttr(MOUNT_ATTR_IDMAP, 0, 0, user_fd)
    _syscall(
        SYS_MOUNT_SETATTR,
        ctypes.c_int(mount_fd),
        ctypes.c_char_p(b""),
        ctypes.c_uint(AT_EMPTY_PATH),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )


def act_as(uid: int, gid: int) -> None:
    """Touch files as `uid` and `gid` from now on, with all capabilities still: for the calling *thread*, which ends so."""
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), (_CapData * 2)()
    if _libc.capget(ctypes.byref(header), data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    _libc.setfsgid(ctypes.c_uint(gid))
    _libc.setfsuid(ctypes.c_uint(uid))  # which takes the capabilities over files away
    if _libc.capset(ctypes.byref(header), data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def setns(fd: int, kind: int) -> None:
    """Move the calling *thread* into a namespace."""
    if _libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def unshare(kinds: int) -> None:
    """Give the calling *thread* new namespaces."""
    if _libc.unshare(ctypes.c_int(kinds)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


RENAME_EXCHANGE = 2


def exchange(one: str, other: str) -> None:
    """Let two paths of one file system change places in one step."""
    done = _libc.renameat2(
        ctypes.c_int(AT_FDCWD), os.fsencode(one), ctypes.c_int(AT_FDCWD), os.fsencode(other), RENAME_EXCHANGE
    )
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), one)


def syncfs(fd: int) -> None:
    """Write back the whole file system that holds `fd`."""
    if _libc.syncfs(ctypes.c_int(fd)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


SYNC_FILE_RANGE_WRITE = 2


def start_writeback(fd: int) -> None:
    """Ask the kernel to begin writing a file's dirty pages now, without waiting for them. A hint: never fails."""
    _libc.sync_file_range(ctypes.c_int(fd), ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(SYNC_FILE_RANGE_WRITE))
