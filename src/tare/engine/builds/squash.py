"""`--squash`: the layers a build put on its base become one, put together from their tars without unpacking anything."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tare.build.squash import squash
from tare.build.tree import DIR, FILE, LINK
from tare.drivers.archive.spool import Member, Part
from tare.engine.builds.compose import composed
from tare.engine.builds.context import Spool, spool
from tare.engine.builds.request import Build
from tare.images.records import Layer


async def squashed(build: Build, layers: Sequence[Layer], *, kept: int) -> list[Layer]:
    """The first `kept` layers and one more for all the others, leased. With fewer than two others nothing is done."""
    above = layers[kept:]
    if len(above) < 2:
        return list(layers)
    images = build.engine.images
    taken: list[Spool] = []
    for layer in above:
        fd = images.blobs.open(layer.blob)
        try:
            taken.append(await spool(build.engine.archiver, build.directory, fd, is_own=True))
        finally:
            os.close(fd)
        build.spools.append(taken[-1])
    parts = _parts(taken, build.now_ns)
    below = layers[kept - 1] if kept else None
    fds = [item.data_fd for item in taken]
    async with composed(build.engine.archiver, build.directory, parts, fds) as reader:
        layer = await images.layers.unpack(build.lease, reader, below, allow_empty=True, extract=False)
    return [*layers[:kept], layer]


def _parts(taken: Sequence[Spool], now_ns: int) -> list[Part]:
    parts: list[Part] = []
    for entry in squash([item.members for item in taken]):
        member = entry.member
        if member is None:
            parts.append(Part(Member(entry.path, FILE, 0o600, 0, 0, 0, now_ns)))
            continue
        kind = LINK if entry.link else member.kind
        parts.append(
            Part(
                Member(
                    entry.path,
                    kind,
                    member.mode,
                    member.uid,
                    member.gid,
                    0 if entry.link or kind == DIR else member.size,
                    member.mtime_ns,
                    entry.link or member.linkname,
                    member.major,
                    member.minor,
                    member.offset,
                    member.sha256,
                    {} if entry.link else dict(member.xattrs),
                ),
                entry.layer,
            )
        )
    return parts
