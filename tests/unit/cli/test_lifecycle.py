from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("argv", "request_line", "out"),
    [
        (["stop", "-t", "3", "-s", "INT", "a"], "POST /containers/a/stop?signal=INT&t=3", "a\n"),
        (["stop", "--time", "0", "a"], "POST /containers/a/stop?t=0", "a\n"),
        (["restart", "a"], "POST /containers/a/restart", "a\n"),
        (["kill", "-s", "9", "a"], "POST /containers/a/kill?signal=9", "a\n"),
        (["pause", "a"], "POST /containers/a/pause", "a\n"),
        (["unpause", "a"], "POST /containers/a/unpause", "a\n"),
        (["rename", "a", "b"], "POST /containers/a/rename?name=b", ""),
        (["rm", "-fv", "a"], "DELETE /containers/a?force=1&v=1", "a\n"),
        (["start", "a"], "POST /containers/a/start", "a\n"),
    ],
)
def test_requests(engine: Any, tare: Any, argv: list[str], request_line: str, out: str) -> None:
    engine.answers[request_line.partition("?")[0]] = (204, b"")
    assert tare(*argv) == (0, out, "")
    assert " ".join(engine.requests[-1][:2]) == request_line


def test_the_rest_goes_on_after_an_error(engine: Any, tare: Any) -> None:
    engine.answers["DELETE /containers/a"] = (404, {"message": "No such container: a"})
    engine.answers["DELETE /containers/b"] = (204, b"")
    assert tare("rm", "a", "b") == (1, "b\n", "Error response from daemon: No such container: a\n")
    assert tare("rm", "-f", "a") == (0, "", "Error response from daemon: No such container: a\n")


def test_wait_prints_exit_codes(engine: Any, tare: Any) -> None:
    engine.answers["POST /containers/a/wait"] = (200, {"StatusCode": 7})
    assert tare("wait", "a") == (0, "7\n", "")


def test_failed_starts_are_summed_up(engine: Any, tare: Any) -> None:
    engine.answers["POST /containers/a/start"] = (404, {"message": "No such container: a"})
    error = "Error response from daemon: No such container: a\nError: failed to start containers: a\n"
    assert tare("start", "a") == (1, "", error)
    assert tare("start", "-a", "a", "b")[2] == "you cannot start and attach multiple containers at once\n"
