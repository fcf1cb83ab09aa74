from __future__ import annotations

from typing import Any


def test_streams_are_taken_apart(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/a/json"] = (200, {"Config": {"Tty": False}})
    frames = b"\x01\0\0\0\0\0\0\x02a\n\x01\0\0\0\0\0\0\x02b\n\x02\0\0\0\0\0\0\x02c\n"
    engine.answers["GET /containers/a/logs"] = (200, frames)
    assert tare("logs", "-t", "--tail", "5", "a") == (0, "a\nb\n", "c\n")
    assert engine.requests[-1][1] == "/containers/a/logs?stderr=1&stdout=1&tail=5&timestamps=1"
    engine.answers["GET /containers/a/logs"] = (200, frames[:-1])
    assert tare("logs", "a") == (1, "a\nb\n", "unexpected EOF\n")
    engine.answers["GET /containers/a/json"] = (200, {"Config": {"Tty": True}})
    engine.answers["GET /containers/a/logs"] = (200, b"raw\r\n")
    assert tare("logs", "a")[1] == "raw\r\n"


def test_bad_times(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/a/json"] = (200, {})
    assert tare("logs", "--since", "x", "a")[2].startswith('invalid value for "since": failed to parse value')


def test_clear(engine: Any, tare: Any) -> None:
    engine.answers["DELETE /tare/v1/containers/a/logs"] = (204, b"")
    assert tare("logs", "--clear", "a") == (0, "", "")
    engine.answers["DELETE /tare/v1/containers/a/logs"] = (404, {"message": "No such container: a"})
    assert tare("logs", "--clear", "a") == (1, "", "Error response from daemon: No such container: a\n")
