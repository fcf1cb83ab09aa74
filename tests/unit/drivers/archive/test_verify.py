"""The verifier against the extractor: whatever a layer says, its files are as the extractor made them, or it tells."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tare.drivers import linux
from tare.drivers.archive.extract import Extractor
from tare.drivers.archive.tar import ArchiveError, Source
from tare.drivers.archive.verify import Expected, compare, verify

_NAMES = st.sampled_from(["a", "b", "a/b", "a/b/c", "b/c", "a/c/d", "./a", "/b", ".", "a/", "d/e", "c", "b/../c"])
_WHITEOUTS = st.sampled_from(
    [".wh.a", ".wh.b", "a/.wh.b", "a/.wh..wh..opq", ".wh..wh..opq", "b/.wh.c", "a/b/.wh..wh..opq"]
)
_TYPES = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
_TARGETS = st.sampled_from(["a", "b", "../..", "/", "a/b", ".", "../outside", "c", "/a"])
_MODES = st.sampled_from([0o644, 0o755, 0o4755, 0o600, 0o1777])
_MEMBERS = st.lists(st.tuples(_NAMES, _TYPES, _TARGETS, _MODES, st.binary(max_size=4)), max_size=14)
_LAYERS = st.lists(
    st.one_of(
        st.tuples(_NAMES, _TYPES, _TARGETS, _MODES, st.binary(max_size=4)),
        st.tuples(_WHITEOUTS, st.just(tarfile.REGTYPE), st.just(""), st.just(0o644), st.just(b"")),
    ),
    max_size=14,
)
Member = tuple[str, bytes, str, int, bytes]


def packed(members: list[Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, target, mode, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, mode
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def source(data: bytes) -> Source:
    blocks = [data] if data else []
    return Source(lambda: blocks.pop() if blocks else b"")


def expected(data: bytes) -> Expected:
    made = Expected()
    made.read(source(data))
    return made


def extract(data: bytes, directory: Path, *, whiteouts: bool, owners: bool) -> list[str]:
    before = os.umask(0)
    fd = os.open(directory, os.O_RDONLY)
    try:
        return Extractor(fd, whiteouts=whiteouts, owners=owners, keep_free=False).run(source(data)).opaque
    finally:
        os.close(fd)
        os.umask(before)


def problems(data: bytes, directory: Path) -> list[tuple[str, str]]:
    fd = os.open(directory, os.O_RDONLY)
    try:
        return compare(expected(data), fd).shown
    finally:
        os.close(fd)


def agree(data: bytes, directory: Path) -> None:
    """What was just extracted is found whole, and what cannot be extracted is refused by both."""
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    try:
        opaque = extract(data, directory, whiteouts=True, owners=True)
    except ArchiveError:
        return
    root = os.open(directory, os.O_RDONLY)
    for path in opaque:
        fd = linux.open_in_root(root, path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        os.setxattr(fd, "trusted.overlay.opaque", b"y")
        os.close(fd)
    os.close(root)
    assert problems(data, directory) == []


@pytest.mark.root
@settings(max_examples=300, deadline=None)
@given(_LAYERS)
def test_what_was_extracted_is_found_whole(tmp_path_factory: pytest.TempPathFactory, members: list[Member]) -> None:
    agree(packed(members), tmp_path_factory.mktemp("tree", numbered=True) / "fs")


@pytest.mark.root
def test_what_is_below_a_link_is_not_hidden(tmp_path: Path) -> None:
    """Found by the test above: `a/b` leads to `a`, and is no directory that could be marked."""
    members = [
        ("a/b", tarfile.SYMTYPE, ".", 0o777, b""),
        ("a/b/.wh..wh..opq", tarfile.REGTYPE, "", 0o644, b""),
    ]
    agree(packed(members), tmp_path / "fs")


LAYER = packed(
    [
        ("etc", tarfile.DIRTYPE, "", 0o755, b""),
        ("etc/motd", tarfile.REGTYPE, "", 0o644, b"hello"),
        ("etc/link", tarfile.SYMTYPE, "motd", 0o777, b""),
        ("bin", tarfile.DIRTYPE, "", 0o755, b""),
        ("bin/hard", tarfile.LNKTYPE, "etc/motd", 0o644, b""),
    ]
)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda root: (root / "etc/motd").write_bytes(b"hellO"), "content differs"),
        (lambda root: (root / "etc/motd").write_bytes(b"hell"), "size 4 instead of 5"),
        (lambda root: (root / "etc/motd").chmod(0o600), "mode 0600 instead of 0644"),
        (lambda root: (root / "etc/link").unlink(), "is missing"),
        (lambda root: (root / "etc/more").touch(), "is not of the layer"),
        (lambda root: ((root / "etc/link").unlink(), (root / "etc/link").symlink_to("x")), "leads elsewhere"),
        (lambda root: ((root / "etc/link").unlink(), (root / "etc/link").mkdir()), "is of another kind"),
    ],
)
def test_harm_is_told(tmp_path: Path, harm: object, told: str) -> None:
    extract(LAYER, tmp_path, whiteouts=False, owners=False)
    uid, gid = os.geteuid(), os.getegid()
    if (uid, gid) == (0, 0):
        assert problems(LAYER, tmp_path) == []
    assert callable(harm)
    harm(tmp_path)
    assert told in [what for _, what in problems(LAYER, tmp_path)]


def test_the_bytes_are_hashed_and_a_broken_tar_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "fs").mkdir()
    blob = tmp_path / "blob"
    blob.write_bytes(LAYER[:1000])
    with blob.open("rb") as file:
        fd = os.open(tmp_path / "fs", os.O_RDONLY)
        try:
            assert verify(file.fileno(), fd)["wrong"] == "unexpected EOF"
            blob.write_bytes(LAYER)
            file.seek(0)
            found = verify(file.fileno(), fd)
        finally:
            os.close(fd)
    assert found["input_digest"] == found["plain_digest"] != ""
    assert found["input_size"] == len(LAYER)
    assert found["count"] == 2


def test_a_layer_of_zeros_is_whole_however_small_its_blob(tmp_path: Path) -> None:
    size = 100 << 20
    blob = tmp_path / "blob"
    with tarfile.open(blob, "w:gz", compresslevel=9) as tar, open("/dev/zero", "rb") as zeros:
        info = tarfile.TarInfo("zeros")
        info.size, info.mode, info.uid, info.gid = size, 0o644, os.getuid(), os.getgid()
        tar.addfile(info, zeros)
    assert size - (64 << 20) > 200 * blob.stat().st_size
    made = tmp_path / "made"
    made.mkdir()
    with (made / "zeros").open("wb") as file:
        file.truncate(size)
    (made / "zeros").chmod(0o644)
    fds = os.open(blob, os.O_RDONLY), os.open(made, os.O_RDONLY)
    try:
        answer = verify(*fds)
    finally:
        for fd in fds:
            os.close(fd)
    assert (answer["wrong"], answer["problems"]) == ("", [])
