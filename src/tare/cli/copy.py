"""`tare cp`: files between a container and this machine.

The engine speaks tar. Nothing in an archive that comes from a container is trusted: entries are made one component at
a time below a directory descriptor, symbolic links are never followed, and names that lead out are refused.
Source: docker cp manual, "Description" (the table of what a copy means); SECURITY-BASELINE, "Archive extraction".
"""

from __future__ import annotations

import base64
import errno
import os
import stat
import sys
import tarfile

from tare.cli import copybetween, flags, human
from tare.cli import exit as exits
from tare.client import gojson
from tare.client.errors import ApiError, ConnectionFailed
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, TypeVar

    from tare.cli.context import Context
    from tare.client.http import Answer

    _T = TypeVar("_T")

_GO_DIRECTORY, _GO_SYMLINK = 1 << 31, 1 << 27
_BLOCK = 1024 * 1024


def split_argument(text: str) -> tuple[str, str]:
    """`CONTAINER:PATH` as (container, path); a local path has no container."""
    if text.startswith(("/", ".")):
        return "", text
    container, colon, path = text.partition(":")
    return (container, path) if colon else ("", text)


def remote_stat(header: str) -> dict[str, object]:
    """The X-Docker-Container-Path-Stat header: name, size, mode (Go's FileMode), mtime, linkTarget."""
    if not header:
        raise ConnectionFailed("the engine did not say what is to be copied (no X-Docker-Container-Path-Stat)")
    found = gojson.loads(base64.b64decode(header))
    return dict(found.items()) if isinstance(found, dict) else {}


def _archive(container: str) -> str:
    return f"/containers/{percent(container)}/archive"


def _stat(context: Context, container: str, path: str) -> dict[str, object]:
    answer = context.client.request("HEAD", _archive(container), query={"path": path})
    answer.body()
    return remote_stat(answer.headers.get("x-docker-container-path-stat", ""))


def _is_directory(info: dict[str, object]) -> bool:
    mode = info.get("mode")
    return isinstance(mode, int) and bool(mode & _GO_DIRECTORY)


def _followed(context: Context, container: str, path: str) -> str:
    """What a symbolic link of the container leads to; any other path as it is."""
    info = _stat(context, container, path)
    mode, link = info.get("mode"), str(info.get("linkTarget") or "")
    if isinstance(mode, int) and mode & _GO_SYMLINK and link:
        return link if link.startswith("/") else f"{os.path.dirname(path)}/{link}"
    return path


class _Counting:
    """The pieces of an answer as a file for tarfile, counting."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._rest = b""
        self.count = 0

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        while len(self._rest) < size and (piece := self._answer.read()):
            self._rest += piece
            self.count += len(piece)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def drain(self) -> None:
        """Read what is left, so that the count is that of the whole archive."""
        while self.read(_BLOCK):
            pass


def _from_container(context: Context, options: flags.Options, source: tuple[str, str], target: str) -> int:
    container, path = source
    if options.on("follow-link"):
        path = _followed(context, container, path)
    answer = context.client.request("GET", _archive(container), query={"path": path})
    if target == "-":
        sys.stdout.flush()
        for piece in answer:
            sys.stdout.buffer.write(piece)
        return exits.OK
    info = remote_stat(answer.headers.get("x-docker-container-path-stat", ""))
    content_only = path.endswith("/.") or path == "."
    try:
        destination = local_target(
            target, str(info.get("name")), is_directory=_is_directory(info), content_only=content_only
        )
    except ValueError as error:
        answer.close()
        raise exits.Exit(exits.FAILED, str(error)) from None
    body = _Counting(answer)
    unpack(body, destination, keep_owner=options.on("archive"))
    body.drain()
    if context.is_terminal and not options.on("quiet"):
        context.error(f"Successfully copied {human.size(body.count, digits=3)} to {target}")
    return exits.OK


def local_target(target: str, name: str, *, is_directory: bool, content_only: bool) -> str:
    """The path the copied thing itself gets. Raises ValueError with docker's sentence."""
    if os.path.isdir(target):
        return target if content_only and is_directory else os.path.join(target, os.path.basename(name) or "root")
    if os.path.lexists(target):
        if is_directory:
            raise ValueError("cannot copy directory")
        if target.endswith("/"):
            raise ValueError("not a directory")
        return target
    if not os.path.isdir(os.path.dirname(target.rstrip("/")) or "."):
        raise ValueError(f'invalid output path: directory "{os.path.dirname(target.rstrip("/"))}" does not exist')
    if target.endswith("/") and not is_directory:
        raise ValueError("no such directory")
    return target.rstrip("/")


