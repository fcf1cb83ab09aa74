"""Renaming an archive on its way from one container to another."""

from __future__ import annotations

import io
import tarfile

import pytest

from tare.cli import copybetween
from tare.cli import exit as exits


@pytest.mark.parametrize(
    ("name", "prefix", "new", "after"),
    [
        ("d", "d", "n", "n"),
        ("d/x/y", "d", "n", "n/x/y"),
        ("./d/", "d", "n", "n"),
        ("./x", "", "n", "n/x"),
        (".", "", "n", "n"),
        ("de", "d", "n", None),
        ("d/../x", "d", "n", None),
    ],
)
def test_renamed(name: str, prefix: str, new: str, after: str | None) -> None:
    if after is None:
        with pytest.raises(ValueError):
            copybetween.renamed(name, prefix, new)
    else:
        assert copybetween.renamed(name, prefix, new) == after


def test_links_owners_and_long_names_survive() -> None:
    before, after = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=before, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link in (
            ("d", tarfile.DIRTYPE, ""),
            ("d/" + "x" * 200, tarfile.REGTYPE, ""),
            ("d/hard", tarfile.LNKTYPE, "d/" + "x" * 200),
            ("d/soft", tarfile.SYMTYPE, "/d/elsewhere"),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.uid, entry.mode = kind, link, 70000, 0o4755
            entry.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(b"abc"))
    before.seek(0)
    copybetween.rename(before, after, "n")
    after.seek(0)
    with tarfile.open(fileobj=after) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == ["n", "n/" + "x" * 200, "n/hard", "n/soft"]
        assert [m.linkname for m in members] == ["", "", "n/" + "x" * 200, "/d/elsewhere"]
        assert {(m.uid, m.mode) for m in members} == {(70000, 0o4755)}
        content = tar.extractfile(members[1])
        assert content is not None
        assert content.read() == b"abc"


def test_place() -> None:
    place = copybetween.place
    assert place("/d", is_directory=True, there=True, into=True) == ("/d", "")
    assert place("/d/new", is_directory=True, there=False, into=False) == ("/d", "new")
    assert place("/f", is_directory=False, there=True, into=False) == ("/", "f")
    for path, is_directory, there in (("/new/", False, False), ("/f", True, True)):
        with pytest.raises(exits.Exit):
            place(path, is_directory=is_directory, there=there, into=False)


@pytest.mark.parametrize(
    ("path", "of", "is_inside"),
    [("/d/x", "/d", True), ("/d", "/d/.", True), ("/de", "/d", False), ("/x", "/", True), ("d", "/d", True)],
)
def test_is_inside(path: str, of: str, is_inside: bool) -> None:
    assert copybetween.is_inside(path, of) is is_inside
