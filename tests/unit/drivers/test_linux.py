"""openat2 and the mount calls: what stays inside a root. What needs the right to mount is in tests/e2e."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.drivers import linux


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A root with links that point out of it, beside a secret."""
    (tmp_path / "secret").write_text("outside")
    inside = tmp_path / "root"
    (inside / "etc").mkdir(parents=True)
    (inside / "etc" / "passwd").write_text("inside")
    (inside / "up").symlink_to("../secret")
    (inside / "absolute").symlink_to("/etc/passwd")
    (inside / "loop").symlink_to("loop")
    fd = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def read(fd: int) -> str:
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", ["etc/passwd", "/etc/passwd", "absolute", "../../etc/passwd", "etc/../etc/passwd"])
def test_in_root_everything_ends_inside(root: int, path: str) -> None:
    assert read(linux.open_in_root(root, path, os.O_RDONLY)) == "inside"


def test_in_root_a_link_upwards_does_not_find_what_is_outside(root: int) -> None:
    with pytest.raises(FileNotFoundError):
        linux.open_in_root(root, "up", os.O_RDONLY)


def test_a_loop_of_links(root: int) -> None:
    with pytest.raises(OSError) as caught:
        linux.open_in_root(root, "loop", os.O_RDONLY)
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize("path", ["up", "absolute", "/etc/passwd", "../secret"])
def test_beneath_leaving_is_an_error(root: int, path: str) -> None:
    with pytest.raises(OSError) as caught:
        linux.open_beneath(root, path, os.O_RDONLY)
    assert caught.value.errno in (errno.EXDEV, errno.ELOOP)


def test_beneath_makes_files_with_the_mode_asked_for(root: int) -> None:
    fd = linux.open_beneath(root, b"etc/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600)
    try:
        assert os.fstat(fd).st_mode & 0o777 == 0o600
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_nul_does_not_shorten_a_path(root: int) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        linux.open_in_root(root, "etc/passwd\0.harmless", os.O_RDONLY)


def test_errors_carry_number_and_path(root: int) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        linux.open_in_root(root, "etc/nothing", os.O_RDONLY)
    assert caught.value.filename is not None
    assert "nothing" in str(caught.value.filename)


def test_syncfs_takes_any_descriptor(root: int, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        linux.syncfs(fd)
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        linux.syncfs(fd)


def test_two_names_change_places(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("file")
    linux.exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "a").read_text() == "file"
    assert (tmp_path / "b").is_dir()
    with pytest.raises(FileNotFoundError):
        linux.exchange(str(tmp_path / "a"), str(tmp_path / "nothing"))
