from __future__ import annotations

from typing import Any


def test_detached(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/a/json"] = (200, {})
    engine.answers["POST /containers/a/exec"] = (201, {"Id": "e1"})
    engine.answers["POST /exec/e1/start"] = (200, b"")
    assert tare("exec", "-d", "-e", "A=1", "-u", "x", "a", "ls", "-l") == (0, "", "")
    create, start = engine.requests[-2][2], engine.requests[-1][2]
    assert (create["Cmd"], create["Env"], create["User"], create["AttachStdout"]) == (["ls", "-l"], ["A=1"], "x", False)
    assert start == {"Detach": True, "Tty": False}


def test_not_running(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/a/json"] = (200, {})
    engine.answers["POST /containers/a/exec"] = (409, {"message": "container a is not running"})
    assert tare("exec", "a", "ls") == (1, "", "Error response from daemon: container a is not running\n")
