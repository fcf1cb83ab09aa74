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
    assert tare("cp", "a:b", "c:d")[2] == "copying between containers is not supported\n"


def test_remote_stat() -> None:
    header = base64.b64encode(json.dumps({"name": "x", "mode": 1}).encode()).decode()
    assert copy.remote_stat(header) == {"name": "x", "mode": 1}
