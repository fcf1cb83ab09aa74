from __future__ import annotations

from typing import Any

from tare.cli.volume import natural


def test_volumes(engine: Any, tare: Any) -> None:
    engine.answers["GET /volumes"] = (
        200,
        {"Volumes": [{"Name": "v10", "Driver": "local"}, {"Name": "v9", "Driver": "local"}]},
    )
    assert tare("volume", "ls") == (0, "DRIVER    VOLUME NAME\nlocal     v9\nlocal     v10\n", "")
    engine.answers["POST /volumes/create"] = (201, {"Name": "v"})
    assert tare("volume", "create", "-o", "a=b", "--label", "c=d", "v") == (0, "v\n", "")
    assert engine.requests[-1][2] == {"Driver": "local", "DriverOpts": {"a": "b"}, "Labels": {"c": "d"}, "Name": "v"}
    engine.answers["DELETE /volumes/v"] = (204, b"")
    assert tare("volume", "rm", "-f", "v") == (0, "v\n", "")


def test_natural() -> None:
    assert sorted(["a10", "a9", "b", "1"], key=natural) == ["1", "a9", "a10", "b"]
