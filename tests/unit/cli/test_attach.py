from __future__ import annotations

from typing import Any


def test_only_running_containers(engine: Any, tare: Any) -> None:
    state = {"Running": False, "Paused": False, "Restarting": False}
    engine.answers["GET /containers/a/json"] = (200, {"State": state, "Config": {}})
    assert tare("attach", "a") == (1, "", "You cannot attach to a stopped container, start it first\n")
    assert tare("attach", "--detach-keys", "ctrl-1", "a") == (
        1,
        "",
        "invalid detach keys (ctrl-1): Unknown character: 'ctrl-1'\n",
    )
