from __future__ import annotations

import json
from pathlib import Path

import pytest

from tare.base.digest import sha256
from tare.base.errors import NotFound
from tare.engine.builds import provenance

IMAGE = sha256(b"image")
TOLD = provenance.Told(
    image=IMAGE, names=(), build_id="b", started="s", finished="f", platform="linux/amd64", file="Dockerfile",
    dockerfile=b"FROM x", origin={}, read=[{"uri": "z", "digest": {}}, {"uri": "a", "digest": {}}], target="t",
    arguments={"V": "1", "API_TOKEN": "hush"}, labels={}, secrets=["s"], agents=[],
)  # fmt: skip


def test_the_modes_say_more_and_never_a_secret() -> None:
    least = provenance.statement(TOLD, mode="min")
    most = provenance.statement(TOLD, mode="max")
    assert b"hush" not in least + most
    definition = json.loads(most)["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["request"]["args"] == {"V": "1"}
    assert [item["uri"] for item in definition["resolvedDependencies"]] == ["a", "z"]
    assert "args" not in json.loads(least)["predicate"]["buildDefinition"]["externalParameters"]["request"]


def test_it_is_kept_as_long_as_the_image(tmp_path: Path) -> None:
    provenance.write(tmp_path, IMAGE, b"{}")
    assert provenance.read(tmp_path, IMAGE) == b"{}"
    provenance.forget(tmp_path, IMAGE)
    with pytest.raises(NotFound):
        provenance.read(tmp_path, IMAGE)
    provenance.forget(tmp_path, IMAGE)
