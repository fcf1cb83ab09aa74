"""The packer: a directory tree, walked by descriptors in sorted order, becomes a tar stream.

Equal trees give equal bytes. In overlay mode the tree is the upper half of an overlay mount and the tar is a layer:
a 0:0 device NAME becomes `.wh.NAME`, an opaque directory starts with `.wh..wh..opq`, and other overlay bookkeeping
stays out.
Source: image-spec layer.md, "Representing Changes"; kernel Documentation/filesystems/overlayfs.rst, "whiteouts".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from tare.drivers.archive import tar
from tare.drivers.archive.tar import ArchiveError, Entry

_OPAQUE_XATTR = "trusted.overlay.opaque"
_CAPABILITY = "security.capability"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_BUFFER = 1024 * 1024
_SENDFILE_FROM = 256 * 1024


class Packer:
    """Writes the tree below `root_fd` to `out_fd`."""

    def __init__(
        self,
        root_fd: int,
        out_fd: int,
        *,
        overlay: bool = False,
        one_file_system: bool = False,
        hidden_devices: Sequence[int] = (),
        newest_ns: int | None = None,
    ) -> None:
        """overlay: write a layer from an upper directory; one_file_system: mount points inside appear empty.

        hidden_devices: so do mount points of file systems with these device numbers.
        newest_ns: later modification times are written as this one, so that equal builds give equal bytes.
        """
        self._root = root_fd
        self._out = out_fd
        self._overlay = overlay
        self._device = os.fstat(root_fd).st_dev if one_file_system else None
        self._hidden = frozenset(hidden_devices)
        self._newest_ns = newest_ns
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._links: dict[tuple[int, int], bytes] = {}
        self.entries = 0

    def run(self) -> int:
        """Write the whole tar with its trailer; how many entries it has. Raises OSError, ArchiveError."""
        self._directory(os.dup(self._root), b"", 0)
        return self._end()

    def run_as(self, name: bytes) -> int:
        """The same with the directory itself as the first member: `name`, and `name/…` for what is in it."""
        found = os.fstat(self._root)
        prefix = name if name.endswith(b"/") else name + b"/"
        entry = Entry(prefix, tar.DIR, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, 0, found.st_mtime_ns)
        fd = os.dup(self._root)
        self._xattrs(entry, fd, os.listxattr(fd))
        self._add(entry)
        self._directory(fd, prefix, 0)
        return self._end()

    def run_member(self, member: bytes, name: bytes) -> int:
        """Only `member` of the directory, called `name`. Raises FileNotFoundError when it is gone."""
        found = os.stat(member, dir_fd=self._root, follow_symlinks=False)
        self._member(self._root, member, name, found, 0)
        return self._end()

    def _end(self) -> int:
        self._emit(tar.TRAILER)
        self._flush()
        return self.entries

    def _directory(self, fd: int, path: bytes, depth: int) -> None:
        """Everything in the directory `fd`, which is closed at the end. Depth is bounded by the format's limit."""
        if depth > tar.MAX_DEPTH:
            os.close(fd)
            raise ArchiveError("directories are nested too deep")
        try:
            names = sorted(os.fsencode(name) for name in os.listdir(fd))
            for name in names:
                try:
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # a running container removed it meanwhile
                self._member(fd, name, path + name, found, depth)
        finally:
            os.close(fd)

    def _member(self, parent: int, name: bytes, path: bytes, found: os.stat_result, depth: int) -> None:
        kind = tar.kind_of(found.st_mode)
        if kind is None:
            return  # sockets mean nothing outside of the machine they were made on
        entry = Entry(
            path,
            kind,
            stat.S_IMODE(found.st_mode),
            found.st_uid,
            found.st_gid,
            0,
            found.st_mtime_ns,
        )
        if kind == tar.DIR:
            self._enter(parent, name, entry, found, depth)
            return
        if kind == tar.CHAR and found.st_rdev == 0 and self._overlay:
            head, slash, tail = path.rpartition(b"/")
            self._add(Entry(head + slash + b".wh." + tail, tar.FILE, 0o600, mtime_ns=0))
            return
        if found.st_nlink > 1:
            first = self._links.setdefault((found.st_dev, found.st_ino), path)
            if first is not path:
                entry.kind, entry.linkname = tar.LINK, first
                self._add(entry)
                return
        if kind == tar.FILE:
            self._file(parent, name, entry)
            return
        if kind == tar.SYMLINK:
            entry.linkname = os.readlink(name, dir_fd=parent)
        elif kind in (tar.CHAR, tar.BLOCKDEV):
            entry.major, entry.minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        self._add(entry)

    def _enter(self, parent: int, name: bytes, entry: Entry, found: os.stat_result, depth: int) -> None:
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            return
        path = entry.name + b"/"
        entry.name = path
        names = os.listxattr(fd)
        self._xattrs(entry, fd, names)
        self._add(entry)
        if self._overlay and _OPAQUE_XATTR in names and os.getxattr(fd, _OPAQUE_XATTR) in (b"y", b"x"):
            self._add(Entry(path + b".wh..wh..opq", tar.FILE, 0o600, mtime_ns=0))
        if (self._device is not None and found.st_dev != self._device) or found.st_dev in self._hidden:
            os.close(fd)
            return
        self._directory(fd, path, depth + 1)

    def _file(self, parent: int, name: bytes, entry: Entry) -> None:
        try:
            fd = os.open(name, _FILE, dir_fd=parent)
        except FileNotFoundError:
            return
        try:
            self._xattrs(entry, fd, os.listxattr(fd))
            entry.size = size = os.fstat(fd).st_size
            self._add(entry)
            if size >= _SENDFILE_FROM:
                self._flush()
                sent = self._send(fd, size)
            else:
                data = os.read(fd, size) if size else b""
                while len(data) < size and (more := os.read(fd, size - len(data))):
                    data += more
                self._emit(data)
                sent = len(data)
            if sent < size:  # shrank while we read: the header is out, so the rest reads as zeros
                self._zeros(size - sent)
            self._emit(tar.padding(size))
        finally:
            os.close(fd)

    def _send(self, fd: int, size: int) -> int:
        sent = 0
        while sent < size:
            count = os.sendfile(self._out, fd, sent, min(size - sent, 1 << 30))
            if not count:
                break
            sent += count
        return sent

    def _zeros(self, count: int) -> None:
        block = bytes(min(count, _BUFFER))
        while count:
            step = min(count, len(block))
            self._emit(block[:step])
            count -= step

    def _xattrs(self, entry: Entry, fd: int, names: list[str]) -> None:
        for name in names:
            if name == _CAPABILITY or name.startswith("user."):
                entry.xattrs[os.fsencode(name)] = os.getxattr(fd, name)

    def _add(self, entry: Entry) -> None:
        self.entries += 1
        if self._newest_ns is not None and entry.mtime_ns > self._newest_ns:
            entry.mtime_ns = self._newest_ns
        self._emit(tar.header_of(entry))

    def _emit(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        view = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._pending_bytes = 0
        while view:
            view = view[os.write(self._out, view) :]
