"""The overlay snapshotter, by the suite of its kind, with both ways of mounting."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from tare.drivers.snapshots import Snapshotter
from tare.drivers.snapshots.overlay import OverlaySnapshotter

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

_spec = importlib.util.spec_from_file_location(
    "suites_snapshotter", Path(__file__).parents[1] / "suites" / "snapshotter.py"
)
assert _spec is not None
assert _spec.loader is not None
_suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_suite)


class TestOverlay(_suite.SnapshotterSuite):  # type: ignore[name-defined,misc]
    @pytest.fixture(params=["lowerdir+", "mount(2)"])
    def snapshots(self, request: pytest.FixtureRequest, tmp_path: Path) -> Snapshotter:
        made = OverlaySnapshotter(tmp_path)
        if request.param == "mount(2)":
            made._lowerdir_each = False
        return made

    @pytest.fixture
    def area(self, tmp_path: Path) -> Path:
        (tmp_path / "area").mkdir()
        return tmp_path / "area"


def test_opaque_marks_and_their_changes(tmp_path: Path) -> None:
    snapshots = OverlaySnapshotter(tmp_path)
    base = _suite.commit(snapshots, tmp_path / "1", None, d__x="1", d__y="2")
    tree = snapshots.begin(tmp_path / "2", base)
    (tree / "d").mkdir()
    (tree / "d" / "y").write_text("new")
    snapshots.mark_opaque(tmp_path / "2", ["d"])
    top = _suite.random_id()
    assert snapshots.commit_from(tmp_path / "2", top, base)
    key = _suite.random_id()
    snapshots.prepare(key, top)
    with _suite.mounted(snapshots, key, tmp_path / "m") as root:
        assert os.listdir(root / "d") == ["y"]
