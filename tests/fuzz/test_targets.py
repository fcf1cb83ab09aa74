"""Each target for a moment, and everything that was ever found (tests/fuzz/found/TARGET-*) again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from engine import run, tried
from targets import TARGETS

FOUND = sorted((Path(__file__).parent / "found").glob("*"))


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_target_for_a_moment(name: str) -> None:
    count, found = run(name, seconds=0.3, seed=1)
    assert not found, f"{found[0].why}\n{found[0].data!r}"
    assert count > 5


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_was_found_is_mended(path: Path) -> None:
    finding = tried(path.name.rpartition("-")[0], path.read_bytes())
    assert finding is None, finding.why
