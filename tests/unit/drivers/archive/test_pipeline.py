"""Every compression gives the same diffID; blobs are right and deterministic; bombs and stumps are refused."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tare.drivers.archive.pipeline import Options, Result, sniff, unpack
from tare.drivers.archive.tar import ArchiveError


def make_tar(size: int = 3_000_000) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("f")
        member.size = size
        tar.addfile(member, io.BytesIO(b"tare" * (size // 4)))
    return out.getvalue()


PLAIN = make_tar()
DIFF_ID = "sha256:" + hashlib.sha256(PLAIN).hexdigest()


def run(tmp_path: Path, data: bytes, *, allow_empty: bool = False, is_own: bool = False) -> tuple[Result, bytes]:
    (tmp_path / "in").write_bytes(data)
    (tmp_path / "r").mkdir()
    fds = [
        os.open(tmp_path / "in", os.O_RDONLY),
        os.open(tmp_path / "r", os.O_RDONLY),
        os.open(tmp_path / "blob", os.O_WRONLY | os.O_CREAT),
    ]
    before = os.umask(0o022)
    options = Options(owners=False, devices=False, sync=False, blob="write", allow_empty=allow_empty, is_own=is_own)
    try:
        return unpack(fds[0], fds[1], fds[2], options), (tmp_path / "blob").read_bytes()
    finally:
        os.umask(before)
        for fd in fds:
            os.close(fd)


def two_members(data: bytes) -> bytes:
    return gzip.compress(data[:1_000_000]) + gzip.compress(data[1_000_000:]) + bytes(100)


def two_frames(data: bytes) -> bytes:
    return zstandard.compress(data[:1_000_000]) + zstandard.compress(data[1_000_000:])


@pytest.mark.parametrize(
    ("name", "compress", "kept"),
    [
        ("plain", bytes, False),
        ("gzip", gzip.compress, True),
        ("gzip", two_members, True),
        ("zstd", zstandard.compress, True),
        ("zstd", two_frames, True),
        ("bzip2", bz2.compress, False),
        ("xz", lzma.compress, False),
    ],
)
def test_compressions(tmp_path: Path, name: str, compress: Callable[[bytes], bytes], kept: bool) -> None:
    data = compress(PLAIN)
    result, blob = run(tmp_path, data)
    assert result.compression == name
    assert (result.plain_digest, result.plain_size) == (DIFF_ID, len(PLAIN))
    assert result.input_digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert result.blob_digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert result.blob_size == len(blob)
    assert (blob == data) == kept
    if not kept:
        assert gzip.decompress(blob) == PLAIN
        assert blob[4:8] == bytes(4)  # no time in it
    assert (tmp_path / "r" / "f").stat().st_size == 3_000_000


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, bz2.compress, lzma.compress])
def test_stumps(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    data = compress(PLAIN)
    with pytest.raises(ArchiveError):
        run(tmp_path, data[: len(data) - 10])


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="200 times"):
        run(tmp_path, zstandard.compress(make_tar(120_000_000)))


def test_a_layer_of_the_store_is_no_bomb(tmp_path: Path) -> None:
    plain = make_tar(120_000_000)
    result, _ = run(tmp_path, zstandard.compress(plain), is_own=True)
    assert result.plain_digest == "sha256:" + hashlib.sha256(plain).hexdigest()


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="EOF"):
        run(tmp_path, b"")


def test_nothing_where_that_is_allowed(tmp_path: Path) -> None:
    result, blob = run(tmp_path, b"", allow_empty=True)
    assert result.plain_digest == "sha256:" + hashlib.sha256(b"").hexdigest()
    assert gzip.decompress(blob) == b""


def test_sniff() -> None:
    assert [sniff(data) for data in (b"", b"BZh9", b"\x50\x2a\x4d\x18", b"PK")] == ["plain", "bzip2", "zstd", "plain"]
