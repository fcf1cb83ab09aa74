"""Trees: bytes counted once, removal without complaint."""

from __future__ import annotations

import os
from pathlib import Path

from tare.drivers import trees


def test_usage_counts_each_file_once_and_follows_nothing(tmp_path: Path) -> None:
    (tmp_path / "t/sub").mkdir(parents=True)
    (tmp_path / "t/a").write_bytes(b"x" * 1000)
    os.link(tmp_path / "t/a", tmp_path / "t/sub/again")
    (tmp_path / "t/sub/b").write_bytes(b"y" * 24)
    (tmp_path / "big").write_bytes(b"z" * 5000)
    os.symlink(tmp_path / "big", tmp_path / "t/link")
    assert trees.usage(tmp_path / "t") == 1024
    assert trees.usage(tmp_path / "none") == 0


def test_discard_is_idempotent(tmp_path: Path) -> None:
    (tmp_path / "t/sub").mkdir(parents=True)
    trees.discard(tmp_path / "t")
    trees.discard(tmp_path / "t")
    assert not (tmp_path / "t").exists()
