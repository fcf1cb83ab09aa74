from __future__ import annotations

import io
from typing import Any

import pytest


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
    assert engine.requests[-1][:2] == ("POST", "/build/prune")  # which this engine does not have: no error


def test_the_build_cache(engine: Any, tare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.answers["POST /build/prune"] = (200, {"CachesDeleted": ["b", "a"], "SpaceReclaimed": 1500})
    text = "Deleted build cache objects:\nb\na\n\nTotal reclaimed space: 1.5kB\n"
    assert tare("builder", "prune", "-af", "--filter", "until=24h", "--keep-storage", "1g") == (0, text, "")
    wanted = "/build/prune?all=1&filters=%7B%22until%22%3A%7B%2224h%22%3Atrue%7D%7D&keep-storage=1073741824"
    assert engine.requests[-1][1] == wanted
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    question = "WARNING! This will remove all dangling build cache. Are you sure you want to continue? [y/N] "
    assert tare("builder", "prune") == (0, question, "")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert tare("builder", "prune", "-a") == (0, question.replace("dangling ", "") + text, "")
    engine.answers["POST /build/prune"] = (500, {"message": "broken"})
    assert tare("builder", "prune", "-f") == (1, "", "Error response from daemon: broken\n")


def test_system_prune_takes_the_build_cache_along(engine: Any, tare: Any) -> None:
    for what in ("containers", "networks", "images"):
        engine.answers[f"POST /{what}/prune"] = (200, {})
    engine.answers["POST /build/prune"] = (200, {"CachesDeleted": ["c"], "SpaceReclaimed": 7})
    text = "Deleted build cache objects:\nc\n\nTotal reclaimed space: 7B\n"
    assert tare("system", "prune", "-f") == (0, text, "")
    engine.answers["POST /build/prune"] = (500, {"message": "broken"})
    assert tare("system", "prune", "-f") == (1, "", "Error response from daemon: broken\n")
