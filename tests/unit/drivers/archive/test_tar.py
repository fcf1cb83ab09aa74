"""The tar reader against what the standard library and by-hand headers write; its bounds; our own writer."""

from __future__ import annotations

import io
import tarfile

import pytest

from tare.drivers.archive import tar
from tare.drivers.archive.tar import ArchiveError, Entry, Source, header_of, read_entries

LONG = "d/" * 100 + "x" * 90


def source(data: bytes, block: int = 700) -> Source:
    blocks = [data[at : at + block] for at in range(0, len(data), block)]
    return Source(lambda: blocks.pop(0) if blocks else b"")


def entries(data: bytes, block: int = 700) -> list[Entry]:
    return list(read_entries(source(data, block)))


def archive(*members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as writer:
        for member in members:
            writer.addfile(member, io.BytesIO(b"z" * member.size))
    return out.getvalue()


def info(name: str, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("block", [1, 511, 512, 100_000])
def test_names_sizes_and_numbers(form: int, block: int) -> None:
    data = archive(
        info("a", size=3, mode=0o4755, uid=1, gid=2, mtime=5),
        info(LONG, size=600),
        info("s", type=tarfile.SYMTYPE, linkname=LONG),
        info("big", uid=2**22),
        form=form,
    )
    found = entries(data, block)
    assert [(e.name.decode(), e.size) for e in found] == [("a", 3), (LONG, 600), ("s", 0), ("big", 0)]
    assert (found[0].mode, found[0].uid, found[0].gid, found[0].mtime_ns) == (0o4755, 1, 2, 5 * 10**9)
    assert found[2].linkname.decode() == LONG
    assert found[3].uid == 2**22


def test_xattrs_and_fractional_time() -> None:
    member = info("a", pax_headers={"SCHILY.xattr.user.k": "v", "mtime": "1.5"})
    (found,) = entries(archive(member))
    assert found.xattrs == {b"user.k": b"v"}
    assert found.mtime_ns == 1_500_000_000


def test_what_we_write_we_read() -> None:
    made = [
        Entry(b"a", tar.FILE, 0o644, 1, 2, 0, 1_234_567_890_123_456_789, xattrs={b"user.a": b"\0\n="}),
        Entry(b"d" * 300, tar.DIR, 0o1777),
        Entry(b"n", tar.SYMLINK, linkname=b"l" * 150, mtime_ns=-1_500_000_000),
        Entry(b"c", tar.CHAR, 0o600, major=8, minor=1, uid=2**30),
        Entry(b"p/" * 60 + b"f", tar.LINK, linkname=b"a", mtime_ns=7 * 10**9),
    ]
    data = b"".join(map(header_of, made)) + tar.TRAILER
    assert entries(data) == made
    with tarfile.open(fileobj=io.BytesIO(data)) as reader:
        assert [m.name.encode() for m in reader] == [e.name for e in made]


@pytest.mark.parametrize("end", [515, 516, 1023, 1024, 1536])
def test_an_archive_may_end_after_the_last_data(end: int) -> None:
    """The stock docker leaves padding and trailer out when the Dockerfile is not in the context."""
    assert [entry.name for entry in entries(PLAIN[:end])] == [b"a"]


def broken(data: bytes, at: int, value: bytes) -> bytes:
    """A first header with a field replaced and the checksum put right."""
    header = bytearray(data[:512])
    header[at : at + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


PLAIN = archive(info("a", size=3), form=tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"x" * 512, "invalid tar header"),
        (b"x" * 100, "unexpected EOF"),
        (PLAIN[:514], "unexpected EOF"),
        (PLAIN[:1025], "unexpected EOF"),
        (PLAIN[:100] + b"1" + PLAIN[101:], "invalid tar header"),
        (broken(PLAIN, 124, b"zz"), "invalid tar header"),
        (broken(PLAIN, 124, b"\xff" * 12), "invalid tar header"),  # -1
        (broken(PLAIN, 156, b"S"), "sparse"),
        (broken(PLAIN, 156, b"Q"), "unhandled"),
        (broken(PLAIN, 156, b"x"), "invalid tar header"),
        (broken(broken(PLAIN, 156, b"x"), 124, b"00077777777"), "too long"),
        (archive(info("a", pax_headers={"GNU.sparse.major": "1"})), "sparse"),
        (archive(info("a", pax_headers={"mtime": "x"})), "invalid tar header"),
    ],
)
def test_wrong_archives(data: bytes, text: str) -> None:
    with pytest.raises(ArchiveError, match=text):
        entries(data)


@pytest.mark.parametrize("name", [b"", b"a\0b", b"../x", b"a/../b", b"/".join([b"a"] * 300)])
def test_names_refused(name: bytes) -> None:
    with pytest.raises(ArchiveError):
        tar.clean_name(name)


def test_names_cleaned() -> None:
    assert tar.clean_name(b"/./a//b/.") == [b"a", b"b"]
    assert tar.clean_name(b"./") == []


def test_a_reader_that_skips_data_stays_in_step() -> None:
    data = archive(info("a", size=1000), info("b", size=1), info("c"))
    stream = source(data, 64)
    names = []
    for entry in read_entries(stream):
        names.append(entry.name)
        if entry.name == b"a":
            assert stream.take(10) == b"z" * 10
    assert names == [b"a", b"b", b"c"]
