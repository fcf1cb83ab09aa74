from __future__ import annotations

from typing import Any


def test_only_what_was_given_is_sent(engine: Any, tare: Any) -> None:
    engine.answers["POST /containers/a/update"] = (200, {"Warnings": ["later"]})
    words = (
        "edit --label a=1 --label-rm b -e A=1 --env-rm B --health-cmd true --name new -m 64m -v /s:/d -v /anonymous "
        "--mount-rm /x a -- sh -c"
    )
    assert tare(*words.split(), "echo -n x") == (0, "a\n", "WARNING: later\n")
    assert engine.requests[-1][2] == {
        "Memory": 64 << 20,
        "Labels": {"b": None, "a": "1"},
        "Env": ["A=1", "B"],
        "Cmd": ["sh", "-c", "echo -n x"],
        "Healthcheck": {"Test": ["CMD-SHELL", "true"]},
        "Binds": ["/s:/d"],
        "Mounts": [{"Type": "volume", "Target": "/anonymous"}],
        "RemoveMounts": ["/x"],
        "Name": "new",
    }
    assert tare("edit", "--entrypoint", "", "a")[0] == 0
    assert engine.requests[-1][2] == {"Entrypoint": []}


def test_what_makes_no_sense(tare: Any) -> None:
    assert tare("edit", "a") == (1, "", "nothing to change: name a flag or a command\n")
    assert tare("edit", "--env-rm", "A=1", "a") == (1, "", "--env-rm wants the name of a variable: A=1\n")
