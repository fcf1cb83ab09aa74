"""What every snapshotter does. A test module per driver inherits `SnapshotterSuite` and gives `snapshots`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.base.ids import random_id
from tare.drivers.snapshots import ADDED, DELETED, MODIFIED, Change, Snapshotter


@contextmanager
def mounted(snapshots: Snapshotter, key: str, target: Path, *, readonly: bool = False) -> Iterator[Path]:
    target.mkdir(exist_ok=True)
    snapshots.mount(key, target, readonly=readonly)
    try:
        yield target
    finally:
        snapshots.unmount(target)


def commit(snapshots: Snapshotter, directory: Path, parent: str | None, **files: str) -> str:
    """A committed snapshot with these files (`__` for `/`)."""
    tree = snapshots.begin(directory, parent)
    for name, text in files.items():
        path = tree / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    name = random_id()
    assert snapshots.commit_from(directory, name, parent)
    return name


class SnapshotterSuite:
    """Inherit, and define the fixtures `snapshots` and `area` (a directory on the same file system)."""

    def test_layers_stack(self, snapshots: Snapshotter, area: Path) -> None:
        low = commit(snapshots, area / "1", None, a="low", b="low")
        top = commit(snapshots, area / "2", low, b="top")
        key = random_id()
        snapshots.prepare(key, top)
        with mounted(snapshots, key, area / "m") as root:
            assert ((root / "a").read_text(), (root / "b").read_text()) == ("low", "top")
            (root / "a").write_text("mine")
        assert snapshots.changes(key) == [Change("/a", MODIFIED)]
        other = random_id()
        snapshots.prepare(other, top)
        with mounted(snapshots, other, area / "m") as root:
            assert (root / "a").read_text() == "low"
        assert snapshots.usage(low).size_bytes == 6
        assert snapshots.usage(key).size_bytes == 4

    def test_what_is_mounted_read_only_stays_as_it_is(self, snapshots: Snapshotter, area: Path) -> None:
        key = random_id()
        snapshots.prepare(key, commit(snapshots, area / "1", None, a="1"))
        with mounted(snapshots, key, area / "m", readonly=True) as root, pytest.raises(OSError, match="Read-only"):
            (root / "a").write_text("2")

    def test_a_view_shows_a_committed_snapshot_and_nothing_else(self, snapshots: Snapshotter, area: Path) -> None:
        low = commit(snapshots, area / "1", None, a="low", b="low")
        top = commit(snapshots, area / "2", low, b="top")
        target = area / "m"
        target.mkdir()
        for name, shown in ((low, {"a": "low", "b": "low"}), (top, {"a": "low", "b": "top"})):
            snapshots.view(name, target)
            try:
                assert {path.name: path.read_text() for path in target.iterdir()} == shown
                with pytest.raises(OSError, match="Read-only file system"):
                    (target / "c").touch()
            finally:
                snapshots.unmount(target)
        with pytest.raises(NotFound):
            snapshots.view(random_id(), target)

    def test_what_was_prepared_can_be_made_durable(self, snapshots: Snapshotter) -> None:
        snapshots.prepare("a" * 64, None)
        assert all(path.exists() for path in snapshots.syncs("a" * 64))
        with pytest.raises(NotFound):
            snapshots.syncs("b" * 64)

    def test_the_init_layer_is_there_and_never_a_change(self, snapshots: Snapshotter, area: Path) -> None:
        key = random_id()
        base = commit(snapshots, area / "1", None, etc__passwd="root")
        os.symlink("/elsewhere", snapshots.upper(base) / "proc")
        snapshots.prepare(key, base)
        with mounted(snapshots, key, area / "m") as root:
            for name in ("dev/pts", "dev/shm", "proc", "sys", "etc"):
                assert (root / name).is_dir()
                assert not (root / name).is_symlink()
            assert (root / "etc/hosts").read_bytes() == b""
            assert (root / "etc/passwd").read_text() == "root"
            assert os.readlink(root / "etc/mtab") == "/proc/mounts"
        assert snapshots.changes(key) == []

    def test_changes(self, snapshots: Snapshotter, area: Path) -> None:
        base = commit(snapshots, area / "1", None, d__a="1", d__b="2", gone__x="3", same="4", mode="5", swap="6")
        key = random_id()
        snapshots.prepare(key, base)
        with mounted(snapshots, key, area / "m") as root:
            (root / "d/a").unlink()
            (root / "d/c/e").mkdir(parents=True)
            (root / "gone/x").unlink()
            (root / "gone").rmdir()
            (root / "mode").chmod(0o600)
            (root / "swap").unlink()
            (root / "swap").mkdir()
            (root / "tmp1").write_text("x")
            (root / "tmp1").unlink()
        assert snapshots.changes(key) == [
            Change("/d", MODIFIED),
            Change("/d/a", DELETED),
            Change("/d/c", ADDED),
            Change("/d/c/e", ADDED),
            Change("/gone", DELETED),
            Change("/mode", MODIFIED),
            Change("/swap", MODIFIED),
        ]

    def test_a_hundred_layers(self, snapshots: Snapshotter, area: Path) -> None:
        parent = None
        for number in range(100):
            parent = commit(snapshots, area / str(number), parent, **{f"f{number}": "x"})
        key = random_id()
        snapshots.prepare(key, parent)
        with mounted(snapshots, key, area / "m") as root:
            assert (root / "f0").exists()
            assert (root / "f99").exists()

    def test_names_are_taken_once(self, snapshots: Snapshotter, area: Path) -> None:
        base = commit(snapshots, area / "1", None, a="1")
        snapshots.begin(area / "2", None)
        assert not snapshots.commit_from(area / "2", base, None)
        key = random_id()
        snapshots.prepare(key, base)
        with pytest.raises(Conflict):
            snapshots.prepare(key, base)

    def test_remove_is_idempotent(self, snapshots: Snapshotter, area: Path) -> None:
        key = random_id()
        snapshots.prepare(key, None)
        snapshots.remove(key)
        snapshots.remove(key)
        assert not snapshots.exists(key)
        (area / "m").mkdir(exist_ok=True)
        snapshots.unmount(area / "m")

    def test_what_is_unknown(self, snapshots: Snapshotter, area: Path) -> None:
        with pytest.raises(NotFound):
            snapshots.prepare(random_id(), random_id())
        with pytest.raises(NotFound):
            snapshots.mount(random_id(), area)
        with pytest.raises(InvalidArgument):
            snapshots.remove("../x")

    def test_sweep(self, snapshots: Snapshotter, area: Path) -> None:
        base = commit(snapshots, area / "1", None, a="1")
        keys = [random_id(), random_id()]
        for key in keys:
            snapshots.prepare(key, base)
        assert snapshots.sweep({base, keys[0]}) == [keys[1]]
        assert snapshots.exists(keys[0])
        assert not snapshots.exists(keys[1])
