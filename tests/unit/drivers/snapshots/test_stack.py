"""Looking into a pile of directories: links, what hides what. Whiteouts need root: tests/e2e/test_build.py builds on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tare.base.errors import InvalidArgument
from tare.drivers.snapshots.stack import Stack


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    low, high = tmp_path / "low", tmp_path / "high"
    for place in (low / "usr/lib", low / "etc", low / "was", high / "usr", high / "new"):
        place.mkdir(parents=True)
    (low / "usr/lib/x").write_text("low")
    (low / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (low / "lib").symlink_to("usr/lib")
    (low / "was/file").write_text("gone")
    (high / "usr/y").write_text("high")
    (high / "was.txt").symlink_to("/../../new/../etc/passwd")
    (high / "loop").symlink_to("loop")
    (high / "nowhere").symlink_to("lib/none")
    (high / "etc").mkdir()
    (high / "etc/group").write_text("g")
    return Stack([high, low])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", "/"),
        ("/lib/x", "/usr/lib/x"),
        ("lib/../y", "/usr/y"),
        ("/was.txt", "/etc/passwd"),
        ("/../..//usr", "/usr"),
        ("/nothing", None),
        ("/usr/y/z", None),
    ],
)
def test_links_lead_inside(stack: Stack, path: str, found: str | None) -> None:
    place = stack.look(path)
    assert (place.path if place else None) == found


@pytest.mark.parametrize(
    ("path", "lead"),
    [
        ("/", "/"),
        ("/lib/x", "/usr/lib/x"),
        ("/none/at/all", "/none/at/all"),
        ("/nowhere", "/usr/lib/none"),
        ("/nowhere/a/../b", "/usr/lib/none/b"),
        ("/lib/none", "/usr/lib/none"),
        ("/usr/y/z", "/usr/y/z"),
    ],
)
def test_where_links_lead_though_nothing_is_there(stack: Stack, path: str, lead: str) -> None:
    assert stack.lead(path) == lead


def test_a_loop_of_links_is_refused_and_holds_no_file(stack: Stack) -> None:
    for path in ("/loop", "/loop/x"):
        with pytest.raises(InvalidArgument, match=f"too many links in {path}"):
            stack.look(path)
        with pytest.raises(InvalidArgument, match="too many links"):
            stack.lead(path)
        assert stack.read(path, limit=10) is None


def test_a_file_above_hides_the_directory_below(tmp_path: Path) -> None:
    (tmp_path / "low/d").mkdir(parents=True)
    (tmp_path / "low/d/f").write_text("x")
    (tmp_path / "high").mkdir()
    (tmp_path / "high/d").write_text("file")
    stack = Stack([tmp_path / "high", tmp_path / "low"])
    assert stack.look("/d/f") is None
    assert stack.read("/d", limit=10) == b"file"


def test_reading_is_bounded(stack: Stack) -> None:
    assert stack.read("/etc/passwd", limit=100) == b"root:x:0:0::/:/bin/sh\n"
    assert stack.read("/etc/passwd", limit=3) is None
    assert stack.read("/etc", limit=100) is None
    assert Stack(()).look("/") is None
