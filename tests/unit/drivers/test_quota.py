from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from tare.drivers.quota import FIRST_PROJECT, Quotas


class FakeKernel:
    """A file system that counts projects, by the inode of the directory."""

    def __init__(self, refusal: int = 0) -> None:
        self.projects: dict[int, int] = {}
        self.limited: dict[int, bytes] = {}
        self.refusal = refusal

    def project(self, fd: int) -> int:
        return self.projects.get(os.fstat(fd).st_ino, 0)

    def join(self, fd: int, project: int) -> None:
        assert project in self.limited  # first the limit, then what it holds for
        self.projects[os.fstat(fd).st_ino] = project

    def limits(self, fd: int, project: int) -> bytes:
        if self.refusal:
            raise OSError(self.refusal, "refused")
        return bytes(72)

    def limit(self, fd: int, project: int, limits: bytes) -> None:
        self.limited[project] = limits


def test_each_directory_has_a_project_of_its_own(tmp_path: Path) -> None:
    kernel = FakeKernel()
    quotas = Quotas(tmp_path, kernel=kernel)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        quotas.limit(tmp_path / name, 10 << 20)
    assert sorted(kernel.projects.values()) == [FIRST_PROJECT, FIRST_PROJECT + 1]
    assert struct.unpack("=QQQQQQQQI4x", kernel.limited[FIRST_PROJECT]) == (10240, 10240, 0, 0, 0, 0, 0, 0, 1)


def test_a_project_is_free_again_when_its_directory_is_gone(tmp_path: Path) -> None:
    kernel = FakeKernel()
    quotas = Quotas(tmp_path, kernel=kernel)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        quotas.limit(tmp_path / name, 4096)
    kernel.projects.pop((tmp_path / "a").stat().st_ino)
    (tmp_path / "a").rmdir()
    (tmp_path / "c").mkdir()
    quotas.limit(tmp_path / "c", 4096)
    assert kernel.projects[(tmp_path / "c").stat().st_ino] == FIRST_PROJECT


@pytest.mark.parametrize(
    ("refusal", "is_served"), [(0, True), (errno.ENOENT, True), (errno.ESRCH, False), (errno.ENOSYS, False)]
)
def test_which_file_systems_serve_them(tmp_path: Path, refusal: int, is_served: bool) -> None:
    assert Quotas(tmp_path, kernel=FakeKernel(refusal)).is_served() is is_served


def test_the_kernel_that_runs_here_is_asked_in_its_own_words(tmp_path: Path) -> None:
    """It serves them or not; malformed calls would be EFAULT or EINVAL for every file system."""
    assert Quotas(tmp_path).is_served() in (True, False)
