"""Failpoints: nothing without the variable, once with a file, and each one documented."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tare.aio import failpoints

ROOT = Path(__file__).resolve().parents[3]
CALL = re.compile(r"failpoints\.(hit|passed)\(\s*\"([a-z.]+)\"")


def names_in_source() -> list[str]:
    found: list[str] = []
    for path in sorted((ROOT / "src" / "tare").rglob("*.py")):
        text = path.read_text()
        found += [name for _, name in CALL.findall(text)]
        if path.name != "failpoints.py":
            assert len(CALL.findall(text)) == len(re.findall(r"failpoints\.\w+\(", text)), f"{path}: names are literals"
    return found


def test_every_place_is_documented_and_has_a_name_of_its_own() -> None:
    section = (ROOT / "docs" / "reliability.md").read_text().partition("## Failpoints")[2].partition("\n## ")[0]
    documented = re.findall(r"`([a-z]+\.[a-z]+)`", section)
    assert sorted(documented) == sorted(names_in_source())
    assert len(set(documented)) == len(documented)


def test_nothing_happens_without_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.b").write_text("error")
    assert failpoints._directory == ""
    failpoints.hit("a.b")
    failpoints.passed("a.b")
    assert (tmp_path / "a.b").exists()


def test_an_error_is_the_one_the_step_would_raise_and_comes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoints, "_directory", str(tmp_path))
    failpoints.hit("a.b")
    (tmp_path / "a.b").write_text("error\n")
    with pytest.raises(OSError, match=r"failpoint a\.b") as caught:
        failpoints.hit("a.b")
    assert caught.value.errno == 5
    failpoints.hit("a.b")
    (tmp_path / "a.b").write_text("error")
    with pytest.raises(sqlite3.OperationalError):
        failpoints.hit("a.b", sqlite3.OperationalError)
    (tmp_path / "a.b").write_text("delay 0")
    failpoints.passed("a.b")
    assert not (tmp_path / "a.b").exists()


@pytest.mark.parametrize("words", ["error", "kil", ""])
def test_what_cannot_happen_at_a_place_is_refused(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_directory", str(tmp_path))
    (tmp_path / "a.b").write_text(words)
    with pytest.raises(ValueError, match="cannot happen there"):
        failpoints.passed("a.b")


def test_kill_is_a_kill(tmp_path: Path) -> None:
    (tmp_path / "a.b").write_text("kill")
    program = "from tare.aio import failpoints; failpoints.passed('a.b'); print('alive')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TARE_FAILPOINTS": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
    assert not (tmp_path / "a.b").exists()
