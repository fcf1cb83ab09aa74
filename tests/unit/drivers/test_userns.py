"""Subordinate ids: found, made, refused, mapped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tare.base.errors import InvalidArgument
from tare.drivers import userns
from tare.drivers.userns import Mapping, Range, blocked_at, map_text, next_free, of_process, parse_ranges, resolve

TABLE = "alice:100000:65536\n# bob:1:1\nalice:300000:10 # more\n1000:200000:5\nbroken\nbob:x:1\nempty:1:0\n"


def test_ranges_of_a_name_or_number() -> None:
    assert parse_ranges(TABLE, ["alice"]) == (Range(100000, 65536), Range(300000, 10))
    assert parse_ranges(TABLE, ["nobody", "1000"]) == (Range(200000, 5),)
    assert parse_ranges(TABLE, ["bob"]) == parse_ranges(TABLE, ["empty"]) == ()


def test_the_map_goes_on_inside() -> None:
    assert map_text((Range(100000, 65536), Range(300000, 10))) == "0 100000 65536\n65536 300000 10\n"


def test_what_is_free_lies_behind_everybody() -> None:
    assert next_free("") == 100000
    assert next_free(TABLE) == 300000 + 0 or next_free("a:100000:65536\nb:165536:65536\n") == 231072


def files(tmp_path: Path, text: str) -> tuple[Path, Path]:
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text(text)
    return tmp_path / "subuid", tmp_path / "subgid"


@pytest.mark.parametrize("option", ["root", "0", "root:root", "0:0"])
def test_a_user_that_is_there(tmp_path: Path, option: str) -> None:
    subuid, subgid = files(tmp_path, "root:100000:65536\n")
    found = resolve(option, subuid=subuid, subgid=subgid)
    assert found == Mapping("root", (Range(100000, 65536),), (Range(100000, 65536),))
    assert found.root == (100000, 100000)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("no-such-user", "Invalid username in userns-remap"),
        ("root:no-such-group", "Invalid groupname in userns-remap"),
        ("root", "no subordinate ids of root"),
        (":x", "invalid --userns-remap"),
        ("a:b:c", "invalid --userns-remap"),
        ("ids=x", "invalid --userns-remap"),
        ("ids=0:5", "invalid --userns-remap"),
        ("ids=5", "invalid --userns-remap"),
    ],
)
def test_what_is_refused(tmp_path: Path, option: str, message: str) -> None:
    subuid, subgid = files(tmp_path, "")
    with pytest.raises(InvalidArgument, match=message):
        resolve(option, subuid=subuid, subgid=subgid)


def test_default_makes_user_and_ranges_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subuid, subgid = files(tmp_path, "alice:100000:65536")
    made: list[list[str]] = []

    def useradd(argv: list[str], **_: object) -> None:
        made.append(argv)
        monkeypatch.setattr(userns.pwd, "getpwnam", lambda _: userns.pwd.getpwuid(0))

    if "dockremap" in Path("/etc/passwd").read_text():
        pytest.skip("this machine has the user dockremap already")
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="no subordinate ids of root"):  # whom the fake made of it
            resolve("default", subuid=subuid, subgid=subgid, run=useradd)
    assert [argv[0] for argv in made] == ["useradd"]
    assert made[0][-1] == "dockremap"
    assert subuid.read_text() == subgid.read_text() == "alice:100000:65536\ndockremap:165536:65536\n"


def test_explicit_ids() -> None:
    assert resolve("ids=100000:1000") == Mapping("100000:1000", (Range(100000, 1000),), (Range(100000, 1000),))


def test_the_way_to_a_directory(tmp_path: Path) -> None:
    mapping = Mapping("x", (Range(100000, 10),), (Range(200000, 10),))
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    for directory in inner.parents:
        if directory.stat().st_uid == os.getuid() and directory.is_relative_to(tmp_path):
            directory.chmod(0o711)
    (tmp_path / "a").chmod(0o700)
    assert blocked_at(inner, mapping) in (tmp_path / "a", *tmp_path.parents)
    if blocked_at(tmp_path / "a", mapping) is None and os.geteuid() == 0:
        os.chown(tmp_path / "a", 0, 200000)
        (tmp_path / "a").chmod(0o710)
        assert blocked_at(inner, mapping) is None


def test_our_own_namespace_is_none() -> None:
    assert of_process(os.getpid()) is None
    assert of_process(2**22 + 1) is None


def test_ids_of_a_container_on_the_host() -> None:
    mapping = Mapping("x", (Range(1000, 10), Range(5000, 10)), (Range(2000, 20),))
    assert mapping.outside(0, 0) == (1000, 2000)
    assert mapping.outside(12, 12) == (5002, 2012)
    with pytest.raises(InvalidArgument):
        mapping.outside(20, 0)
