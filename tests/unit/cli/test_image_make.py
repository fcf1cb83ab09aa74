from __future__ import annotations

from pathlib import Path
from typing import Any


def test_commit(engine: Any, tare: Any) -> None:
    engine.answers["POST /commit"] = (201, {"Id": "sha256:1"})
    assert tare("commit", "-m", "m", "-p=false", "-c", "CMD x", "-c", "USER y", "web", "a/b:2") == (0, "sha256:1\n", "")
    assert engine.requests[-1][1] == (
        "/commit?changes=CMD%20x&changes=USER%20y&comment=m&container=web&pause=0&repo=a%2Fb&tag=2"
    )


def test_import_sends_the_file(engine: Any, tare: Any, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"tar")
    engine.answers["POST /images/create"] = (200, {"status": "sha256:1"})
    assert tare("import", str(tmp_path / "x.tar"), "a:b") == (0, "sha256:1\n", "")
    assert engine.requests[-1] == ("POST", "/images/create?fromSrc=-&repo=a&tag=b", b"tar")


def test_an_error_in_the_stream_fails(engine: Any, tare: Any) -> None:
    engine.answers["POST /images/create"] = (200, {"errorDetail": {"message": "bad tar"}, "error": "bad tar"})
    assert tare("import", "http://x/y.tar") == (1, "", "bad tar\n")


def test_tag_and_rmi(engine: Any, tare: Any) -> None:
    engine.answers["POST /images/a:1/tag"] = (201, b"")
    assert tare("tag", "a:1", "r:5/b") == (0, "", "")
    assert engine.requests[-1][1] == "/images/a:1/tag?repo=r%3A5%2Fb&tag=latest"
    engine.answers["DELETE /images/a"] = (200, [{"Untagged": "a:latest"}, {"Deleted": "sha256:1"}])
    assert tare("rmi", "a", "gone") == (
        1,
        "Untagged: a:latest\nDeleted: sha256:1\n",
        "Error response from daemon: page not found: /images/gone\n",
    )


def test_a_file_that_is_not_there(tare: Any) -> None:
    assert tare("import", "/nosuch") == (1, "", "open /nosuch: no such file or directory\n")
