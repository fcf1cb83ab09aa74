from __future__ import annotations

from typing import Any

from tare.cli.events import line_of

EVENT = {
    "Type": "container",
    "Action": "die",
    "Actor": {"ID": "abc", "Attributes": {"name": "web", "exitCode": "7"}},
    "time": 1,
    "timeNano": 1000000005,
}


def test_line_of() -> None:
    assert line_of(EVENT).endswith(" container die abc (exitCode=7, name=web)")
    assert ".000000005" in line_of(EVENT)


def test_events(engine: Any, tare: Any) -> None:
    engine.answers["GET /events"] = (200, EVENT)
    assert tare("events", "--since", "5", "--until", "6", "--format", "{{.Action}} {{.Actor.ID}}") == (
        0,
        "die abc\n",
        "",
    )
    assert engine.requests[-1][1] == "/events?since=5&until=6"


def test_audit(engine: Any, tare: Any) -> None:
    engine.answers["GET /tare/v1/events"] = (200, EVENT | {"User": "uid=0 pid=7"})
    code, out, _ = tare("events", "--audit", "--since", "5", "--until", "6")
    assert (code, out.endswith(" (exitCode=7, name=web) by uid=0 pid=7\n")) == (0, True)
