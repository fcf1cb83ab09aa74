from __future__ import annotations

from pathlib import Path

import pytest

from tare.base.errors import InvalidArgument
from tare.build.mounts import Mount
from tare.engine.builds.cachemounts import absent, in_use, is_in_use
from tare.engine.builds.sandbox import cache_name


def test_a_directory_is_in_use_until_the_last_step_is_done() -> None:
    with in_use("a"):
        with in_use("a"):
            assert is_in_use("a")
        assert is_in_use("a")
    assert not is_in_use("a")


def test_what_a_cache_begins_with_is_part_of_its_name() -> None:
    plain = Mount(kind="cache", target="/c", id="x")
    begun = Mount(kind="cache", target="/c", id="x", origin="stage", source="/s")
    assert cache_name(plain) == cache_name(Mount(kind="cache", target="/other", id="x"))
    assert len({cache_name(plain), cache_name(begun, "1"), cache_name(begun, "2")}) == 3


def test_which_are_not_here(tmp_path: Path) -> None:
    (tmp_path / "buildcache" / ("a" * 64)).mkdir(parents=True)
    assert absent(tmp_path, ["a" * 64, "b" * 64]) == ["b" * 64]
    for wrong in ("..", "a", "A" * 64, "a" * 64 + "/.."):
        with pytest.raises(InvalidArgument):
            absent(tmp_path, [wrong])
