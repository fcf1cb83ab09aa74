"""What a build reads: a tar from the client or from a URL, taken apart and indexed, never unpacked."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct, field

from tare.aio.threads import in_thread
from tare.base.errors import InvalidArgument, NotFound
from tare.build.ignore import Ignore, read_ignore
from tare.build.lexer import MAX_DOCKERFILE
from tare.build.tree import FILE, LINK, Tree, clean_source
from tare.drivers.archive.client import Archiver
from tare.drivers.archive.spool import Member, read_index

_MAX_IGNORE = 1024 * 1024
_HEAD = 512


class Spool(Struct):
    """Members of an archive and the file with their bytes. `close` when done."""

    tree: Tree
    members: list[Member]
    data_fd: int

    def read(self, member: Member, *, limit: int) -> bytes:
        """The bytes of a file. Raises InvalidArgument when there are more than `limit`."""
        if member.size > limit:
            raise InvalidArgument(f"{member.name} is larger than {limit} bytes")
        return os.pread(self.data_fd, member.size, member.offset)

    def close(self) -> None:
        """Give the data back."""
        if self.data_fd >= 0:
            os.close(self.data_fd)
            self.data_fd = -1


class Context(Struct):
    """The build context: its files, the Dockerfile's text, what `.dockerignore` leaves out.

    named: further contexts that are files. caches: exported build caches that came along, by place. origin: where a
    repository or URL was taken from, with its commit; submodules: the same of the repositories inside of it.
    """

    spool: Spool
    dockerfile: bytes
    ignore: Ignore = field(default_factory=lambda: Ignore(()))
    named: dict[str, Spool] = field(default_factory=dict)
    caches: dict[str, Spool] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    submodules: list[tuple[str, str]] = field(default_factory=list)

    def close(self) -> None:
        """Give the data back."""
        for taken in (self.spool, *self.named.values(), *self.caches.values()):
            taken.close()

    def take_out(self, prefix: str) -> Spool:
        """What is below the directory `prefix` of the archive, as one for itself, and no part of this one."""
        below = f"{prefix}/"
        mine = [member for member in self.spool.members if member.name.startswith(below)]
        for member in mine:
            member.name = member.name.removeprefix(below)
            if member.kind == LINK:
                member.linkname = member.linkname.removeprefix(below)
        gone = {id(member) for member in mine}
        self.spool.members = [
            member for member in self.spool.members if id(member) not in gone and member.name != prefix
        ]
        self.spool.tree = Tree(self.spool.members, self.ignore or None)
        return Spool(Tree(mine), mine, os.dup(self.spool.data_fd))


async def spool(
    archiver: Archiver, directory: Path, source: AsyncIterator[bytes] | int, *, is_own: bool = False
) -> Spool:
    """Take an archive apart below `directory`. Raises InvalidArgument (wrong archive), Unavailable (disk full).

    is_own: it is a layer of the store: a step that writes zeros makes one that expands a thousand times.
    """
    name = secrets.token_hex(8)
    empty = directory / f"{name}.empty"
    empty.mkdir(mode=0o700)
    with ExitStack() as stack:

        def opened(path: Path, flags: int) -> int:
            fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, fd)
            return fd

        place = opened(empty, os.O_RDONLY | os.O_DIRECTORY)
        data = opened(directory / f"{name}.data", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        index = opened(directory / f"{name}.index", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        await archiver.spool(source, place, data_fd=data, index_fd=index, is_own=is_own)
        size = os.fstat(index).st_size
        members = await in_thread(lambda: read_index(os.pread(index, size, 0)))
        return Spool(Tree(members), members, os.dup(data))


async def receive(
    archiver: Archiver, directory: Path, source: AsyncIterator[bytes], *, dockerfile: str, is_remote: bool = False
) -> Context:
    """Read a context to its end. A remote source may be the text of a Dockerfile instead of an archive.

    Raises InvalidArgument, NotFound (no such Dockerfile, in Docker's words), and what `spool` raises.
    """
    head = b""
    source = aiter(source)
    async for chunk in source:
        head += chunk
        if len(head) >= _HEAD:
            break
    if is_remote and not _is_archive(head):
        text = head
        async for chunk in source:
            text += chunk
            if len(text) > MAX_DOCKERFILE:
                raise InvalidArgument("the remote Dockerfile is larger than 4 MiB")
        return Context(await spool(archiver, directory, _chunks(_EMPTY_TAR)), text)
    whole = await spool(archiver, directory, _joined(head, source))
    try:
        return _understood(whole, dockerfile)
    except BaseException:
        whole.close()
        raise


def _understood(whole: Spool, dockerfile: str) -> Context:
    path = clean_source(dockerfile or "Dockerfile")
    member = _file(whole, path)
    if member is None and not dockerfile:
        member = _file(whole, "dockerfile")
    if member is None:
        raise NotFound(f"Cannot locate specified Dockerfile: {dockerfile or 'Dockerfile'}")
    text = whole.read(member, limit=MAX_DOCKERFILE)
    if not text:
        raise InvalidArgument(f"the Dockerfile ({dockerfile or 'Dockerfile'}) cannot be empty")
    rules = _file(whole, f"{path}.dockerignore") or _file(whole, ".dockerignore")
    ignore = read_ignore(whole.read(rules, limit=_MAX_IGNORE)) if rules is not None else Ignore(())
    if ignore:
        whole.tree = Tree(whole.members, ignore)
    return Context(whole, text, ignore)


def _file(whole: Spool, path: str) -> Member | None:
    real = whole.tree.resolve(path)
    member = whole.tree.file(real) if real is not None else None
    return member if isinstance(member, Member) and member.kind == FILE else None


_EMPTY_TAR = bytes(1024)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _joined(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if head:
        yield head
    async for chunk in rest:
        yield chunk


def _is_archive(head: bytes) -> bool:
    """Whether bytes look like a tar or something packed."""
    magics = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
    return head.startswith(magics) or head[257:262] == b"ustar"


looks_like_archive = _is_archive
