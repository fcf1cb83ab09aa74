"""Logs: conmon's lines as Docker's frames, tails, times and rotation."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.containers import logs
from tare.containers.logs import LogFile, Wanted, nanos_of, translate

ALL = Wanted()
T0 = "2026-11-23T21:11:39.000000000+00:00"
AT0 = 1_795_468_299_000_000_000


def stamp(seconds: int, zone: str = "+00:00", nanos: int = 0) -> str:
    return f"2026-11-23T21:11:{seconds:02}.{nanos:09}{zone}"


def record(text: str, *, stream: str = "stdout", flag: str = "F", at: str = T0) -> bytes:
    return f"{at} {stream} {flag} {text}\n".encode()


def frames(data: bytes) -> list[tuple[int, bytes]]:
    out: list[tuple[int, bytes]] = []
    while data:
        stream, size = struct.unpack(">BxxxI", data[:8])
        out.append((stream, data[8 : 8 + size]))
        assert len(data) >= 8 + size
        data = data[8 + size :]
    return out


def merged(data: bytes) -> list[tuple[int, bytes]]:
    """Frames with neighbours of one stream put together."""
    out: list[tuple[int, bytes]] = []
    for stream, text in frames(data):
        if out and out[-1][0] == stream:
            out[-1] = (stream, out[-1][1] + text)
        else:
            out.append((stream, text))
    return out


# --- times


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        (T0, AT0),
        ("2026-11-23T21:11:39.000000001+00:00", AT0 + 1),
        ("2026-11-23T21:11:39.5Z", AT0 + 500_000_000),
        ("2026-11-23T23:11:39.000000000+02:00", AT0),
        ("2026-11-24T02:41:39.000000000+05:30", AT0),
        ("2026-11-23T11:41:39.000000000-09:30", AT0),
        ("2026-11-23T21:11:39.1234567891+00:00", AT0 + 123_456_789),
        ("2026-11-23T21:11:39+00:00", 0),
        ("2026-11-23T21:11:39.5", 0),
    ],
)
def test_nanos_of(text: str, nanos: int) -> None:
    assert nanos_of(text.encode()) == nanos


@pytest.mark.parametrize("at", [T0, "2026-11-23T23:11:39.000000000+02:00", "2026-11-23T11:41:39.000000000-09:30"])
def test_stamps_are_utc_with_nine_digits(at: str) -> None:
    out, _ = translate(record("x", at=at), Wanted(timestamps=True))
    assert frames(out) == [(1, b"2026-11-23T21:11:39.000000000Z x\n")]


# --- translation


def test_each_record_is_a_frame_of_its_own() -> None:
    block = record("a") + record("b") + record("e", stream="stderr") + record("f", stream="stderr") + record("c")
    assert frames(translate(block, ALL)[0]) == [
        (1, b"a\n"), (1, b"b\n"), (2, b"e\n"), (2, b"f\n"), (1, b"c\n"),
    ]  # fmt: skip


def test_only_stdout_in_bulk() -> None:
    block = b"".join(record(str(number)) for number in range(1000))
    assert merged(translate(block, ALL)[0]) == [(1, "".join(f"{number}\n" for number in range(1000)).encode())]
    assert translate(block, Wanted(stdout=False)) == (b"", False)


def test_partial_records_are_one_line() -> None:
    block = record("one ", flag="P") + record("two ", flag="P") + record("three") + record("next")
    assert merged(translate(block, ALL)[0]) == [(1, b"one two three\nnext\n")]


def test_partial_records_of_both_streams_between_each_other() -> None:
    block = record("a", flag="P") + record("x", flag="P", stream="stderr") + record("b") + record("y", stream="stderr")
    out = frames(translate(block, ALL)[0])
    assert b"".join(data for stream, data in out if stream == 1) == b"ab\n"
    assert b"".join(data for stream, data in out if stream == 2) == b"xy\n"


def test_an_unfinished_last_line_has_no_newline() -> None:
    assert frames(translate(record("$ ", flag="P"), ALL)[0]) == [(1, b"$ ")]


@pytest.mark.parametrize(("wanted", "out"), [(Wanted(stderr=False), b"a\nb\n"), (Wanted(stdout=False), b"e\n")])
def test_one_stream(wanted: Wanted, out: bytes) -> None:
    block = record("a") + record("e", stream="stderr") + record("b")
    assert b"".join(data for _, data in frames(translate(block, wanted)[0])) == out


def test_a_terminal_has_no_frames() -> None:
    block = record("a") + record("b")
    assert translate(block, Wanted(has_tty=True)) == (b"a\nb\n", False)
    assert translate(block, Wanted(has_tty=True, timestamps=True))[0].startswith(b"2026-11-23T21:11:39.000000000Z a\n")


def test_bytes_are_not_touched() -> None:
    raw = bytes(range(256)).replace(b"\n", b"")
    block = f"{T0} stdout F ".encode() + raw + b"\n"
    for wanted in (ALL, Wanted(since=1)):
        assert frames(translate(block, wanted)[0]) == [(1, raw + b"\n")]


def test_empty_lines_stay() -> None:
    assert frames(translate(record("") + record("") + record("x"), ALL)[0]) == [(1, b"\n"), (1, b"\n"), (1, b"x\n")]


def test_what_is_no_record_is_left_out() -> None:
    block = record("a") + b"garbage\n\n" + record("b")
    for wanted in (ALL, Wanted(since=1)):
        assert b"".join(data for _, data in frames(translate(block, wanted)[0])) == b"a\nb\n"


def test_nothing() -> None:
    assert translate(b"", ALL)[0] == b""
    assert translate(b"", Wanted(since=1)) == (b"", False)


def test_details_come_after_the_time() -> None:
    out, _ = translate(record("x"), Wanted(timestamps=True, details=b"a=1,b=2 "))
    assert frames(out) == [(1, b"2026-11-23T21:11:39.000000000Z a=1,b=2 x\n")]


def test_since_and_until_include_their_moment() -> None:
    block = b"".join(record(str(second), at=stamp(second)) for second in range(10, 20))
    start = AT0 - 29 * 1_000_000_000  # second 10
    out, is_past = translate(block, Wanted(since=start + 2_000_000_000, until=start + 4_000_000_000))
    assert b"".join(data for _, data in frames(out)) == b"12\n13\n14\n"
    assert is_past
    assert translate(block, Wanted(since=start))[1] is False


# --- tails


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "container.log"
    path.touch()
    yield path
    assert not [fd for fd in os.listdir("/proc/self/fd") if opened(fd) == str(path)], "a descriptor was left open"


def opened(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


def tail(path: Path, lines: int, wanted: Wanted = ALL) -> bytes:
    file = LogFile(path)
    try:
        file.seek_tail(lines)
        out = b""
        while piece := file.next_piece(wanted):
            out += piece
    finally:
        file.close()
    return b"".join(data for _, data in frames(out))


@pytest.mark.parametrize(
    ("lines", "out"), [(0, b""), (-1, b""), (1, b"c\n"), (2, b"b\nc\n"), (3, b"a\nb\nc\n"), (9, b"a\nb\nc\n")]
)
def test_tail(log: Path, lines: int, out: bytes) -> None:
    log.write_bytes(record("a") + record("b") + record("c"))
    assert tail(log, lines) == out


def test_tail_of_nothing(log: Path) -> None:
    assert tail(log, 5) == b""


def test_a_line_of_many_records_counts_once(log: Path) -> None:
    long = record("x" * 100, flag="P") * 50 + record("end")
    log.write_bytes(record("first") + long + record("last"))
    assert tail(log, 1) == b"last\n"
    assert tail(log, 2) == b"x" * 5000 + b"end\nlast\n"
    assert tail(log, 3) == b"first\n" + b"x" * 5000 + b"end\nlast\n"


def test_an_unfinished_line_counts(log: Path) -> None:
    log.write_bytes(record("a") + record("b") + record("$ ", flag="P"))
    assert tail(log, 1) == b"$ "
    assert tail(log, 2) == b"b\n$ "


def test_a_tail_that_begins_far_back(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever size the pieces have in which the file is read backwards."""
    block = b"".join(
        record(f"{number:03}", flag="P" if number % 3 else "F", stream=("stdout", "stderr")[number % 2])
        for number in range(300)
    ) + record("out") + record("err", stream="stderr")  # fmt: skip
    log.write_bytes(block)
    expected = {lines: tail(log, lines) for lines in range(1, 110)}
    for piece in (50, 64, 200, 1000):
        monkeypatch.setattr(logs, "PIECE_BYTES", piece)
        for lines in range(1, 110, 7):
            fd = os.open(log, os.O_RDONLY)
            start = logs.offset_of_tail(fd, lines, len(block))
            os.close(fd)
            assert b"".join(data for _, data in frames(translate(block[start:], ALL)[0])) == expected[lines], (
                piece,
                lines,
            )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (1, b"z\n"),
        (2, b"cut here\nz\n"),
        (3, b"b\ncut here\nz\n"),
        (4, b"a\nb\ncut here\nz\n"),
        (9, b"a\nb\ncut here\nz\n"),
    ],
)
def test_a_line_cut_by_the_border_of_files_counts_once(log: Path, lines: int, expected: bytes) -> None:
    log.with_name("container.log.1").write_bytes(record("a") + record("b") + record("cut ", flag="P"))
    log.write_bytes(record("he", flag="P") + record("re") + record("z"))
    files = logs.open_all(log)
    logs.seek_tail(files, lines)
    assert read_all(files) == expected


