from __future__ import annotations

from pathlib import Path
from typing import Any


def test_pull(engine: Any, tare: Any) -> None:
    engine.answers["POST /images/create"] = (200, {"status": "Status: done"})
    assert tare("pull", "a") == (0, "Using default tag: latest\nStatus: done\ndocker.io/library/a:latest\n", "")
    assert engine.requests[-1][1] == "/images/create?fromImage=docker.io%2Flibrary%2Fa&tag=latest"
    assert tare("pull", "-q", "h:5/a:1") == (0, "h:5/a:1\n", "")


def test_save_writes_whole_files_only(engine: Any, tare: Any, tmp_path: Path) -> None:
    engine.answers["GET /images/get"] = (200, b"archive")
    assert tare("save", "-o", str(tmp_path / "x.tar"), "a", "b") == (0, "", "")
    assert (tmp_path / "x.tar").read_bytes() == b"archive"
    assert engine.requests[-1][1] == "/images/get?names=a&names=b"
    assert tare("save", "a") == (0, "archive", "")
    assert tare("save", "-o", "/nosuch/x", "a")[0] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.sock", "x.tar"]


def test_load(engine: Any, tare: Any, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"tar")
    engine.answers["POST /images/load"] = (200, {"stream": "Loaded image: a:1\n"})
    assert tare("load", "-i", str(tmp_path / "x.tar")) == (0, "Loaded image: a:1\n", "")
    assert engine.requests[-1] == ("POST", "/images/load?quiet=1", b"tar")


def test_push_and_search(engine: Any, tare: Any) -> None:
    engine.answers["POST /images/h:5/a/push"] = (200, {"errorDetail": {"message": "denied"}})
    assert tare("push", "h:5/a:1") == (1, "", "denied\n")
    engine.answers["GET /images/search"] = (200, [{"name": "n", "description": "d\ne", "star_count": 3}])
    assert tare("search", "x")[1].splitlines()[1].split() == ["n", "d", "e", "3"]


def test_tags_of_a_repository(engine: Any, tare: Any) -> None:
    engine.answers["GET /tare/v1/tags/h:5/a/b"] = (200, {"Name": "h:5/a/b", "Tags": ["1", "2"]})
    assert tare("image", "tags", "h:5/a/b")[:2] == (0, "1\n2\n")
