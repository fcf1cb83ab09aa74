"""Tars put together from what was taken apart: the layer of a COPY, or files for a mount."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from tare.aio.threads import in_thread
from tare.build.copying import Item
from tare.drivers.archive.client import Archiver, Options
from tare.drivers.archive.spool import Member, Part, write_plan
from tare.engine.builds.context import Spool
from tare.engine.builds.request import Build


@asynccontextmanager
async def composed(
    archiver: Archiver, directory: Path, parts: Sequence[Part], data_fds: Sequence[int]
) -> AsyncIterator[int]:
    """The reading end of a pipe with the tar that `parts` describe. `directory` takes the plan for a while."""
    name = secrets.token_hex(8)
    empty = directory / f"{name}.empty"
    empty.mkdir(mode=0o700)
    plan = directory / f"{name}.plan"
    with ExitStack() as stack:

        def opened(path: Path, flags: int) -> int:
            fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, fd)
            return fd

        place = opened(empty, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(empty.rmdir)
        plan_fd = opened(plan, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        stack.callback(plan.unlink)
        data = await in_thread(write_plan, parts)
        await in_thread(_write_all, plan_fd, data)
        async with archiver.compose(place, plan_fd=plan_fd, data_fds=data_fds) as reader:
            yield reader


def parts_of(items: Sequence[Item], sources: dict[int, int], *, newest_ns: int | None) -> list[Part]:
    """The entries of a layer for the composer. sources: which data file holds the bytes of a member, by its `id()`."""
    parts: list[Part] = []
    for item in items:
        member = item.member
        mtime = item.mtime_ns if newest_ns is None else min(item.mtime_ns, newest_ns)
        made = Member(
            item.place,
            item.kind,
            item.mode,
            item.uid,
            item.gid,
            member.size if member is not None and item.text is None else 0,
            mtime,
            item.linkname,
            member.major if member is not None else 0,
            member.minor if member is not None else 0,
            member.offset if member is not None else 0,
            member.sha256 if member is not None else "",
            dict(member.xattrs) if member is not None else {},
        )
        parts.append(Part(made, sources.get(id(member), 0), item.text))
    return parts


async def compose_tree(build: Build, spool: Spool, place: Path) -> None:
    """Unpack what the tree of a spool has (nothing that is ignored) into the directory `place`."""
    tree = spool.tree
    mapping = build.engine.settings.id_mapping
    parts = []
    for path in tree.walk(""):
        member = tree.get(path)
        if not isinstance(member, Member):
            member = Member(path, "5", 0o755, 0, 0, 0, build.now_ns)
        if mapping is not None:  # a container looks at the files by its own ids
            uid, gid = mapping.outside(member.uid, member.gid)
            member = replace(member, uid=uid, gid=gid)
        parts.append(Part(member))
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        archiver = build.engine.archiver
        async with composed(archiver, build.directory, parts, [spool.data_fd]) as reader:
            await archiver.unpack(reader, fd, options=Options(whiteouts=False, sync=False, allow_empty=True))
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
