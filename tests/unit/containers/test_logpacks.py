"""Packed log files: plain again, known by what they were, read over the border, replaced under a reader."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from tare.containers import logs
from tare.containers.logpacks import identity_of, origin_of, pack, unpacked
from tare.containers.logs import LogFile, Packing, Wanted

LINE = b"2026-11-23T21:11:39.%09d+00:00 stdout F %d\n"
ALL = Wanted(has_tty=True)


def lines(*numbers: int) -> bytes:
    return b"".join(LINE % (number, number) for number in numbers)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "container.log"


def packed(path: Path, old: Path) -> None:
    packing = Packing(path, old)
    packing.write()
    packing.replace()
    packing.close()


def everything(files: list[LogFile]) -> list[int]:
    found: list[int] = []
    for file in files:
        while piece := file.next_piece(ALL):
            found += map(int, piece.split())
        file.close()
    return found


def test_any_gzip_reads_it_and_it_is_known_by_what_it_was(tmp_path: Path) -> None:
    plain, target = tmp_path / "log", tmp_path / "log.gz"
    plain.write_bytes(lines(*range(50_000)))
    os.utime(plain, ns=(7, 8))
    fd = os.open(plain, os.O_RDONLY)
    pack(fd, target)
    assert gzip.decompress(target.read_bytes()) == plain.read_bytes()
    assert target.stat().st_size < plain.stat().st_size / 4
    again = os.open(target, os.O_RDONLY)
    assert origin_of(again) == identity_of(fd) != ""
    twin = unpacked(again, tmp_path)
    assert os.pread(twin, 1 << 30, 0) == plain.read_bytes()
    assert os.fstat(twin).st_mtime_ns == target.stat().st_mtime_ns == 8
    for each in (fd, again, twin):
        os.close(each)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.gz"]


def test_of_a_damaged_one_there_is_what_can_be_read(tmp_path: Path) -> None:
    plain, target = tmp_path / "log", tmp_path / "log.gz"
    plain.write_bytes(lines(*range(200_000)))
    fd = os.open(plain, os.O_RDONLY)
    pack(fd, target)
    os.close(fd)
    whole = target.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[: len(whole) // 2] + b"\xff" * 1000, b"no gzip"):
        target.write_bytes(damaged)
        fd = os.open(target, os.O_RDONLY)
        twin = unpacked(fd, tmp_path)
        assert plain.read_bytes().startswith(os.pread(twin, 1 << 30, 0)[:1_000_000])
        os.close(fd)
        os.close(twin)
    fd = os.open(target, os.O_RDONLY)
    assert origin_of(fd) == ""
    os.close(fd)


def test_older_files_are_read_packed_or_not_and_numbered_on(log: Path) -> None:
    for first in (0, 10, 20):
        log.write_bytes(lines(*range(first, first + 10)))
        logs.rotate(log)
    log.write_bytes(lines(30))
    packed(log, log.with_name("container.log.3"))
    packed(log, log.with_name("container.log.1"))
    assert [path.name for path in logs.rotated(log)] == [
        "container.log.3.gz", "container.log.2", "container.log.1.gz", "container.log"
    ]  # fmt: skip
    assert logs.unpacked_files(log) == [log.with_name("container.log.2")]
    assert everything(logs.open_all(log)) == list(range(31))
    files = logs.open_all(log)
    logs.seek_tail(files, 3)
    assert everything(files) == [28, 29, 30]
    logs.rotate(log)
    log.write_bytes(lines(31))
    logs.trim(log, 2)
    assert [path.name for path in logs.rotated(log)] == ["container.log.2.gz", "container.log.1", "container.log"]


def test_a_reader_of_the_plain_file_finds_its_successor_when_that_was_packed(log: Path) -> None:
    log.write_bytes(lines(1))
    reader = LogFile(log)
    logs.rotate(log)
    log.write_bytes(lines(2))
    packed(log, log.with_name("container.log.1"))
    newer = reader.open_newer()
    assert newer is not None
    assert everything([reader, newer]) == [1, 2]


def test_a_file_that_is_rotated_or_removed_while_it_is_packed(log: Path) -> None:
    log.write_bytes(lines(1))
    logs.rotate(log)
    log.write_bytes(lines(2))
    packing = Packing(log, log.with_name("container.log.1"))
    packing.write()
    logs.rotate(log)
    log.write_bytes(lines(3))
    packing.replace()
    packing.close()
    assert [path.name for path in logs.rotated(log)] == ["container.log.2.gz", "container.log.1", "container.log"]
    gone = Packing(log, log.with_name("container.log.1"))
    gone.write()
    logs.trim(log, 0)
    gone.replace()
    gone.close()
    assert sorted(os.listdir(log.parent)) == ["container.log"]
