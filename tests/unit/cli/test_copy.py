from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tare.cli import copy


def archive(*entries: tuple[str, bytes | None, str]) -> bytes:
    """Entries of (name, content or None for a directory, link target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content, link in entries:
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755 if content is None else 0o640
            entry.type = tarfile.SYMTYPE if link else tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.linkname, entry.size = link, len(content or b"")
            tar.addfile(entry, io.BytesIO(content or b""))
    return out.getvalue()


class Pieces:
    def __init__(self, data: bytes) -> None:
        self._data = [data]

    def read(self) -> bytes:
        return self._data.pop() if self._data else b""


def unpack(data: bytes, target: Path) -> None:
    copy.unpack(copy._Counting(Pieces(data)), str(target), keep_owner=False)  # type: ignore[arg-type]


def test_a_tree_takes_the_name_of_its_target(tmp_path: Path) -> None:
    unpack(archive(("d", None, ""), ("d/f", b"x", ""), ("d/l", b"", "f")), tmp_path / "new")
    assert (tmp_path / "new/f").read_bytes() == b"x"
    assert (tmp_path / "new/l").readlink() == Path("f")
    assert (tmp_path / "new/f").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "entries",
    [
        [("d", None, ""), ("d/../../x", b"x", "")],
        [("d", None, ""), ("e/x", b"x", "")],
        [("d", None, ""), ("d/l", b"", "/tmp"), ("d/l/x", b"x", "")],
    ],
)
def test_nothing_leads_out(tmp_path: Path, entries: list[tuple[str, bytes | None, str]]) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises((ValueError, OSError)):
        unpack(archive(*entries), tmp_path / "in" / "d")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("argument", "parts"),
    [("c:/x", ("c", "/x")), ("/a:b", ("", "/a:b")), ("./a:b", ("", "./a:b")), ("a", ("", "a")), ("c:", ("c", ""))],
)
def test_split_argument(argument: str, parts: tuple[str, str]) -> None:
    assert copy.split_argument(argument) == parts


def test_where_things_go(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()

    def target(path: str, *, is_directory: bool, content_only: bool = False) -> str:
        return copy.local_target(f"{tmp_path}/{path}", "n", is_directory=is_directory, content_only=content_only)

    assert target("dir", is_directory=False) == f"{tmp_path}/dir/n"
    assert target("dir", is_directory=True, content_only=True) == f"{tmp_path}/dir"
    assert target("new", is_directory=True) == f"{tmp_path}/new"
    for path, is_directory in (("file", True), ("new/", False), ("no/such", False)):
        with pytest.raises(ValueError):
            target(path, is_directory=is_directory)


def test_copying_out(engine: Any, tare: Any, tmp_path: Path) -> None:
    info = json.dumps({"name": "f", "mode": 0o644})
    engine.headers["X-Docker-Container-Path-Stat"] = base64.b64encode(info.encode()).decode()
    engine.answers["GET /containers/c/archive"] = (200, archive(("f", b"x", "")))
    assert tare("cp", "c:/f", str(tmp_path / "got"))[0] == 0
    assert (tmp_path / "got").read_bytes() == b"x"
    assert tare("cp", "a", "b")[2] == "must specify at least one container source\n"


def test_remote_stat() -> None:
    header = base64.b64encode(json.dumps({"name": "x", "mode": 1}).encode()).decode()
    assert copy.remote_stat(header) == {"name": "x", "mode": 1}


def test_many_sources_need_a_directory(engine: Any, tare: Any, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert "must be a directory" in tare("cp", "c:/a", "c:/b", str(tmp_path / "f"))[2]
    assert "stands alone" in tare("cp", "c:/a", "c:/b", "-")[2]
    info = json.dumps({"name": "a", "mode": 0o644})
    engine.headers["X-Docker-Container-Path-Stat"] = base64.b64encode(info.encode()).decode()
    engine.answers["HEAD /containers/c/archive"] = (200, b"")
    assert 'destination "c:/f" must be a directory' in tare("cp", "x", "y", "c:/f")[2]
    engine.answers["GET /containers/c/archive"] = (200, archive(("a", b"x", "")))
    assert tare("cp", "c:/a", "c:/a", str(tmp_path))[0] == 0
    assert (tmp_path / "a").read_bytes() == b"x"


def test_between_containers_the_archive_passes_renamed(engine: Any, tare: Any) -> None:
    info = json.dumps({"name": "d", "mode": 0o755 | 1 << 31})
    engine.headers["X-Docker-Container-Path-Stat"] = base64.b64encode(info.encode()).decode()
    engine.answers["GET /containers/a/archive"] = (200, archive(("d", None, ""), ("d/f", b"x", "")))
    engine.answers["HEAD /containers/b/archive"] = (404, b"")
    engine.answers["PUT /containers/b/archive"] = (200, b"")
    engine.answers["GET /containers/a/json"] = (200, {"Id": "1"})
    engine.answers["GET /containers/b/json"] = (200, {"Id": "2"})
    assert tare("cp", "a:/d", "b:/var/new") == (0, "", "")
    method, target, body = engine.requests[-1]
    assert (method, target) == ("PUT", "/containers/b/archive?noOverwriteDirNonDir=1&path=%2Fvar")
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert tar.getnames() == ["new", "new/f"]
    engine.answers["HEAD /containers/b/archive"] = (200, b"")
    assert tare("cp", "a:/d", "b:/var") == (0, "", "")
    with tarfile.open(fileobj=io.BytesIO(engine.requests[-1][2])) as tar:
        assert tar.getnames() == ["d", "d/f"]
    assert tare("cp", "a:/d", "a:/d/sub")[2] == "cannot copy a:/d into itself\n"


def test_stdin_into_what_is_not_there(engine: Any, tare: Any) -> None:
    engine.answers["HEAD /containers/nosuch/archive"] = (404, b"")
    assert tare("cp", "-", "nosuch:/x") == (1, "", 'destination "nosuch:/x" must be a directory\n')
