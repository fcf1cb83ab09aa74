"""Trees: bytes counted once, removal without complaint, links never followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tare.drivers import trees


def test_discard_is_idempotent(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").write_text("x")
    trees.discard(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    trees.discard(tmp_path / "a")


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "outside")
    trees.discard(tmp_path / "a")
    assert (tmp_path / "outside" / "kept").exists()


def test_what_cannot_be_removed_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        trees.discard(tmp_path / "file")


def test_usage_counts_each_file_once_and_follows_nothing(tmp_path: Path) -> None:
    (tmp_path / "t/sub").mkdir(parents=True)
    (tmp_path / "t/a").write_bytes(b"x" * 1000)
    os.link(tmp_path / "t/a", tmp_path / "t/sub/again")
    (tmp_path / "t/sub/b").write_bytes(b"y" * 24)
    (tmp_path / "big").write_bytes(b"z" * 5000)
    os.symlink(tmp_path / "big", tmp_path / "t/link")
    assert trees.usage(tmp_path / "t") == 1024
    assert trees.usage(tmp_path / "none") == 0


def test_spreading_is_asked_of_ext4_and_harmless_elsewhere(tmp_path: Path) -> None:
    trees.spread(tmp_path)
    trees.spread(tmp_path)
    trees.spread(Path("/dev/shm"))
    with pytest.raises(NotADirectoryError):
        trees.spread(Path("/dev/null"))
