from __future__ import annotations

from typing import Any


def test_prune(engine: Any, tare: Any) -> None:
    engine.answers["POST /containers/prune"] = (200, {"ContainersDeleted": ["a", "b"], "SpaceReclaimed": 1500})
    assert tare("container", "prune", "-f") == (0, "Deleted Containers:\na\nb\n\nTotal reclaimed space: 1.5kB\n", "")
    engine.answers["POST /images/prune"] = (
        200,
        {"ImagesDeleted": [{"Untagged": "x"}, {"Deleted": "y"}], "SpaceReclaimed": 0},
    )
    assert tare("image", "prune", "-af")[1] == "Deleted Images:\nuntagged: x\ndeleted: y\n\nTotal reclaimed space: 0B\n"
    assert "dangling%22%3A%7B%22false" in engine.requests[-1][1]
    engine.answers["POST /networks/prune"] = (200, {"NetworksDeleted": None})
    assert tare("system", "prune", "-f")[1].endswith("Total reclaimed space: 1.5kB\n")