def clean(name: str) -> str:
    """An entry's name without leading `/` and `./`. Raises ValueError when it leads out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise ValueError(f"the archive holds a name that leads out of it: {name!r}")
    return "/".join(parts)


def unpack(source: _Counting, destination: str, *, keep_owner: bool) -> None:
    """Make what the archive holds at `destination`; its first entry is the thing itself. Raises ValueError, OSError."""
    prefix: str | None = None
    times: list[tuple[str, float]] = []
    parent = os.path.dirname(destination) or "."
    with tarfile.open(fileobj=source, mode="r|") as archive:  # type: ignore[call-overload]
        for entry in archive:
            name = clean(entry.name)
            if prefix is None:
                prefix = name
            if prefix and name != prefix and not name.startswith(f"{prefix}/"):
                raise ValueError(f"the archive holds an entry beside what was asked for: {entry.name!r}")
            inner = name[len(prefix) :].strip("/")
            path = "/".join([os.path.basename(destination), inner]) if inner else os.path.basename(destination)
            link = clean(entry.linkname)[len(prefix) :].strip("/") if entry.islnk() else entry.linkname
            if entry.islnk():
                link = f"{os.path.basename(destination)}/{link}"
            _make(archive, entry, parent, path, link, keep_owner=keep_owner)
            if entry.isdir():
                times.append((path, entry.mtime))
    for path, mtime in reversed(times):
        directory, last = _open_parent(parent, path)
        try:
            os.utime(last, (mtime, mtime), dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(directory)


def _open_parent(root: str, path: str) -> tuple[int, str]:
    """A descriptor of the directory that holds `path` below `root`, and the last component. Follows no links."""
    *parents, last = path.split("/")
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parents:
        try:
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = deeper
    return descriptor, last


def _make(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, root: str, path: str, link: str, *, keep_owner: bool
) -> None:
    directory, last = _open_parent(root, path)
    try:
        if entry.isdir():
            _make_directory(directory, last, entry, whole=path == last)
        else:
            _clear(directory, last)
            if entry.issym():
                os.symlink(link, last, dir_fd=directory)
            elif entry.islnk():
                other, name = _open_parent(root, link)
                try:
                    os.link(name, last, src_dir_fd=other, dst_dir_fd=directory, follow_symlinks=False)
                finally:
                    os.close(other)
                return
            elif entry.isreg():
                _write(archive, entry, directory, last)
            elif entry.isfifo():
                os.mkfifo(last, entry.mode & 0o7777, dir_fd=directory)
            else:
                kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
                device = os.makedev(entry.devmajor, entry.devminor)
                os.mknod(last, kind | (entry.mode & 0o7777), device, dir_fd=directory)
        if keep_owner and os.geteuid() == 0:
            os.chown(last, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        if not entry.issym():
            os.chmod(last, entry.mode & 0o7777, dir_fd=directory)
        if not entry.isdir():
            os.utime(last, (entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(directory)


def _make_directory(directory: int, last: str, entry: tarfile.TarInfo, *, whole: bool) -> None:
    try:
        os.mkdir(last, entry.mode & 0o7777 | 0o700, dir_fd=directory)
    except FileExistsError:
        # The destination itself may be a link to a directory: the user named it. Below it no link is followed.
        found = os.stat(last, dir_fd=directory, follow_symlinks=whole)
        if not stat.S_ISDIR(found.st_mode):
            raise OSError(errno.ENOTDIR, "cannot overwrite non-directory with directory", last) from None


def _clear(directory: int, last: str) -> None:
    try:
        os.unlink(last, dir_fd=directory)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        raise OSError(errno.EISDIR, "cannot overwrite directory with non-directory", last) from None


def _write(archive: tarfile.TarFile, entry: tarfile.TarInfo, directory: int, last: str) -> None:
    content = archive.extractfile(entry)
    assert content is not None
    descriptor = os.open(
        last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory
    )
    with os.fdopen(descriptor, "wb") as file:
        while data := content.read(_BLOCK):
            file.write(data)


def _to_container(context: Context, options: flags.Options, source: str, target: tuple[str, str]) -> int:
    container, path = target
    query: dict[str, str | bool] = {"noOverwriteDirNonDir": True, "copyUIDGID": options.on("archive")}
    if source == "-":
        from tare.cli import progress

        _stat_directory(context, container, path)
        put: dict[str, str | bool] = {**query, "path": path}
        context.client.request("PUT", _archive(container), query=put, upload=progress.stdin()).body()
        return exits.OK
    name = os.path.basename(source.rstrip("/"))
    content_only = source.endswith("/.") or source == "."
    real = os.path.realpath(source) if options.on("follow-link") else source.rstrip("/") or "/"
    try:
        is_directory = stat.S_ISDIR(os.lstat(real).st_mode)
    except OSError as error:
        raise exits.Exit(exits.FAILED, f"lstat {os.path.abspath(source)}: {(error.strerror or '').lower()}") from None
    if not is_directory and source.endswith("/"):
        raise exits.Exit(exits.FAILED, "not a directory")
    found = _stat_if_there(context, container, path)
    directory, arcname = _place(path, found, is_directory=is_directory)
    if not arcname:
        arcname = "" if content_only and is_directory else name

    def pack(file: IO[bytes]) -> int:
        sink = _Sink(file)
        archive = tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT)  # type: ignore[call-overload]  # noqa: SIM115
        archive.add(real, arcname=arcname or ".", recursive=True)
        sink.write(b"\0" * 1024)
        return sink.count

    count = _upload(context, container, pack, {**query, "path": directory})
    if context.is_terminal and not options.on("quiet"):
        context.error(f"Successfully copied {human.size(count, digits=3)} to {container}:{path}")
    return exits.OK


def _place(path: str, found: dict[str, object] | None, *, is_directory: bool) -> tuple[str, str]:
    into = found is not None and _is_directory(found)
    return copybetween.place(path, is_directory=is_directory, there=found is not None, into=into)


def _between(context: Context, options: flags.Options, source: tuple[str, str], target: tuple[str, str]) -> int:
    """From one container into another, or within one."""
    (giver, path), (taker, into) = source, target
    if copybetween.is_inside(into, path) and _same(context, giver, taker):
        raise exits.Exit(exits.FAILED, f"cannot copy {giver}:{path} into itself")
    if options.on("follow-link"):
        path = _followed(context, giver, path)
    answer = context.client.request("GET", _archive(giver), query={"path": path})
    try:
        info = remote_stat(answer.headers.get("x-docker-container-path-stat", ""))
        directory, new = _place(into, _stat_if_there(context, taker, into), is_directory=_is_directory(info))
        query: dict[str, str | bool] = {
            "noOverwriteDirNonDir": True,
            "copyUIDGID": options.on("archive"),
            "path": directory,
        }
        body = _Counting(answer)
        if new:
            _upload(context, taker, lambda file: copybetween.rename(body, file, new), query)
            body.drain()
        else:
            context.client.request("PUT", _archive(taker), query=query, upload=body).body()
    finally:
        answer.close()
    if context.is_terminal and not options.on("quiet"):
        context.error(f"Successfully copied {human.size(body.count, digits=3)} to {taker}:{into}")
    return exits.OK


def _same(context: Context, one: str, other: str) -> bool:
    """Whether two names mean one container."""
    if one == other:
        return True
    found = [context.client.get(f"/containers/{percent(name)}/json") for name in (one, other)]
    return len({entry.get("Id") for entry in found if isinstance(entry, dict)}) == 1


def _stat_if_there(context: Context, container: str, path: str) -> dict[str, object] | None:
    """None when the path is not there. Raises ApiError when the container is not."""
    try:
        return _stat(context, container, path)
    except ApiError as error:
        if error.status != 404 or "no such container" in error.message.lower():
            raise
        return None


def _stat_directory(context: Context, container: str, path: str) -> None:
    if not _is_directory(_stat_if_there(context, container, path) or {}):
        raise exits.Exit(exits.FAILED, f'destination "{container}:{path}" must be a directory')


class _Sink:
    """The writing end of the pipe as tarfile wants it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def write(self, data: bytes) -> int:
        """Pass on and count."""
        self.count += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        """How much was written."""
        return self.count


