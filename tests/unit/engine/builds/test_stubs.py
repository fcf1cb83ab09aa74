"""Places of mounts: which have to be made, and which of them are taken away again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tare.engine.builds import stubs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "var/lib").mkdir(parents=True)
    (root / "run").mkdir()
    (root / "etc").mkdir()
    (root / "etc/conf").touch()
    os.symlink("/run", root / "var/run")
    os.symlink("../../../../..", root / "out")
    os.symlink("nowhere", root / "broken")
    return root


@pytest.mark.parametrize(
    ("targets", "paths"),
    [
        (["/var/lib", "/", "/etc/conf"], []),
        (["/cache"], ["cache"]),
        (["/var/lib/a/b"], ["var/lib/a/b", "var/lib/a"]),
        (["/var/run/x/y"], ["run/x/y", "run/x"]),
        (["/out/var/new"], ["var/new"]),
        (["/c/d", "/c/e"], ["c/d", "c/e", "c"]),
    ],
)
def test_what_has_to_be_made(root: Path, targets: list[str], paths: list[str]) -> None:
    assert stubs.missing(root, targets) == paths


def test_what_is_empty_goes_and_its_parent_keeps_its_time(root: Path) -> None:
    paths = ["made/deep", "made", "file", "var/used", "run/written", "run/gone/x", "var/link"]
    (root / "made/deep").mkdir(parents=True)
    (root / "file").touch()
    (root / "var/used").mkdir()
    (root / "var/used/kept").touch()
    (root / "run/written").write_text("text")
    os.symlink("/etc/conf", root / "var/link")
    os.utime(root, ns=(5, 7))
    stubs.remove(root, paths)
    assert not (root / "made").exists()
    assert not (root / "file").exists()
    assert (root / "var/used/kept").exists()
    assert (root / "run/written").read_text() == "text"
    assert (root / "var/link").is_symlink()
    assert (root / "etc/conf").exists()
    assert root.stat().st_mtime_ns == 7


def test_a_parent_that_the_step_replaced_by_a_link_leads_nowhere_else(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere/stub").mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere", root / "swapped")
    stubs.remove(root, ["swapped/stub"])
    assert (tmp_path / "elsewhere/stub").exists()
