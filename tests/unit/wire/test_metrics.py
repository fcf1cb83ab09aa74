from __future__ import annotations

from tare.wire.metrics import Family, render


def test_the_text() -> None:
    states = Family("tare_containers", "gauge", "Containers by state.")
    states.add(3, state="running")
    states.add(0.25, state='odd"\\\n')
    took = Family("tare_seconds", "summary", "Time.")
    took.add(1.5, "_sum")
    took.add(2, "_count")
    assert render([states, Family("tare_none", "gauge", "Nothing."), took]).decode() == (
        "# HELP tare_containers Containers by state.\n# TYPE tare_containers gauge\n"
        'tare_containers{state="running"} 3\ntare_containers{state="odd\\"\\\\\\n"} 0.25\n'
        "# HELP tare_seconds Time.\n# TYPE tare_seconds summary\ntare_seconds_sum 1.5\ntare_seconds_count 2\n"
    )


def test_nothing_is_nothing() -> None:
    assert render([]) == b""
