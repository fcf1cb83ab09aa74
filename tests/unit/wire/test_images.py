"""Shapes of image bodies by version (W71)."""

from __future__ import annotations

from tare.wire.config import ContainerConfig
from tare.wire.images import image_config, named


def test_config_has_container_fields_before_1_50() -> None:
    config = ContainerConfig(Cmd=["x"])
    assert image_config(config, (1, 50)) == {"Cmd": ["x"]}
    assert image_config(config, (1, 49))["AttachStdin"] is False


def test_names_of_the_nameless() -> None:
    assert named([], [], (1, 42)) == (["<none>:<none>"], ["<none>@<none>"])
    assert named([], [], (1, 43)) == ([], [])
    assert named(["a:1"], [], (1, 24)) == (["a:1"], [])
