"""The log of a run is bounded, and keeps its beginning and its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tare.engine.autobuilds.log import CUT, RunLog


def written(path: Path, *texts: str, limit: int, tail: int) -> str:
    log = RunLog(path, limit=limit, tail=tail)
    for text in texts:
        log.write(text)
    log.close()
    log.close()
    found = path.read_text()
    assert log.size == len(found.encode())
    return found


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ((), ""),
        (("abc", "def"), "abcdef"),
        (("abcdefghij",), "abcdefghij"),
        (("abcdefgh", "ijkl"), "abcdefghijkl"),
        (("abcdefgh", "ijklmn", "opqr"), "abcdefghij" + CUT.format(4) + "opqr"),
        (("a" * 10 + "b" * 100 + "cdef",), "a" * 10 + CUT.format(100) + "cdef"),
        (("0123456789", *"abcdefg"), "0123456789" + CUT.format(3) + "defg"),
    ],
)
def test_what_stays(tmp_path: Path, texts: tuple[str, ...], found: str) -> None:
    assert written(tmp_path / "log", *texts, limit=10, tail=4) == found


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    written(tmp_path / "log", "x", limit=10, tail=4)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