def _upload(context: Context, container: str, fill: Callable[[IO[bytes]], _T], query: dict[str, str | bool]) -> _T:
    """Send what `fill` writes as an archive into the container. Returns what `fill` returned."""
    import threading

    reading, writing = os.pipe()
    failed: list[BaseException] = []
    filled: list[_T] = []

    def pack() -> None:
        try:
            with os.fdopen(writing, "wb") as file:
                filled.append(fill(file))
        except BrokenPipeError:
            return  # the engine refused; its answer says why
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=pack)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as source:
            context.client.request("PUT", _archive(container), query=query, upload=source).body()
    finally:
        thread.join()
    if failed:
        raise failed[0]
    return filled[0]


def _cp(context: Context, options: flags.Options, operands: list[str]) -> int:
    *sources, target = (split_argument(operand) for operand in operands)
    if len(sources) > 1:
        _check_many(context, sources, target)
    for source in sources:
        _cp_one(context, options, source, target)
    return exits.OK


def _check_many(context: Context, sources: list[tuple[str, str]], target: tuple[str, str]) -> None:
    """Many sources go into a directory that is there; one archive on stdin is a source of its own."""
    if ("", "-") in [*sources, target]:
        raise exits.Exit(exits.FAILED, "`-` stands alone: with many sources everything is named")
    if target[0]:
        _stat_directory(context, *target)
    elif not os.path.isdir(target[1]):
        raise exits.Exit(exits.FAILED, f'destination "{target[1]}" must be a directory')


def _cp_one(context: Context, options: flags.Options, source: tuple[str, str], target: tuple[str, str]) -> int:
    if source[0] and target[0]:
        return _between(context, options, source, target)
    if source[0]:
        return _from_container(context, options, source, target[1])
    if target[0]:
        return _to_container(context, options, source[1], target)
    raise exits.Exit(exits.FAILED, "must specify at least one container source")


CP = flags.Command(
    _cp,
    "Copy files between containers and this machine",
    operands="CONTAINER:SRC_PATH... DEST_PATH|-\n        tare cp [OPTIONS] SRC_PATH...|- CONTAINER:DEST_PATH\n"
    "        tare cp [OPTIONS] CONTAINER:SRC_PATH... CONTAINER:DEST_PATH",
    least=2,
    most=None,
    flags=(
        flags.Flag("archive", "a", flags.BOOL, "Keep owner and group"),
        flags.Flag("follow-link", "L", flags.BOOL, "Copy what a symbolic link points to"),
        flags.Flag("quiet", "q", flags.BOOL, "Do not say how much was copied"),
    ),
    about="`-` stands for a tar archive on stdout or stdin. SRC_PATH/. copies what is in a directory, not itself."
    " Many sources go into a directory that exists.",
)
