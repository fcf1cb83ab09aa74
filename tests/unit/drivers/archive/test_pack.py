"""The packer: what it writes the standard library reads, and equal trees give equal bytes."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

from tare.drivers.archive.pack import Packer


def packed(root: Path, tmp_path: Path, *, overlay: bool = False) -> bytes:
    out = tmp_path / "out.tar"
    fd, out_fd = os.open(root, os.O_RDONLY), os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        Packer(fd, out_fd, overlay=overlay).run()
    finally:
        os.close(fd)
        os.close(out_fd)
    return out.read_bytes()


def test_a_tree_comes_back(tmp_path: Path) -> None:
    root = tmp_path / "r"
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"hello")
    (root / "big").write_bytes(os.urandom(700_001))
    os.link(root / "d" / "f", root / "z")
    os.symlink("x" * 200, root / "s")
    (root / ("n" * 200)).write_bytes(b"")
    with socket.socket(socket.AF_UNIX) as sock:
        before = os.getcwd()
        os.chdir(root)
        sock.bind("sock")
        os.chdir(before)
    data = packed(root, tmp_path)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [m.name for m in tar] == ["big", "d", "d/e", "d/f", "n" * 200, "s", "z"]
        assert tar.getmember("z").linkname == "d/f"
        assert tar.getmember("s").linkname == "x" * 200
        big = tar.extractfile("big")
        assert big is not None
        assert big.read() == (root / "big").read_bytes()
        assert int(float(tar.getmember("d/f").mtime)) == int((root / "d/f").stat().st_mtime)
    assert data == packed(root, tmp_path)


def test_an_empty_tree_is_only_the_trailer(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    assert packed(tmp_path / "r", tmp_path, overlay=True) == bytes(1024)


def test_a_directory_under_another_name_and_one_member(tmp_path: Path) -> None:
    root, out = tmp_path / "r", tmp_path / "out.tar"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"hello")

    def names(act: str, *arguments: bytes) -> list[str]:
        fd, out_fd = os.open(root, os.O_RDONLY), os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            getattr(Packer(fd, out_fd), act)(*arguments)
        finally:
            os.close(fd)
            os.close(out_fd)
        with tarfile.open(out) as tar:
            return [member.name for member in tar]

    assert names("run_as", b"new") == ["new", "new/d", "new/d/f"]
    assert names("run_as", b".") == [".", "./d", "./d/f"]
    assert names("run_as", b"/") == ["", "/d", "/d/f"]
    assert names("run_member", b"d", b"x") == ["x", "x/f"]


def test_hidden_devices_are_empty(tmp_path: Path) -> None:
    root, out = tmp_path / "r", tmp_path / "out.tar"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"hello")
    fd, out_fd = os.open(root, os.O_RDONLY), os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        Packer(fd, out_fd, hidden_devices=[os.fstat(fd).st_dev]).run()
    finally:
        os.close(fd)
        os.close(out_fd)
    with tarfile.open(out) as tar:
        assert [member.name for member in tar] == ["d"]
