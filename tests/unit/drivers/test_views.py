"""Paths as clients write them, and what they find in a tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.base.errors import InvalidArgument, NotFound
from tare.drivers import views
from tare.drivers.views import View


@pytest.mark.parametrize(
    ("path", "absolute", "insists", "name"),
    [
        ("/etc", "/etc", False, "etc"),
        ("etc", "/etc", False, "etc"),
        ("/etc/", "/etc", True, "etc"),
        ("/etc/.", "/etc", True, "."),
        ("//etc//x", "/etc/x", False, "x"),
        ("/", "/", True, "/"),
        ("/.", "/", True, "."),
        ("/./", "/", True, "."),
        ("./", "/", True, "."),
        ("/etc/./", "/etc", True, "."),
        (".", "/", True, "."),
        ("/a/../b", "/b", False, "b"),
        ("../../etc", "/etc", False, "etc"),
        ("/a/..", "/", False, "/"),
    ],
)
def test_clean(path: str, absolute: str, insists: bool, name: str) -> None:
    assert views.clean(path) == (absolute, insists)
    assert views.shown_name(path) == name


def test_kernel_devices() -> None:
    text = (
        "22 1 0:20 / / rw,relatime - overlay overlay rw\n"
        "23 22 0:21 / /proc rw,nosuid shared:3 - proc proc rw\n"
        "24 22 0:22 / /dev rw - tmpfs tmpfs rw\n"
        "25 22 0:23 / /sys ro - sysfs sysfs rw\n"
    )
    assert views.kernel_devices(text) == {os.makedev(0, 21), os.makedev(0, 23)}


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("12345")
    (tmp_path / "up").symlink_to("../../../../d")
    (tmp_path / "host").symlink_to("/etc/hostname")
    (tmp_path / "loop").symlink_to("loop")
    opened = View(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))
    yield opened
    opened.close()


def look(view: View, path: str) -> tuple[str | None, str, int, str]:
    found = views.find(view, path)
    os.close(found.directory)
    return found.member, found.name, stat.S_IFMT(found.status.st_mode), found.link_target


def test_find(view: View) -> None:
    assert look(view, "/d/f") == ("f", "f", stat.S_IFREG, "")
    assert look(view, "/d") == (None, "d", stat.S_IFDIR, "")
    assert look(view, "/") == (None, "/", stat.S_IFDIR, "")
    assert look(view, "/up") == ("up", "up", stat.S_IFLNK, "/d")
    assert look(view, "/up/") == (None, "up", stat.S_IFDIR, "")
    assert look(view, "/up/f") == ("f", "f", stat.S_IFREG, "")
    assert look(view, "/host") == ("host", "host", stat.S_IFLNK, "/etc/hostname")
    for missing in ("/host/", "/nope", "/loop/", "/nope/x"):
        with pytest.raises(NotFound):
            look(view, missing)
    with pytest.raises(InvalidArgument, match="not a directory"):
        look(view, "/d/f/")


def test_what_shows_the_kernel_is_not_there(view: View) -> None:
    hidden = View(view.root, frozenset({os.fstat(view.root).st_dev}))
    for path in ("/d", "/d/f", "/"):
        with pytest.raises(NotFound):
            look(hidden, path)
    with pytest.raises(NotFound):
        views.open_target(hidden, "/d")


def test_open_target(view: View) -> None:
    for path in ("/d", "/up"):
        fd = views.open_target(view, path)
        assert os.listdir(fd) == ["f"]
        os.close(fd)
    with pytest.raises(InvalidArgument, match="extraction point is not a directory"):
        views.open_target(view, "/d/f")
    with pytest.raises(NotFound):
        views.open_target(view, "/host")
