"""The whole way of an archive: mutated bytes through the real worker into a directory. FUZZ_SECONDS makes it long.

Whatever comes: an answer in words or a result, nothing outside of the directory, and what was extracted is what the verifier
expects of it.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import random
import shutil
import tarfile
import time
from pathlib import Path

import pytest

from tare.base.errors import InvalidArgument, Unavailable
from tare.drivers.archive.client import Archiver, Options

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
ROUNDS = 150
_NAMES = [
    "a",
    "b",
    "a/b",
    "a/b/c",
    "./a",
    "/a",
    "..",
    "a/../b",
    ".wh.a",
    "a/.wh..wh..opq",
    ".wh.b",
    "x" * 300,
    "a/" * 20,
]
_TARGETS = ["a", "b", "../..", "/", "a/b", ".", "../outside", "/outside", "x" * 200]
_KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
_FORMATS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]


def archive(chance: random.Random) -> bytes:
    """A tar of odd members, with some of its bytes wrong, and now and then compressed or cut."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=chance.choice(_FORMATS)) as tar:
        for _ in range(chance.randrange(12)):
            info = tarfile.TarInfo(chance.choice(_NAMES))
            info.type, info.linkname = chance.choice(_KINDS), chance.choice(_TARGETS)
            info.mode, info.uid = chance.choice([0o644, 0o4755, 0o777]), chance.choice([0, 0, 1000, 2**20])
            info.devmajor, info.devminor = chance.choice([(0, 0), (1, 3)])
            data = chance.randbytes(chance.choice([0, 1, 511, 512, 3000]))
            info.size = len(data) if info.type == tarfile.REGTYPE else 0
            try:
                tar.addfile(info, io.BytesIO(data))
            except ValueError:  # too long a name for the format
                continue
    raw = bytearray(out.getvalue())
    for _ in range(chance.choice([0, 0, 1, 3, 20])):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    made = bytes(raw)
    if chance.random() < 0.3:
        made = gzip.compress(made, mtime=0)
        if chance.random() < 0.5:
            position = chance.randrange(len(made))
            made = made[:position] + bytes([made[position] ^ (1 << chance.randrange(8))]) + made[position + 1 :]
    return made[: chance.randrange(len(made) + 1)] if chance.random() < 0.2 else made


async def one(archiver: Archiver, base: Path, data: bytes) -> None:
    root, blob = base / "root", base / "blob"
    root.mkdir(mode=0o755)
    blob.write_bytes(data)
    directory, source = os.open(root, os.O_RDONLY), os.open(blob, os.O_RDONLY)
    try:
        try:
            await archiver.unpack(source, directory, options=Options(allow_empty=True))
        except (InvalidArgument, Unavailable):
            return
        os.lseek(source, 0, os.SEEK_SET)
        found = await archiver.verify(source, directory)
        assert found["wrong"] == ""
        # the marks of opaque directories are made by the daemon afterwards, not by the worker
        assert [what for _, what in found["problems"] if "hide what lies below" not in what] == []
    finally:
        os.close(source)
        os.close(directory)
        assert sorted(os.listdir(base)) == ["blob", "outside", "root"]
        assert os.listdir(base / "outside") == []
        shutil.rmtree(root)


def test_mutated_archives_through_the_real_worker(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    seed = random.randrange(2**32) if SECONDS else 20261124

    async def story() -> None:
        archiver = Archiver()
        await archiver.start()
        end, rounds = time.monotonic() + SECONDS, 0
        try:
            while rounds < ROUNDS or time.monotonic() < end:
                data = archive(random.Random(seed + rounds))
                try:
                    await one(archiver, tmp_path, data)
                except BaseException:
                    print(f"seed {seed + rounds}")
                    raise
                rounds += 1
        finally:
            archiver.close()

    asyncio.run(story())
