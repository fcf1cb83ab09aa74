"""Writing a tree from a tar that comes from outside; the extractor's own rules are in its own tests."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tare.cli.checkout import unpack


def archive(*members: tuple[str, bytes, bytes | str]) -> bytes:
    """(name, type, content or link target)"""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, what in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            info.devmajor, info.devminor = 1, 3
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            else:
                info.linkname = what
                tar.addfile(info)
    return out.getvalue()


TREE = archive(("./", tarfile.DIRTYPE, ""), ("./d/", tarfile.DIRTYPE, ""), ("./d/f", tarfile.REGTYPE, b"hello"),
               ("./l", tarfile.SYMTYPE, "/etc"), ("./h", tarfile.LNKTYPE, "d/f"))  # fmt: skip


def test_checkout_makes_the_directory(engine: Any, tare: Any, tmp_path: Path) -> None:
    engine.answers["GET /tare/v1/tree"] = (200, TREE)
    target = tmp_path / "out"
    assert tare("checkout", "--path", "/x", "web@2", str(target)) == (0, "", "")
    assert engine.requests[-1][1] == "/tare/v1/tree?of=web%402&path=%2Fx"
    assert (target / "h").read_bytes() == b"hello"
    assert os.readlink(target / "l") == "/etc"
    code, _, err = tare("checkout", "web", str(target))
    assert (code, "is not empty" in err) == (1, True)
    (target / "d/f").write_text("mine")
    (target / "own").write_text("mine")
    assert tare("checkout", "--force", "web", str(target))[0] == 0
    assert ((target / "d/f").read_text(), (target / "own").read_text()) == ("hello", "mine")


def test_what_fails_leaves_no_directory(engine: Any, tare: Any, tmp_path: Path) -> None:
    target = tmp_path / "out"
    engine.answers["GET /tare/v1/tree"] = (404, {"message": "No such image or container: web"})
    assert tare("checkout", "web", str(target))[0] == 1
    assert not target.exists()
    engine.answers["GET /tare/v1/tree"] = (200, archive(("../x", tarfile.REGTYPE, b"evil")))
    assert tare("checkout", "web", str(target))[0] == 1
    assert list(tmp_path.glob("x")) == []
    assert not target.exists()
    target.write_text("a file")
    assert tare("checkout", "web", str(target))[2] == f"{target} is not a directory\n"


def test_no_link_leads_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").mkdir()
    evil = archive(("l", tarfile.SYMTYPE, str(tmp_path / "outside")), ("l/f", tarfile.REGTYPE, b"evil"))
    unpack(iter([evil]), str(tmp_path / "in"), is_root=False)
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("size", [1, 511, 100_000])
def test_devices_are_left_out_for_users(tmp_path: Path, size: int) -> None:
    data = archive(("null", tarfile.CHRTYPE, ""), ("f", tarfile.REGTYPE, b"x"))
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    assert unpack(pieces, str(tmp_path), is_root=False) == 1
    assert os.listdir(tmp_path) == ["f"]