# --- reading on


def test_a_record_that_is_still_being_written_waits(log: Path) -> None:
    log.write_bytes(record("a") + record("b")[:20])
    file = LogFile(log)
    assert frames(file.next_piece(ALL)) == [(1, b"a\n")]
    assert file.next_piece(ALL) == b""
    with log.open("ab") as more:
        more.write(record("b")[20:])
    assert frames(file.next_piece(ALL)) == [(1, b"b\n")]
    file.close()


def test_what_nobody_wants_is_skipped_to_the_end(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PIECE_BYTES", 100)
    log.write_bytes(record("a") * 50 + record("e", stream="stderr"))
    file = LogFile(log)
    assert frames(file.next_piece(Wanted(stdout=False))) == [(2, b"e\n")]
    file.close()


def test_past_until_nothing_more_is_read(log: Path) -> None:
    log.write_bytes(record("a", at=stamp(10)) + record("b", at=stamp(50)) + record("c", at=stamp(10)))
    file = LogFile(log)
    assert frames(file.next_piece(Wanted(until=AT0))) == [(1, b"a\n")]
    assert file.is_past_until
    assert file.next_piece(Wanted(until=AT0)) == b""
    file.close()


def read_all(files: list[LogFile]) -> bytes:
    out = b""
    for file in files:
        while piece := file.next_piece(ALL):
            out += b"".join(data for _, data in frames(piece))
        file.close()
    return out


def test_a_rotated_log_is_read_to_its_end_first(log: Path) -> None:
    log.write_bytes(record("old"))
    file = LogFile(log)
    assert file.open_newer() is None
    logs.rotate(log)
    assert file.open_newer() is None, "the new one is not there yet"
    with log.with_name("container.log.1").open("ab") as late:
        late.write(record("late"))
    log.write_bytes(record("new"))
    newer = file.open_newer()
    assert newer is not None
    assert frames(file.next_piece(ALL)) == [(1, b"old\n"), (1, b"late\n")]
    file.close()
    assert read_all([newer]) == b"new\n"


def test_the_newest_file_gets_its_first_line_while_it_is_looked_for(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is known by its first time stamp, which an empty one has not got yet."""
    log.write_bytes(record("old"))
    logs.rotate(log)
    log.touch()
    file, real = LogFile(log), logs.identity_of

    def identity_of(fd: int) -> str:
        found = real(fd)
        if os.fstat(fd).st_size == 0:
            log.write_bytes(record("first"))
        return found

    monkeypatch.setattr(logs, "identity_of", identity_of)
    assert file.open_newer() is None, "it is the newest"
    file.close()


def test_a_reader_finds_the_next_file_after_several_rotations(log: Path) -> None:
    log.write_bytes(record("1"))
    file = LogFile(log)
    for text in ("2", "3", "4"):
        logs.rotate(log)
        log.write_bytes(record(text))
    second = file.open_newer()
    assert second is not None
    logs.trim(log, 1)
    assert [path.name for path in logs.rotated(log)] == ["container.log.1", "container.log"]
    after_a_gap = second.open_newer()
    assert after_a_gap is not None
    assert read_all([file, second, after_a_gap]) == b"1\n2\n3\n"


def write_rotated(log: Path, *texts: str) -> None:
    for index, text in enumerate(texts):
        if index:
            logs.rotate(log)
        log.write_bytes(b"".join(record(line) for line in text))


def test_all_files_oldest_first(log: Path) -> None:
    write_rotated(log, "ab", "cd", "ef")
    (log.parent / "container.log.tmp").touch()
    assert [path.name for path in logs.rotated(log)] == ["container.log.2", "container.log.1", "container.log"]
    assert read_all(logs.open_all(log)) == b"a\nb\nc\nd\ne\nf\n"


@pytest.mark.parametrize(
    ("lines", "out"),
    [(0, ""), (1, "f"), (2, "ef"), (3, "def"), (4, "cdef"), (5, "bcdef"), (6, "abcdef"), (9, "abcdef")],
)
def test_a_tail_over_the_borders_of_files(log: Path, lines: int, out: str) -> None:
    write_rotated(log, "ab", "cd", "ef")
    files = logs.open_all(log)
    logs.seek_tail(files, lines)
    assert read_all(files) == "".join(f"{line}\n" for line in out).encode()


def test_files_older_than_since_are_not_opened(log: Path) -> None:
    write_rotated(log, "ab", "cd", "ef")
    for number, path in enumerate(logs.rotated(log), 1):
        os.utime(path, ns=(number, number))
    assert read_all(logs.open_all(log, since=2)) == b"c\nd\ne\nf\n"
    assert read_all(logs.open_all(log, since=99)) == b"e\nf\n"


def test_while_the_current_file_is_being_reopened(log: Path) -> None:
    write_rotated(log, "a", "b")
    logs.rotate(log)
    assert read_all(logs.open_all(log)) == b"a\nb\n"
    log.touch()


def test_an_end_is_kept_whatever_is_written_later(log: Path) -> None:
    log.write_bytes(record("a") + record("b"))
    file = LogFile(log)
    file.end_here()
    with log.open("ab") as more:
        more.write(record("c"))
    assert file.seek_tail(1) == 1
    assert read_all([file]) == b"b\n"


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogFile(tmp_path / "nothing")
    assert logs.open_all(tmp_path / "nothing") == []
    assert logs.open_all(tmp_path / "no" / "thing") == []
