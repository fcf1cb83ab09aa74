"""The create request of tare and of the stock docker, for the same words: field by field the same."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"compat_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ARGVS = _sibling("argvs").ARGVS
Recorder = _sibling("recorder").Recorder


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Any]:
    found = Recorder(tmp_path)
    yield found
    found.close()


def _settled(requests: list[Any]) -> list[Any]:
    """Without pings, and without the order of what Go keeps in maps."""
    found = [request for request in requests if not request[1].endswith("_ping")]
    for _, _, body in found:
        if body and body.get("Env"):
            body["Env"].sort()
        if body and body["HostConfig"].get("Binds"):
            body["HostConfig"]["Binds"].sort()
    return found


@pytest.mark.parametrize("argv", ARGVS, ids=" ".join)
def test_same_body_same_error(
    argv: list[str], recorder: Any, docker: Callable[..., Any], tare: Callable[..., Any]
) -> None:
    theirs = docker(recorder.host, "create", *argv)
    expected = _settled(recorder.requests)
    recorder.requests.clear()
    ours = tare(recorder.host, "create", *argv)
    assert (ours, _settled(recorder.requests)) == (theirs, expected)
