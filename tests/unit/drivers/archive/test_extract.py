"""The extractor, without privileges: what stays inside, what is refused, what wins."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest

from tare.drivers.archive import tar
from tare.drivers.archive.extract import Extractor, Totals
from tare.drivers.archive.tar import ArchiveError, Entry, Source, header_of

Member = tuple[Entry, bytes]


def file(name: bytes, data: bytes = b"", **fields: object) -> Member:
    return Entry(name, tar.FILE, size=len(data), **fields), data  # type: ignore[arg-type]


def make(members: Iterable[Member]) -> Source:
    data = b"".join(header_of(e) + d + tar.padding(len(d)) for e, d in members) + tar.TRAILER
    blocks = [data]
    return Source(lambda: blocks.pop() if blocks else b"")


def extract(root: Path, *members: Member, whiteouts: bool = False) -> Totals:
    root.mkdir(exist_ok=True)
    fd = os.open(root, os.O_RDONLY)
    before = os.umask(0o022)
    try:
        return Extractor(fd, whiteouts=whiteouts, devices=False, owners=False, keep_free=False).run(make(members))
    finally:
        os.umask(before)
        os.close(fd)


def link(name: bytes, target: bytes, kind: bytes = tar.SYMLINK) -> Member:
    return Entry(name, kind, linkname=target), b""


def folder(name: bytes, mtime_ns: int = 0) -> Member:
    return Entry(name, tar.DIR, 0o755, mtime_ns=mtime_ns), b""


def test_files_directories_links(tmp_path: Path) -> None:
    root = tmp_path / "r"
    totals = extract(
        root,
        folder(b"d/", 5 * 10**9),
        file(b"d/f", b"hi", mtime_ns=7),
        link(b"s", b"/etc"),
        link(b"h", b"d/f", tar.LINK),
    )
    assert (root / "d/f").read_bytes() == b"hi"
    assert os.readlink(root / "s") == "/etc"
    assert (root / "h").stat().st_ino == (root / "d/f").stat().st_ino
    assert (root / "d").stat().st_mtime_ns == 5 * 10**9
    assert (root / "d/f").stat().st_mtime_ns == 7
    assert (totals.entries, totals.files_bytes) == (4, 2)


def test_a_link_never_leads_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "r"
    extract(root, link(b"l", os.fsencode(outside)), file(b"l/f", b"1"), link(b"up", b"../.."), file(b"up/g", b"2"))
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "g").exists()
    assert (root / "l/f").read_bytes() == b"1"  # the dangling link gave way to a directory
    assert (root / "g").read_bytes() == b"2"  # `..` of the root is the root


def test_links_inside_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "r"
    extract(root, folder(b"usr/lib/"), link(b"lib", b"usr/lib"), file(b"lib/x", b"1"))
    assert (root / "usr/lib/x").read_bytes() == b"1"
    assert (root / "lib").is_symlink()


def test_the_last_member_of_a_name_wins(tmp_path: Path) -> None:
    root = tmp_path / "r"
    extract(
        root,
        file(b"a", b"1"),
        link(b"a", b"/etc/passwd"),
        file(b"a", b"2"),
        folder(b"d/"),
        file(b"d/x"),
        file(b"d", b"now a file"),
        file(b"e", b"f"),
        file(b"e/x", b"now a directory"),
    )
    assert (root / "a").read_bytes() == b"2"
    assert (root / "d").read_bytes() == b"now a file"
    assert (root / "e/x").read_bytes() == b"now a directory"


@pytest.mark.parametrize(
    "members",
    [
        [link(b"h", b"missing", tar.LINK)],
        [folder(b"d/"), link(b"h", b"d", tar.LINK)],
        [link(b"s", b"x"), link(b"h", b"s", tar.LINK)],
        [link(b"h", b"../../etc/passwd", tar.LINK)],
        [(Entry(b"n", tar.CHAR, major=1, minor=3), b"")],
        [link(b"s", b"")],
        [file(b"x" * 300)],
    ],
)
def test_refused(tmp_path: Path, members: list[Member]) -> None:
    with pytest.raises(ArchiveError):
        extract(tmp_path / "r", *members)


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b".wh.a/b"])
def test_wrong_whiteouts(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(ArchiveError, match="whiteout"):
        extract(tmp_path / "r", file(name), whiteouts=True)


def test_opaque_and_aufs_names(tmp_path: Path) -> None:
    root = tmp_path / "r"
    totals = extract(root, file(b"d/.wh..wh..opq"), file(b".wh..wh.plnk"), file(b"e/f"), file(b".wh.e"), whiteouts=True)
    assert totals.opaque == ["d", "e"]  # e is of this layer: it stays, and hides what is below
    assert sorted(os.listdir(root)) == ["d", "e"]
    assert (root / "e/f").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_whiteout_is_a_device(tmp_path: Path) -> None:
    root = tmp_path / "r"
    extract(root, file(b"d/.wh.x"), whiteouts=True)
    found = os.lstat(root / "d/x")
    assert stat.S_ISCHR(found.st_mode)
    assert found.st_rdev == 0
