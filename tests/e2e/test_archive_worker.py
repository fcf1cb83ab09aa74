"""The archive worker as a process: confined, killed with its job, and gone with the daemon."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tare.base.errors import InvalidArgument, Unavailable
from tare.drivers.archive import worker
from tare.drivers.archive.client import MOST_JOBS, Archiver, Options

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def run(story: Callable[[Archiver], Awaitable[None]], *, most: int = MOST_JOBS) -> None:
    async def main() -> None:
        archiver = Archiver(most=most)
        await archiver.start()
        try:
            await asyncio.wait_for(story(archiver), 60)
        finally:
            archiver.close()

    asyncio.run(main())


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def make_tar(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return out.getvalue()


def info(name: str, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(member, key, value)
    return member


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def test_a_job_is_confined_and_dies_when_cancelled(tmp_path: Path) -> None:
    async def story(archiver: Archiver) -> None:
        fd = os.open(tmp_path, os.O_RDONLY)
        asked = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            # More than the socket holds: when the second block is asked for, the child is reading, so it is confined.
            yield make_tar(info("a", size=40_000_000))[:30_000_000]
            asked.set()
            await asyncio.Event().wait()

        job = asyncio.create_task(archiver.unpack(endless(), fd))
        await asked.wait()
        assert archiver._process is not None
        (child,) = children_of(archiver._process.pid)
        status = status_of(child)
        mask = sum(1 << capability for capability in worker.EXTRACT_CAPABILITIES)
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {mask}
        assert int(status["CapInh"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        for namespace in ("mnt", "net"):
            assert os.readlink(f"/proc/{child}/ns/{namespace}") != os.readlink(f"/proc/self/ns/{namespace}")
        assert os.stat(f"/proc/{child}/root").st_ino == os.stat(tmp_path).st_ino
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert children_of(archiver._process.pid) == []
        os.close(fd)

    run(story)


def test_the_zygote_sees_nothing_of_the_host(tmp_path: Path) -> None:
    async def story(archiver: Archiver) -> None:
        assert archiver._process is not None
        pid = archiver._process.pid
        assert len(Path(f"/proc/{pid}/mounts").read_text().splitlines()) == 1
        assert os.listdir(f"/proc/{pid}/root") == []

    run(story)


def test_owners_modes_devices_xattrs(tmp_path: Path) -> None:
    data = make_tar(
        info(
            "f",
            size=3,
            uid=7,
            gid=8,
            mode=0o4755,
            pax_headers={"SCHILY.xattr.user.k": "v", "SCHILY.xattr.trusted.t": "1"},
        ),
        info("d", type=tarfile.DIRTYPE, uid=1, mode=0o2770),
        info("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        info("p", type=tarfile.FIFOTYPE),
        info("s", type=tarfile.SYMTYPE, linkname="/x", uid=5),
    )

    async def story(archiver: Archiver) -> None:
        fd = os.open(tmp_path, os.O_RDONLY)
        await archiver.unpack(once(data), fd)
        with pytest.raises(InvalidArgument, match="not allowed here"):
            await archiver.unpack(once(data), fd, options=Options(devices=False))
        os.close(fd)

    run(story)
    found = os.lstat(tmp_path / "f")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (7, 8, 0o4755)
    assert os.listxattr(tmp_path / "f") == ["user.k"]
    assert stat.S_IMODE(os.lstat(tmp_path / "d").st_mode) == 0o2770
    assert os.lstat(tmp_path / "s").st_uid == 5
    assert os.lstat(tmp_path / "null").st_rdev == os.makedev(1, 3)


def test_pack_to_a_reader_that_leaves(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(20_000_000))

    async def story(archiver: Archiver) -> None:
        fd = os.open(tmp_path, os.O_RDONLY)
        stream = archiver.pack_chunks(fd)
        assert await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        assert archiver._process is not None
        assert children_of(archiver._process.pid) == []
        whole = b"".join([chunk async for chunk in archiver.pack_chunks(fd)])
        os.close(fd)
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
            assert [(m.name, m.size) for m in tar] == [("big", 20_000_000)]

    run(story)


def test_a_zygote_that_died_is_started_again(tmp_path: Path) -> None:
    async def story(archiver: Archiver) -> None:
        assert archiver._process is not None
        archiver._process.kill()
        archiver._process.wait()
        fd = os.open(tmp_path, os.O_RDONLY)
        result = await archiver.unpack(once(make_tar(info("a", size=1))), fd)
        os.close(fd)
        assert result.entries == 1

    run(story)


def test_many_opaque_directories_fit_into_an_answer(tmp_path: Path) -> None:
    data = make_tar(*(info(f"directory-with-a-name-{n}/.wh..wh..opq") for n in range(10_000)))

    async def story(archiver: Archiver) -> None:
        fd = os.open(tmp_path, os.O_RDONLY)
        result = await archiver.unpack(once(data), fd)
        os.close(fd)
        assert len(result.opaque) == 10_000

    run(story)


def test_jobs_are_bounded(tmp_path: Path) -> None:
    async def story(archiver: Archiver) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def half() -> AsyncIterator[bytes]:
            yield b"\0" * 512
            begun.set()
            await go_on.wait()
            yield b"\0" * 10_000

        fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            first = asyncio.create_task(archiver.unpack(half(), fd, options=Options(blob="none")))
            await begun.wait()
            with pytest.raises(Unavailable, match="1 archives are being read"):
                await archiver.unpack(once(make_tar(info("a"))), fd, options=Options(blob="none"))
            go_on.set()
            await first
            await archiver.unpack(once(make_tar(info("a"))), fd, options=Options(blob="none"))
        finally:
            os.close(fd)

    run(story, most=1)
