"""The `local` driver: a directory of this host, or whatever mount(2) can put on it.

    <data-root>/volumes/<name>/_data       the content; with options a mount point, mounted while in use
    <data-root>/volumes/<name>/_stage      content being brought in, not yet visible
    <data-root>/volumes/.removed-<random>  removed, deleted in the background and at start

Options are those of dockerd's driver of this name: `type`, `device` and `o` as for mount(8). An empty directory needs
no sync: it is made again at start, and by `mount`, if a power cut took it.
Source: moby volume/local/local_unix.go (options, texts); mount(2), nfs(5).
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Collection, Mapping
from pathlib import Path

from tare.aio import failpoints
from tare.base.errors import InvalidArgument, TareError, Unavailable
from tare.drivers import linux, trees
from tare.drivers.volumes import Options
from tare.store.blobs import fsync_directory

_KNOWN = frozenset({"type", "o", "device", "size"})
_NEEDS: Mapping[str, tuple[str, ...]] = {"type": ("device",), "device": ("type",), "o": ("device", "type")}

_DATA = "_data"
_STAGE = "_stage"
_REMOVED = ".removed-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

# words of mount(8): (whether the word sets or clears, the bits)
_FLAGS: Mapping[str, tuple[bool, int]] = {
    "defaults": (True, 0),
    "ro": (True, linux.MS_RDONLY),
    "rw": (False, linux.MS_RDONLY),
    "nosuid": (True, linux.MS_NOSUID),
    "suid": (False, linux.MS_NOSUID),
    "nodev": (True, linux.MS_NODEV),
    "dev": (False, linux.MS_NODEV),
    "noexec": (True, linux.MS_NOEXEC),
    "exec": (False, linux.MS_NOEXEC),
    "sync": (True, 16),
    "async": (False, 16),
    "dirsync": (True, 128),
    "noatime": (True, 1024),
    "atime": (False, 1024),
    "nodiratime": (True, 2048),
    "diratime": (False, 2048),
    "relatime": (True, 1 << 21),
    "norelatime": (False, 1 << 21),
    "strictatime": (True, 1 << 24),
    "nostrictatime": (False, 1 << 24),
    "bind": (True, linux.MS_BIND),
    "rbind": (True, linux.MS_BIND | linux.MS_REC),
}
_PROPAGATION: Mapping[str, int] = {
    word: bits
    for name, bit in (
        ("private", linux.MS_PRIVATE),
        ("shared", linux.MS_SHARED),
        ("slave", linux.MS_SLAVE),
        ("unbindable", linux.MS_UNBINDABLE),
    )
    for word, bits in ((name, bit), (f"r{name}", bit | linux.MS_REC))
}
_UMOUNT_NOFOLLOW = 8
_REMOTE = frozenset({"nfs", "nfs4", "cifs"})
_UNREACHABLE = frozenset({errno.ETIMEDOUT, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})


def parse_mount_words(text: str) -> tuple[int, int, str]:
    """The `o` option as mount(2) takes it: (flags, propagation bits, data for the file system)."""
    flags = propagation = 0
    data: list[str] = []
    for word in text.split(","):
        if word in _PROPAGATION:
            propagation |= _PROPAGATION[word]
        elif word in _FLAGS:
            sets, bits = _FLAGS[word]
            flags = flags | bits if sets else flags & ~bits
        elif word:
            data.append(word)
    return flags, propagation, ",".join(data)


MountCall = tuple[str, str, str | None, int, str | None]


def mount_calls(options: Options, target: str) -> list[MountCall]:
    """What mount(2) is to be called with, one after the other; names in `addr=` are still names."""
    flags, propagation, data = parse_mount_words(options.get("o", ""))
    calls: list[MountCall] = [(options["device"], target, options["type"], flags, data or None)]
    if propagation:
        calls.append(("", target, None, propagation, None))
    if flags & linux.MS_BIND and flags & linux.MS_RDONLY:
        calls.append(("", target, None, flags | linux.MS_REMOUNT, None))
    return calls


class LocalVolumes:
    """`VolumeDriver` on directories below `<data-root>/volumes`."""

    name = "local"

    def __init__(self, data_root: Path) -> None:
        """Make the directory; finish removals a stop interrupted."""
        self._root = data_root / "volumes"
        self._root.mkdir(mode=0o701, exist_ok=True)
        trees.spread(self._root)
        self._users: dict[str, set[str]] = {}
        for name in os.listdir(self._root):
            if name.startswith(_REMOVED):
                trees.delete_in_background(self._root / name)

    def __repr__(self) -> str:
        return f"LocalVolumes({self._root})"

    def check(self, options: Options) -> None:
        """See VolumeDriver."""
        for key in options:
            if key not in _KNOWN:
                raise InvalidArgument(f'invalid option: "{key}"')
        if "size" in options:
            raise InvalidArgument("quota size requested but no quota support")
        for key, others in _NEEDS.items():
            if key in options:
                for other in others:
                    if not options.get(other):
                        raise InvalidArgument(f'missing required option: "{other}"')

    def create(self, name: str, options: Options) -> None:
        """See VolumeDriver."""
        self.check(options)
        self._make(name)
        failpoints.hit("volume.made")

    def _make(self, name: str) -> None:
        directory = self._root / name
        try:
            directory.mkdir(mode=0o701, exist_ok=True)
            try:
                (directory / _DATA).mkdir(mode=0o755)
            except FileExistsError:
                return
        except OSError as error:
            raise Unavailable(f"cannot make the volume's directory: {os.strerror(error.errno or 0)}") from error

    def remove(self, name: str) -> None:
        """See VolumeDriver."""
        directory = self._root / name
        self._unmount(name)
        self._users.pop(name, None)
        failpoints.hit("volume.discard")
        grave = self._root / f"{_REMOVED}{secrets.token_hex(16)}"
        try:
            os.rename(directory, grave)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(f"cannot remove {directory}: {os.strerror(error.errno or 0)}") from error
        trees.delete_in_background(grave)

    def path(self, name: str) -> Path:
        """See VolumeDriver."""
        return self._root / name / _DATA

    def mount(self, name: str, options: Options, user: str) -> Path:
        """See VolumeDriver."""
        self._make(name)
        if options.get("device") and not self._is_mounted(name):
            self._mount(name, options)
        self._users.setdefault(name, set()).add(user)
        return self.path(name)

    def unmount(self, name: str, user: str) -> bool:
        """See VolumeDriver."""
        users = self._users.get(name, set())
        if user not in users:
            return False
        users.discard(user)
        if not users:
            self._users.pop(name, None)
            self._unmount(name)
        return True

    def adopt(self, name: str, users: set[str]) -> None:
        """See VolumeDriver."""
        if users:
            self._users[name] = set(users)
        else:
            self._unmount(name)

    def users(self, name: str) -> frozenset[str]:
        """See VolumeDriver."""
        return frozenset(self._users.get(name, ()))

    def stage(self, name: str, options: Options) -> Path | None:
        """See VolumeDriver."""
        if options.get("device") or self._users.get(name):
            return None
        stage = self._root / name / _STAGE
        trees.discard(stage)
        stage.mkdir(mode=0o755)
        return stage

    def commit(self, name: str) -> bool:
        """See VolumeDriver. rename(2) refuses to replace a directory that is not empty, so nothing is ever lost."""
        directory = self._root / name
        if self._users.get(name):  # who has it mounted would go on with the directory that was replaced
            trees.discard(directory / _STAGE)
            return False
        try:
            os.rename(directory / _STAGE, directory / _DATA)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                raise Unavailable(f"cannot fill volume {name}: {os.strerror(error.errno or 0)}") from error
            trees.discard(directory / _STAGE)
            return False
        fsync_directory(directory)
        fsync_directory(self._root)
        return True

    def exchange(self, name: str) -> bool:
        """See VolumeDriver."""
        directory = self._root / name
        if self._users.get(name):
            return False
        self._make(name)
        try:
            linux.exchange(str(directory / _STAGE), str(directory / _DATA))
        except OSError as error:
            raise Unavailable(f"cannot fill volume {name}: {os.strerror(error.errno or 0)}") from error
        fsync_directory(directory)
        return True

    def usage(self, name: str) -> int:
        """See VolumeDriver."""
        return trees.usage(self.path(name))

    def lost(self, known: Collection[str]) -> dict[str, int]:
        """See VolumeDriver. What is mounted there does not count as its own."""
        found: dict[str, int] = {}
        for name in os.listdir(self._root):
            directory = self._root / name
            if name.startswith(".") or name in known or not directory.is_dir() or directory.is_symlink():
                continue
            try:
                if self._is_mounted(name):
                    continue
                if os.listdir(directory / _DATA):
                    found[name] = os.stat(directory).st_ctime_ns
                else:  # a crash came before the record
                    (directory / _DATA).rmdir()
                    directory.rmdir()
            except (FileNotFoundError, NotADirectoryError):
                continue
        return found

    # -- mounting -----------------------------------------------------------------------------------------------------

    def _is_mounted(self, name: str) -> bool:
        """Whether something is mounted on `_data`, a bind from the same file system included."""
        directory = os.open(self._root / name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(
                linux.openat2(
                    directory,
                    _DATA,
                    os.O_PATH | os.O_NOFOLLOW,
                    resolve=linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_NO_XDEV,
                )
            )
        except OSError as error:
            if error.errno == errno.EXDEV:
                return True
            raise
        finally:
            os.close(directory)
        return False

    def _mount(self, name: str, options: Options) -> None:
        first, *more = mount_calls(options, target := str(self.path(name)))
        _, _, kind, flags, data = first
        try:
            if kind in _REMOTE:
                data = with_address(data or "")
            linux.mount(options["device"], target, kind, flags, data or None)
            for call in more:
                linux.mount(*call)
        except OSError as error:
            self._unmount(name)
            raise _mount_error(error, options=options, target=target, flags=flags, data=data or "") from error

    def _unmount(self, name: str) -> None:
        """Take every mount off `_data`. Lazily: a container that ends may hold its own view for a moment longer."""
        while True:
            try:
                linux.umount(str(self.path(name)), linux.MNT_DETACH | _UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                    return
                raise Unavailable(f"cannot unmount volume {name}: {os.strerror(error.errno or 0)}") from error


def with_address(data: str) -> str:
    """mount(2) wants numbers where mount.nfs(8) takes a name: `addr=NAME` becomes `addr=192.0.2.1`. Raises OSError."""
    words = data.split(",") if data else []
    for position, word in enumerate(words):
        key, _, value = word.partition("=")
        if key == "addr" and value:
            try:
                words[position] = f"addr={socket.getaddrinfo(value, None)[0][4][0]}"
            except socket.gaierror as error:
                raise OSError(errno.EHOSTUNREACH, f"cannot resolve {value}: {error.strerror}") from None
    return ",".join(words)


def _mount_error(error: OSError, *, options: Options, target: str, flags: int, data: str) -> TareError:
    text = f"failed to mount local volume: mount {options['device']}:{target}, flags: {flags:#x}"
    # the data of a network mount may hold a password: it is not repeated
    if data and "password" not in data:
        text += f", data: {data}"
    text = f"error while mounting volume '{target}': {text}: {(error.strerror or str(error)).lower()}"
    hint = ""
    if error.errno == errno.ENODEV:  # mount(2): the kernel was not built with it, nor has a module of that name
        hint = f"this kernel has no file system of type {options['type']}"
    return Unavailable(text) if error.errno in _UNREACHABLE else InvalidArgument(text, hint=hint)


__all__ = ["LocalVolumes", "mount_calls", "parse_mount_words", "with_address"]
