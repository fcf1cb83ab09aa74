"""Reading CDI files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tare.drivers.cdi import Document, read


def test_json_and_yaml_of_all_directories(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "a.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "one" / ".hidden.json").write_text("{")
    (tmp_path / "one" / "notes.txt").write_text("x")
    (tmp_path / "two" / "b.yaml").write_text("a: [1, two]\n")
    (tmp_path / "two" / "c.yml").write_text("!!python/object/apply:os.system ['true']\n")
    (tmp_path / "two" / "d.json").write_text("{")
    (tmp_path / "two" / "e.json").mkdir()
    found = read([tmp_path / "one", tmp_path / "none", tmp_path / "two"])
    assert found[:2] == [
        Document(path=str(tmp_path / "one/a.json"), priority=0, value={"a": 1}),
        Document(path=str(tmp_path / "two/b.yaml"), priority=2, value={"a": [1, "two"]}),
    ]
    assert [Path(document.path).name for document in found[2:]] == ["c.yml", "d.json", "e.json"]
    assert all(document.problem and document.value is None for document in found[2:])


def test_a_file_too_big_to_be_meant(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(" " * (1024 * 1024 + 1))
    assert [document.problem for document in read([tmp_path])] == ["larger than 1048576 bytes"]
