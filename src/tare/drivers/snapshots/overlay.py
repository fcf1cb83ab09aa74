"""Snapshots on overlayfs.

    <data-root>/snapshots/<64 hex>/fs        what this snapshot adds (upper directory of an active one)
    <data-root>/snapshots/<64 hex>/work      overlayfs' own; active ones only
    <data-root>/snapshots/<64 hex>/parent    the committed snapshot below, one line; empty for none
    <data-root>/snapshots/init/fs            the init layer: top-most lower of every mount, never shown, never committed
    <data-root>/trash/<random>               removed, deleted in the background and at start

Mount points named in lowerdir are not limited to a page: each is handed over by itself (`lowerdir+`, Linux 6.5), or as
`/proc/self/fd/N` where the kernel is older.
Source: kernel Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import threading
from pathlib import Path

from tare.aio import failpoints
from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound, Unavailable
from tare.base.ids import is_full_id
from tare.drivers import linux
from tare.drivers.quota import Quotas
from tare.drivers.snapshots import ADDED, DELETED, MODIFIED, Change, Ids, Usage
from tare.drivers.trees import delete_in_background
from tare.store.blobs import fsync_directory

INIT = "init"
_INIT_DIRECTORIES = ("dev", "dev/pts", "dev/shm", "proc", "sys", "etc")
_INIT_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv")
_INIT_LINKS = {"etc/mtab": "/proc/mounts"}

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = "trusted.overlay.opaque"
_CAPABILITY = "security.capability"
# dockerd's choice: no index (a lower may be shared by many mounts), and nothing in an upper that a reader of plain
# directories would not understand.
_OPTIONS = {"index": "off", "redirect_dir": "off", "metacopy": "off"}
_MOUNT_ATTR_RDONLY = 1


class OverlaySnapshotter:
    """`Snapshotter` on overlayfs below `data_root`. Safe to call from several threads."""

    def __init__(self, data_root: Path) -> None:
        self._root = data_root / "snapshots"
        self._trash = data_root / "trash"
        for directory in (self._root, self._trash):
            directory.mkdir(mode=0o700, exist_ok=True)
        self._parents: dict[str, str | None] = {}
        self._aliases: dict[str, str] = {}  # sealed snapshots that were settled, by the name they had before
        self._renaming = threading.Lock()  # no sealed snapshot gets its name between looking it up and mounting it
        self._lowerdir_each: bool | None = None
        self._quotas = Quotas(self._root)
        self._make_init_layer()

    def __repr__(self) -> str:
        return f"OverlaySnapshotter({self._root})"

    # -- life cycle ---------------------------------------------------------------------------------------------------

    def serves_limits(self) -> bool:
        """See Snapshotter."""
        return self._quotas.is_served()

    def prepare(self, key: str, parent: str | None, *, limit: int = 0) -> None:
        """See Snapshotter."""
        self._check_name(key)
        parent = self._aliases.get(parent, parent) if parent else None
        if parent is not None and not self.exists(parent):
            raise NotFound(f"snapshot {parent} does not exist")
        if self.exists(key):
            raise Conflict(f"snapshot {key} exists already")
        fresh = self._root / f".new-{secrets.token_hex(8)}"
        fresh.mkdir(mode=0o700)
        try:
            if limit:
                self._quotas.limit(fresh, limit)
            (fresh / "work").mkdir(mode=0o700)
            make_root(fresh / "fs", self._root / parent / "fs" if parent else None)
            (fresh / "parent").write_text(parent or "")
            failpoints.hit("snapshot.prepared")
            os.rename(fresh, self._root / key)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        self._parents[key] = parent

    def syncs(self, key: str) -> list[Path]:
        """See Snapshotter."""
        own = self._existing(key)
        return [own / "parent", own, self._root]

    def mount(self, key: str, target: Path, *, readonly: bool = False, ids: Ids | None = None) -> None:
        """See Snapshotter."""
        with self._renaming:
            own, lowers = self._existing(key), self.lowers(key)
            failpoints.hit("snapshot.mount")
            if ids is not None:
                self._mount_mapped(key, own, lowers, target, ids, readonly=readonly)
            else:
                self._mount(key, own, lowers, target, readonly=readonly)

    def view(self, name: str, target: Path, *, ids: Ids | None = None) -> None:
        """See Snapshotter. Overlayfs without an upper wants two lowers: an empty directory lies below the last."""
        empty = self._root / INIT / "fs" / "dev" / "pts"
        with self._renaming:
            lowers = [self.upper(name), *self.lowers(name)[1:], empty]
            if ids is not None:
                self._mount_mapped(name, None, lowers, target, ids, readonly=True)
            else:
                self._mount(name, None, lowers, target, readonly=True)

    def _mount_mapped(
        self, key: str, own: Path | None, lowers: list[Path], target: Path, ids: Ids, *, readonly: bool
    ) -> None:
        """Mount with the layers seen through a mount that maps ids: an overlay itself cannot (docs/adr/0008-userns.md)."""
        failure: list[OSError] = []

        def work() -> None:  # a thread of its own: who it acts as goes with it
            try:
                self._mount_by_descriptors(own, lowers, target, ids, readonly=readonly)
            except OSError as error:
                failure.append(error)

        thread = threading.Thread(target=work, name="tare-idmap")
        thread.start()
        thread.join()
        if failure:
            raise InternalError(
                f"cannot mount snapshot {key} with mapped ids at {target}: {os.strerror(failure[0].errno or 0)}"
            ) from failure[0]

    def _mount_by_descriptors(
        self, own: Path | None, lowers: list[Path], target: Path, ids: Ids, *, readonly: bool
    ) -> None:
        with contextlib.ExitStack() as stack:

            def kept(fd: int) -> int:
                stack.callback(os.close, fd)
                return fd

            mapped = kept(linux.open_tree(linux.AT_FDCWD, str(self._root), recursive=False))
            linux.map_ids(mapped, ids.user_fd)
            fs = kept(linux.fsopen("overlay"))
            linux.fsconfig_string(fs, "source", "overlay")

            def layer(option: str, path: Path) -> None:
                flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                linux.fsconfig_fd(fs, option, kept(os.open(path.relative_to(self._root), flags, dir_fd=mapped)))

            for lower in lowers:
                layer("lowerdir+", lower)
            if own is not None:
                layer("upperdir", own / "fs")
                layer("workdir", own / "work")
            for option, value in _OPTIONS.items():
                linux.fsconfig_string(fs, option, value)
            # What overlayfs does by itself it does as whoever made the mount; only ids that are mapped can own files.
            linux.act_as(ids.uid, ids.gid)
            linux.fsconfig_create(fs)
            linux.move_mount(kept(linux.fsmount(fs, _MOUNT_ATTR_RDONLY if readonly else 0)), str(target))

    def _mount(self, key: str, own: Path | None, lowers: list[Path], target: Path, *, readonly: bool) -> None:
        try:
            if self._lowerdir_each is not False:
                try:
                    self._mount_by_parts(own, lowers, target, readonly=readonly)
                    self._lowerdir_each = True
                    return
                except OSError as error:
                    if self._lowerdir_each or error.errno not in (errno.EINVAL, errno.ENOSYS):
                        raise
                    self._lowerdir_each = False
            self._mount_by_data(own, lowers, target, readonly=readonly)
        except OSError as error:
            raise InternalError(f"cannot mount snapshot {key} at {target}: {os.strerror(error.errno or 0)}") from error

    @staticmethod
    def _mount_by_parts(own: Path | None, lowers: list[Path], target: Path, *, readonly: bool) -> None:
        fs = linux.fsopen("overlay")
        try:
            linux.fsconfig_string(fs, "source", "overlay")
            for lower in lowers:
                linux.fsconfig_string(fs, "lowerdir+", str(lower))
            if own is not None:
                linux.fsconfig_string(fs, "upperdir", str(own / "fs"))
                linux.fsconfig_string(fs, "workdir", str(own / "work"))
            for option, value in _OPTIONS.items():
                linux.fsconfig_string(fs, option, value)
            linux.fsconfig_create(fs)
            mounted = linux.fsmount(fs, _MOUNT_ATTR_RDONLY if readonly else 0)
        finally:
            os.close(fs)
        try:
            linux.move_mount(mounted, str(target))
        finally:
            os.close(mounted)

    @staticmethod
    def _mount_by_data(own: Path | None, lowers: list[Path], target: Path, *, readonly: bool) -> None:
        with contextlib.ExitStack() as stack:

            def short(path: Path) -> str:
                fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                return f"/proc/self/fd/{fd}"

            options = [
                "lowerdir=" + ":".join(short(lower) for lower in lowers),
                *((f"upperdir={short(own / 'fs')}", f"workdir={short(own / 'work')}") if own is not None else ()),
                *(f"{option}={value}" for option, value in _OPTIONS.items()),
            ]
            linux.mount("overlay", str(target), "overlay", linux.MS_RDONLY if readonly else 0, ",".join(options))

    def unmount(self, target: Path) -> None:
        """See Snapshotter."""
        try:
            failpoints.hit("snapshot.unmount")
            linux.umount(str(target), linux.MNT_DETACH)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise InternalError(f"cannot unmount {target}: {os.strerror(error.errno or 0)}") from error

    def remove(self, key: str) -> None:
        """See Snapshotter. The tree goes to the trash at once and is deleted by a thread of its own."""
        self._check_name(key)
        self._parents.pop(key, None)
        self.discard(self._root / key)

    def discard(self, directory: Path) -> None:
        """See Snapshotter."""
        failpoints.hit("snapshot.discard")
        grave = self._trash / secrets.token_hex(16)
        try:
            os.rename(directory, grave)
        except FileNotFoundError:
            return
        delete_in_background(grave)

    def seal(self, key: str, name: str) -> None:
        """See Snapshotter."""
        self._check_name(name)
        own = self._existing(key)
        self._parents[name] = self._parent_of(key)
        failpoints.hit("snapshot.seal")
        os.rename(own, self._root / name)
        self._parents.pop(key, None)
        self.discard(self._root / name / "work")

    def settle(self, name: str, final: str, parent: str | None) -> bool:
        """See Snapshotter."""
        with self._renaming:
            done = self.commit_from(self._root / name, final, parent)
            if done:
                self._parents.pop(name, None)
                self._aliases[name] = final
            return done

    def forget(self, name: str) -> None:
        """See Snapshotter."""
        if self._aliases.pop(name, None) is None:
            self.remove(name)

    def begin(self, directory: Path, parent: str | None) -> Path:
        """See Snapshotter."""
        directory.mkdir(mode=0o700)
        tree = directory / "fs"
        make_root(tree, self._existing(parent) / "fs" if parent else None)
        return tree

    def inherit_root(self, directory: Path, parent: str) -> None:
        """See Snapshotter."""
        take_attributes(directory / "fs", self._existing(parent) / "fs")
        fsync_directory(directory / "fs")

    def mark_opaque(self, directory: Path, paths: list[str]) -> None:
        """See Snapshotter."""
        if not paths:
            return
        root = os.open(directory / "fs", _DIRECTORY)
        try:
            for path in paths:
                fd = linux.open_in_root(root, path or ".", _DIRECTORY)
                try:
                    os.setxattr(fd, _OPAQUE, b"y")
                    os.fsync(fd)
                finally:
                    os.close(fd)
        finally:
            os.close(root)

    def commit_from(self, directory: Path, name: str, parent: str | None) -> bool:
        """See Snapshotter."""
        self._check_name(name)
        if self.exists(name):
            return False
        with open(directory / "parent", "w") as file:
            file.write(parent or "")
            file.flush()
            os.fsync(file.fileno())
        fsync_directory(directory)
        failpoints.hit("snapshot.noted")
        os.rename(directory, self._root / name)
        failpoints.hit("snapshot.renamed")
        fsync_directory(self._root)
        self._parents[name] = parent
        return True

    def replace(self, directory: Path, name: str, parent: str | None) -> None:
        """See Snapshotter."""
        with self._renaming:
            self.remove(name)
            self.commit_from(directory, name, parent)

    # -- looking ------------------------------------------------------------------------------------------------------

    def exists(self, key: str) -> bool:
        """See Snapshotter."""
        self._check_name(key)
        key = self._aliases.get(key, key)
        return key in self._parents or (self._root / key / "fs").is_dir()

    def upper(self, key: str) -> Path:
        """See Snapshotter."""
        return self._existing(key) / "fs"

    def lowers(self, key: str) -> list[Path]:
        """See Snapshotter."""
        found = [self._root / INIT / "fs"]
        above = self._parent_of(key)
        while above is not None:
            above = self._aliases.get(above, above)
            found.append(self._root / above / "fs")
            above = self._parent_of(above)
        return found

    def changes(self, key: str) -> list[Change]:
        """See Snapshotter."""
        return compare(self.upper(key), self.lowers(key))

    def usage(self, key: str) -> Usage:
        """See Snapshotter."""
        size = inodes = 0
        seen: set[int] = set()
        stack = [str(self.upper(key))]
        while stack:
            directory = stack.pop()
            inodes += 1
            with os.scandir(directory) as members:
                for member in members:
                    if member.is_dir(follow_symlinks=False):
                        stack.append(member.path)
                        continue
                    try:
                        found = member.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # the container is running
                    if found.st_nlink > 1:
                        if found.st_ino in seen:
                            continue
                        seen.add(found.st_ino)
                    inodes += 1
                    if stat.S_ISREG(found.st_mode):
                        size += found.st_size
        return Usage(size, inodes)

    def sweep(self, keep: set[str]) -> list[str]:
        """See Snapshotter."""
        removed = []
        for name in sorted(os.listdir(self._root)):
            if name == INIT or name in keep:
                continue
            grave = self._trash / secrets.token_hex(16)
            os.rename(self._root / name, grave)
            self._parents.pop(name, None)
            removed.append(name)
        for name in os.listdir(self._trash):
            delete_in_background(self._trash / name)
        return removed

    # -- inside -------------------------------------------------------------------------------------------------------

    @staticmethod
    def _check_name(key: str) -> None:
        if not is_full_id(key):
            raise InvalidArgument(f"invalid snapshot name {key[:80]!r}")

    def _existing(self, key: str) -> Path:
        if not self.exists(key):
            raise NotFound(f"snapshot {key} does not exist")
        return self._root / self._aliases.get(key, key)

    def _parent_of(self, key: str) -> str | None:
        key = self._aliases.get(key, key)
        if key not in self._parents:
            try:
                text = (self._existing(key) / "parent").read_text()
            except FileNotFoundError:
                raise NotFound(f"snapshot {key} does not exist") from None
            if text:
                self._check_name(text)
            self._parents[key] = text or None
        return self._parents[key]

    def _make_init_layer(self) -> None:
        final = self._root / INIT
        if final.is_dir():
            return
        fresh = self._root / f".new-{secrets.token_hex(8)}"
        (fresh / "fs").mkdir(parents=True, mode=0o755)
        os.chmod(fresh, 0o700)
        for name in _INIT_DIRECTORIES:
            (fresh / "fs" / name).mkdir(exist_ok=True)
            os.chmod(fresh / "fs" / name, 0o755)
        os.chmod(fresh / "fs", 0o755)
        for name in _INIT_FILES:
            (fresh / "fs" / name).touch()
            os.chmod(fresh / "fs" / name, 0o644)
        os.chmod(fresh / "fs" / ".dockerenv", 0o755)
        for name, text in _INIT_LINKS.items():
            os.symlink(text, fresh / "fs" / name)
        fd = os.open(fresh, _DIRECTORY)
        try:
            linux.syncfs(fd)
        finally:
            os.close(fd)
        os.rename(fresh, final)
        fsync_directory(self._root)


def probe_ids(data_root: Path, ids: Ids) -> None:
    """Whether this kernel and file system can do what `--userns-remap` needs. Raises Unavailable."""
    try:
        tree = linux.open_tree(linux.AT_FDCWD, str(data_root), recursive=False)
        try:
            linux.map_ids(tree, ids.user_fd)
            fs = linux.fsopen("overlay")
            try:
                linux.fsconfig_fd(fs, "lowerdir+", tree)
            finally:
                os.close(fs)
        finally:
            os.close(tree)
    except OSError as error:
        raise Unavailable(
            f"--userns-remap needs mounts that map ids, and overlay layers given by descriptor: {error.strerror}",
            hint="Linux 6.15 or newer, and a data root on ext4, xfs, btrfs or tmpfs",
        ) from None


def make_root(directory: Path, like: Path | None) -> None:
    """Make an upper directory. The root of a merged tree shows the attributes of its upper: take those below."""
    directory.mkdir(mode=0o755)
    if like is None:
        os.chmod(directory, 0o755)
        return
    take_attributes(directory, like)


def take_attributes(directory: Path, like: Path) -> None:
    """Owner, mode and times of another directory."""
    found = os.stat(like, follow_symlinks=False)
    os.chown(directory, found.st_uid, found.st_gid)
    os.chmod(directory, stat.S_IMODE(found.st_mode))
    os.utime(directory, ns=(found.st_atime_ns, found.st_mtime_ns))


# --- comparing an upper directory with what is below it --------------------------------------------------------------


def compare(upper: Path, lowers: list[Path]) -> list[Change]:
    """What `upper` changes in the stack `lowers` (top first), sorted by path, by dockerd's rules.

    Only directories present in `upper` are looked at. A directory is listed when something inside of it is; the
    removal of a directory is one line; size and mtime of a directory do not count as a change.
    """
    with contextlib.ExitStack() as stack:

        def opened(path: Path) -> int:
            fd = os.open(path, _DIRECTORY)
            stack.callback(os.close, fd)
            return fd

        fds = [opened(lower) for lower in lowers]
        found = _compare(opened(upper), fds, "")
    return sorted(found, key=lambda change: change.path)


def _compare(upper: int, lowers: list[int], path: str) -> list[Change]:
    """The changes inside one directory; `lowers` are the directories merged below it, [] when it hides them."""
    changes: list[Change] = []
    names = os.listdir(upper)
    for name in names:
        here = f"{path}/{name}"
        try:
            new = os.stat(name, dir_fd=upper, follow_symlinks=False)
        except FileNotFoundError:
            continue
        old, directories = _below(name, lowers)
        try:
            if _is_whiteout(new):
                if old is not None:
                    changes.append(Change(here, DELETED))
                continue
            inside: list[Change] = []
            if stat.S_ISDIR(new.st_mode):
                try:
                    fd = os.open(name, _DIRECTORY, dir_fd=upper)
                except FileNotFoundError:
                    continue  # a running container removed it meanwhile
                try:
                    opaque = _is_opaque(fd)
                    inside = _compare(fd, [] if opaque else directories, here)
                    if opaque:
                        inside += _hidden(fd, directories, here)
                finally:
                    os.close(fd)
            if old is None:
                changes.append(Change(here, ADDED))
            elif inside or _differs(old[0], new) or _capability(upper, name, new) != _capability(old[1], name, old[0]):
                changes.append(Change(here, MODIFIED))
            changes += inside
        finally:
            for fd in directories:
                os.close(fd)
    return changes


def _hidden(upper: int, lowers: list[int], path: str) -> list[Change]:
    """What an opaque directory hides and does not replace."""
    own = set(os.listdir(upper))
    gone = set()
    for position, lower in enumerate(lowers):
        for name in os.listdir(lower):
            if name not in own and name not in gone:
                old, directories = _below(name, lowers[position:])
                for fd in directories:
                    os.close(fd)
                if old is not None:
                    gone.add(name)
    return [Change(f"{path}/{name}", DELETED) for name in gone]


def _below(name: str, lowers: list[int]) -> tuple[tuple[os.stat_result, int] | None, list[int]]:
    """What `name` is in the merged lowers: (its stat, the directory it is in), and the directories merged there."""
    first: tuple[os.stat_result, int] | None = None
    directories: list[int] = []
    for lower in lowers:
        try:
            found = os.stat(name, dir_fd=lower, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if _is_whiteout(found):
            break
        if not stat.S_ISDIR(found.st_mode):
            if first is None:
                first = (found, lower)
            break
        if first is None:
            first = (found, lower)
        fd = os.open(name, _DIRECTORY, dir_fd=lower)
        directories.append(fd)
        if _is_opaque(fd):
            break
    return first, directories


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError:
        return False


def _capability(directory: int, name: str, found: os.stat_result) -> bytes:
    if not stat.S_ISREG(found.st_mode):
        return b""
    try:
        return os.getxattr(f"/proc/self/fd/{directory}/{name}", _CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""


def _differs(old: os.stat_result, new: os.stat_result) -> bool:
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    return old.st_mtime_ns != new.st_mtime_ns or old.st_size != new.st_size
