"""Names of engines that the stock client keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tare.client.contexts import host_of
from tare.client.errors import BadHost


def put(config: Path, name: str, document: object) -> None:
    directory = config / "contexts" / "meta" / name
    directory.mkdir(parents=True)
    (directory / "meta.json").write_text(document if isinstance(document, str) else json.dumps(document))


def test_a_context_stands_for_an_address(tmp_path: Path) -> None:
    put(tmp_path, "aa", {"Name": "two", "Endpoints": {"docker": {"Host": "ssh://root@two.example"}}})
    put(tmp_path, "bb", {"Name": "odd", "Endpoints": {}})
    assert host_of("two", str(tmp_path)) == "ssh://root@two.example"
    with pytest.raises(BadHost, match=r"three: .*: two\Z"):
        host_of("three", str(tmp_path))


def test_none_is_defined(tmp_path: Path) -> None:
    with pytest.raises(BadHost, match="none is defined"):
        host_of("two", str(tmp_path))


def test_a_damaged_context_is_named(tmp_path: Path) -> None:
    put(tmp_path, "aa", "{")
    with pytest.raises(BadHost, match=r"aa/meta\.json"):
        host_of("two", str(tmp_path))
