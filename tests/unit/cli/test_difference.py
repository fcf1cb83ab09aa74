from __future__ import annotations

from typing import Any

import pytest

from tare.cli.difference import Totals, line, names

FILE = {"Mode": 0o644, "Uid": 0, "Gid": 0, "Size": 1500, "Modified": 0}
SMALL = FILE | {"Size": 3, "Mode": 0o755 | 1 << 23, "Uid": 7}
DIRECTORY = FILE | {"Mode": 1 << 31 | 0o755, "Size": 0}
LINK = FILE | {"Mode": 1 << 27 | 0o777, "Size": 0, "Target": "/x"}


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"Kind": 1, "New": FILE}, "A /p  +1.5kB"),
        ({"Kind": 1, "New": LINK}, "A /p  → /x"),
        ({"Kind": 2, "Old": FILE}, "D /p  -1.5kB"),
        ({"Kind": 2, "Old": DIRECTORY}, "D /p/"),
        (
            {"Kind": 0, "Old": FILE, "New": SMALL, "What": ["content", "mode", "owner", "time"]},
            "C /p  1.5kB → 3B, mode 0644 → 4755, owner 0:0 → 7:0",
        ),
        ({"Kind": 0, "Old": FILE, "New": LINK, "What": ["kind"]}, "C /p  file → link"),
        ({"Kind": 0, "Old": LINK, "New": LINK | {"Target": "y\x1b"}, "What": ["target"]}, "C /p  /x → y\\x1b"),
        ({"Kind": 0, "Old": DIRECTORY, "New": DIRECTORY, "What": ["time"]}, "C /p/  time"),
        ({"Kind": 0, "Old": FILE, "New": FILE, "What": ["xattrs"]}, "C /p  xattrs"),
    ],
)
def test_a_line(found: dict[str, Any], text: str) -> None:
    assert line(found, "/p") == text


def test_totals() -> None:
    totals = Totals()
    for found in ({"Kind": 1, "New": FILE}, {"Kind": 2, "Old": DIRECTORY}, {"Kind": 0, "Old": FILE, "New": SMALL}):
        totals.add(found)
    assert str(totals) == "1 added, 1 changed, 1 deleted; +1.5kB -1.497kB"


def test_names() -> None:
    assert names(["web"]) == ("web@-1", "web", [])
    assert names(["host:5/a@sha256:b"])[0] == "host:5/a@sha256:b@-1"
    assert names(["a@1", "b", "/etc"]) == ("a@1", "b", ["/etc"])
    for wrong in (["a@2"], ["a", "b", "etc"]):
        with pytest.raises(ValueError, match=r"file systems|begins with /"):
            names(wrong)


def test_the_command(engine: Any, tare: Any) -> None:
    engine.answers["GET /tare/v1/diff"] = (200, b'{"Path":"/a","Kind":1,"New":null}\n{"Path":"/b","Kind":2}\n')
    assert tare("diff", "x:1", "y@2", "--", "/etc", "/a b") == (0, "A /a\nD /b\n", "")
    assert engine.requests[-1][1] == "/tare/v1/diff?from=x%3A1&path=%2Fetc&path=%2Fa%20b&to=y%402"
    assert tare("diff", "--stat", "c") == (0, "1 added, 0 changed, 1 deleted; +0B -0B\n", "")
    assert "from=c%40-1&to=c" in engine.requests[-1][1]
    code, out, _ = tare("diff", "--format", "json", "a", "b")
    assert (code, out.count("\n")) == (0, 2)
    engine.answers["GET /tare/v1/diff"] = (200, b"diff --git\n\xff")
    tare("diff", "-p", "a", "b")
    assert "patch=1&" in engine.requests[-1][1]
    assert tare("diff", "-p", "--stat", "a", "b")[0] == 1
    assert tare("diff", "--format", "x", "a")[0] == 1
    assert tare("diff", "a", "b", "etc")[2] == "a path inside of an image begins with /: etc\n"
