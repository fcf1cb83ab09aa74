"""Comparing directories, without mounts; mounts are in tests/e2e/test_overlay.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tare.base.errors import InvalidArgument
from tare.drivers.snapshots import ADDED, MODIFIED, Change
from tare.drivers.snapshots.overlay import OverlaySnapshotter, compare


def tree(root: Path, **files: str) -> Path:
    root.mkdir()
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, ns=(0, 0))
    return root


def test_directories_count_only_for_what_is_in_them(tmp_path: Path) -> None:
    low = tree(tmp_path / "low", a="1", d__x="1", d__y="1")
    mid = tree(tmp_path / "mid", d__y="22")
    up = tree(tmp_path / "up", d__y="333", e__z="1", a="1")
    assert compare(up, [mid, low]) == [
        Change("/d", MODIFIED),
        Change("/d/y", MODIFIED),
        Change("/e", ADDED),
        Change("/e/z", ADDED),
    ]


def test_an_untouched_copy_is_no_change(tmp_path: Path) -> None:
    low = tree(tmp_path / "low", d__x="1")
    up = tree(tmp_path / "up", d__x="1")
    assert compare(up, [low]) == []


def test_names_are_checked(tmp_path: Path) -> None:
    snapshots = OverlaySnapshotter(tmp_path)
    for name in ("init", "../x", "A" * 64, ""):
        with pytest.raises(InvalidArgument):
            snapshots.exists(name)
