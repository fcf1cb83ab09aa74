"""A tar taken apart and put together again, read by the standard library."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from tare.drivers.archive.spool import Member, Part, compose, read_index, spool, write_plan
from tare.drivers.archive.tar import ArchiveError

BIG = bytes(range(256)) * 4096  # a megabyte: sent by the kernel


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(
            name: str,
            kind: bytes = tarfile.REGTYPE,
            data: bytes = b"",
            linkname: str = "",
            pax: dict[str, str] | None = None,
        ) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), linkname
            info.mode, info.uid, info.gid, info.mtime = 0o751, 5, 6, 7
            info.pax_headers = pax or {}
            tar.addfile(info, io.BytesIO(data))

        add("./", tarfile.DIRTYPE)
        add("./d/", tarfile.DIRTYPE)
        add("/.//a", data=b"hello", pax={"SCHILY.xattr.user.x": "y"})
        add("big", data=BIG)
        add("empty")
        add("d/link", tarfile.SYMTYPE, linkname="../a")
        add("./hard", tarfile.LNKTYPE, linkname="./a")
        add("n\u00e9" + "n" * 150, data=b"x")
        add("\udcff", data=b"no text")
        add("fifo", tarfile.FIFOTYPE)
    return out.getvalue()


def taken_apart(data: bytes, tmp_path: Path) -> tuple[dict[str, int], list[Member], bytes]:
    tmp_path.mkdir(exist_ok=True)
    source, files, index = (tmp_path / name for name in ("in", "data", "index"))
    source.write_bytes(data)
    fds = [os.open(source, os.O_RDONLY), *(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600) for path in (files, index))]
    try:
        told = spool(*fds)
    finally:
        for fd in fds:
            os.close(fd)
    return told, read_index(index.read_bytes()), files.read_bytes()


def put_together(parts: list[Part], sources: list[bytes], tmp_path: Path) -> bytes:
    paths = [tmp_path / f"source{number}" for number in range(len(sources))]
    for path, data in zip(paths, sources, strict=True):
        path.write_bytes(data)
    (tmp_path / "plan").write_bytes(write_plan(parts))
    out = tmp_path / "out"
    plan_fd, out_fd = (
        os.open(tmp_path / "plan", os.O_RDONLY),
        os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    )
    data_fds = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        assert compose(plan_fd, data_fds, out_fd) == len(parts)
    finally:
        for fd in (plan_fd, out_fd, *data_fds):
            os.close(fd)
    return out.read_bytes()


@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_is_taken_apart(packed: bool, tmp_path: Path) -> None:
    told, members, data = taken_apart(gzip.compress(archive()) if packed else archive(), tmp_path)
    known = {member.name: member for member in members}
    assert told == {"entries": 9, "bytes": len(data)}
    assert list(known) == ["d", "a", "big", "empty", "d/link", "hard", "n\u00e9" + "n" * 150, "\udcff", "fifo"]
    a, big = known["a"], known["big"]
    assert (a.kind, a.mode, a.uid, a.gid, a.size, a.mtime_ns) == ("0", 0o751, 5, 6, 5, 7 * 10**9)
    assert a.xattrs == {"user.x": b"y".hex()}
    assert a.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert data[big.offset : big.offset + big.size] == BIG
    assert known["empty"].sha256 == hashlib.sha256(b"").hexdigest()
    assert (known["d/link"].kind, known["d/link"].linkname) == ("2", "../a")
    assert (known["hard"].kind, known["hard"].linkname, known["hard"].size) == ("1", "a", 0)
    assert (known["d"].kind, known["fifo"].kind, known["fifo"].sha256) == ("5", "6", "")


def test_an_empty_tar(tmp_path: Path) -> None:
    assert taken_apart(bytes(1024), tmp_path) == ({"entries": 0, "bytes": 0}, [], b"")


@pytest.mark.parametrize("data", [archive()[:2000], b"no tar at all" * 100], ids=["cut", "junk"])
def test_what_is_no_tar(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError):
        taken_apart(data, tmp_path)


def test_a_name_that_leads_out(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("d/../../a"))
    with pytest.raises(ArchiveError, match="outside of the root"):
        taken_apart(out.getvalue(), tmp_path)


def test_what_was_taken_apart_is_put_together(tmp_path: Path) -> None:
    _, members, data = taken_apart(archive(), tmp_path / "1")
    again = put_together([Part(member) for member in members], [data], tmp_path)
    told, twice, data_again = taken_apart(again, tmp_path / "2")
    assert told["entries"] == len(members)
    assert twice == members
    assert data_again == data
    with tarfile.open(fileobj=io.BytesIO(again)) as tar:
        assert [info.name for info in tar if info.isdir()] == ["d"]
        file = tar.extractfile("big")
        assert file is not None
        assert file.read() == BIG


def test_bytes_come_from_several_files_and_from_texts(tmp_path: Path) -> None:
    parts = [
        Part(Member("one", "0", 0o644, 0, 0, 2, 0, offset=1)),
        Part(Member("two", "0", 0o600, 1, 2, 3, 0), source=1),
        Part(Member("text", "0", 0o644, 0, 0, 99, 0), text="h\u00e9 \udcff\n"),
        Part(Member("none", "0", 0o644, 0, 0, 0, 0), text=""),
    ]
    with tarfile.open(fileobj=io.BytesIO(put_together(parts, [b"abcd", b"xyz"], tmp_path))) as tar:
        found = {info.name: file.read() for info in tar if (file := tar.extractfile(info))}
    assert found == {"one": b"bc", "two": b"xyz", "text": "h\u00e9 ".encode() + b"\xff\n", "none": b""}


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_bytes_that_are_gone(size: int, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="gone"):
        put_together([Part(Member("a", "0", 0o644, 0, 0, size, 0))], [b"short"], tmp_path)


def test_a_layer_of_the_store_may_expand_to_any_number_of_times_its_size(tmp_path: Path) -> None:
    size = 120_000_000
    source = tmp_path / "in"
    with tarfile.open(source, "w:gz", compresslevel=9) as tar, open("/dev/zero", "rb") as zeros:
        info = tarfile.TarInfo("zeros")
        info.size = size
        tar.addfile(info, zeros)
    with source.open("rb") as file, (tmp_path / "data").open("wb") as data, (tmp_path / "index").open("wb") as index:
        fds = [opened.fileno() for opened in (file, data, index)]
        with pytest.raises(ArchiveError, match="expands to more than 200 times its size"):
            spool(*fds)
        file.seek(0)
        assert spool(*fds, is_own=True) == {"entries": 1, "bytes": size}
