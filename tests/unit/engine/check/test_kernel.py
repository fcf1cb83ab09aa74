"""Where the kernel's own words are read."""

from __future__ import annotations

from pathlib import Path

from tare.engine.check.kernel import below, mount_points

LINE = "36 35 0:70 / {} rw,relatime shared:1 - overlay overlay rw"


def test_mounts_below_the_roots_are_named_from_there(tmp_path: Path) -> None:
    run = tmp_path / "a b" / "run"
    places = [f"{run}/containers/x1/rootfs", f"{run}", f"{run}s/x", f"{tmp_path}/data/volumes/v/_data", "/"]
    text = "\n".join(LINE.format(place.replace(" ", "\\040")) for place in places)
    assert mount_points(text) == set(places)
    assert below(mount_points(text), data=tmp_path / "data", run=run) == {
        "run/containers/x1/rootfs",
        "data/volumes/v/_data",
    }


def test_a_root_behind_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to("disk")
    assert below([f"{tmp_path}/disk/images/k"], data=tmp_path / "data", run=tmp_path / "run") == {"run/images/k"}
