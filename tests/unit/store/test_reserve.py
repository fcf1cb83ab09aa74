"""Room kept for a full disk: when it is given up, made again, and who does not get it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tare.base.errors import Unavailable
from tare.store.reserve import PIECES, Reserve, check_room

MIB = 1024 * 1024


@dataclass
class Disk:
    """What statvfs says: blocks of 4 KiB."""

    f_blocks: int = 100 * 256
    f_bavail: int = 100 * 256
    f_files: int = 10_000
    f_ffree: int = 10_000
    f_frsize: int = 4096


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "statvfs", lambda _: made)
    return made


def test_it_is_made_once_and_kept_while_there_is_room(tmp_path: Path, disk: Disk) -> None:
    reserve = Reserve(tmp_path)
    reserve.refill()
    assert reserve.is_whole
    assert reserve.make_room()
    sizes = {path.stat().st_blocks * 512 for path in (tmp_path / "reserve").iterdir()}
    assert reserve.pieces() == PIECES
    assert sizes == {disk.f_blocks * 4096 // 1024 // 4096 * 4096}


def test_a_disk_without_inodes_gets_some_at_a_time_and_all_back_later(tmp_path: Path, disk: Disk) -> None:
    reserve = Reserve(tmp_path)
    reserve.refill()
    disk.f_ffree = 0
    assert reserve.make_room()
    left = reserve.pieces()
    assert 0 < left < PIECES
    assert not reserve.is_whole
    reserve.refill()
    assert reserve.pieces() == left  # there is no room for it now
    while reserve.pieces():
        assert reserve.make_room()
    assert not reserve.make_room()
    disk.f_ffree = disk.f_files
    reserve.refill()
    assert reserve.pieces() == PIECES


def test_what_a_file_system_keeps_for_root_is_used_first(tmp_path: Path, disk: Disk) -> None:
    reserve = Reserve(tmp_path)
    reserve.refill()
    disk.f_bavail = 0  # and yet root can write
    assert reserve.make_room()
    assert reserve.pieces() == PIECES
    assert os.listdir(tmp_path) == ["reserve"]


@pytest.mark.parametrize(
    ("free", "inodes", "coming", "fits"),
    [
        (100 * 256, 10_000, 94 * MIB, True),
        (100 * 256, 10_000, 96 * MIB, False),
        (5 * 256, 10_000, 0, True),
        (5 * 256 - 1, 10_000, 0, False),
        (100 * 256, 500, 0, False),
    ],
)
def test_a_twentieth_stays_free(tmp_path: Path, disk: Disk, free: int, inodes: int, coming: int, fits: bool) -> None:
    disk.f_bavail, disk.f_ffree = free, inodes
    if fits:
        check_room(tmp_path, coming)
        return
    with pytest.raises(Unavailable, match="no space left on device"):
        check_room(tmp_path, coming)


def test_file_systems_without_a_number_of_inodes(tmp_path: Path, disk: Disk) -> None:
    disk.f_files = disk.f_ffree = 0
    check_room(tmp_path)
    assert Reserve(tmp_path).make_room()
