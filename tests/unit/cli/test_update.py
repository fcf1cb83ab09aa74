from __future__ import annotations

from typing import Any


def test_update_sends_only_what_was_given(engine: Any, tare: Any) -> None:
    engine.answers["POST /containers/a/update"] = (200, {"Warnings": ["w"]})
    assert tare("update", "-m", "1m", "--cpus", "2", "--restart", "always", "a") == (0, "a\nw\n", "")
    assert engine.requests[-1][2] == {
        "Memory": 1 << 20,
        "NanoCpus": 2 * 10**9,
        "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
    }
    assert tare("update", "a")[2] == "you must provide one or more flags when using this command\n"
