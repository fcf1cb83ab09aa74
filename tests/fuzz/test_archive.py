"""Hostile bytes for the tar reader, the extractor and the image documents: typed errors, nothing outside, no hang."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tare.base.errors import InvalidArgument
from tare.drivers.archive.extract import Extractor
from tare.drivers.archive.tar import ArchiveError, Source, read_entries
from tare.oci.image import parse_config, parse_manifest

_NAMES = st.sampled_from(
    ["a", "b", "a/b", "a/b/c", "./a", "/a", "..", "a/../b", ".wh.a", "a/.wh..wh..opq", ".wh.b", ""]
)
_TYPES = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
_MEMBERS = st.lists(
    st.tuples(_NAMES, _TYPES, st.sampled_from(["a", "b", "../..", "/", "a/b", ".", "../outside"])), max_size=12
)


def source(data: bytes) -> Source:
    blocks = [data] if data else []
    return Source(lambda: blocks.pop() if blocks else b"")


def build(members: list[tuple[str, bytes, str]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"abc"))
    return out.getvalue()


@settings(max_examples=150, deadline=None)
@given(_MEMBERS)
def test_nothing_leaves_the_root(members: list[tuple[str, bytes, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        (base / "outside").mkdir()
        (base / "root").mkdir()
        before = os.umask(0o022)
        fd = os.open(base / "root", os.O_RDONLY)
        try:
            Extractor(fd, whiteouts=os.geteuid() == 0, devices=False, owners=False, keep_free=False).run(
                source(build(members))
            )
        except ArchiveError:
            pass
        finally:
            os.close(fd)
            os.umask(before)
        assert sorted(os.listdir(base)) == ["outside", "root"]
        assert os.listdir(base / "outside") == []


@settings(max_examples=200, deadline=None)
@given(_MEMBERS, st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6))
def test_flipped_bytes_are_read_or_refused(members: list[tuple[str, bytes, str]], flips: list[tuple[int, int]]) -> None:
    data = bytearray(build(members))
    for at, value in flips:
        data[at % len(data)] = value
    try:
        list(read_entries(source(bytes(data))))
    except ArchiveError:
        pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes(data: bytes) -> None:
    for parse in (lambda: list(read_entries(source(data))), lambda: parse_config(data), lambda: parse_manifest(data)):
        try:
            parse()
        except (ArchiveError, InvalidArgument):
            pass
