"""Progress messages as docker reads them."""

from __future__ import annotations

import json

from tare.wire.jsonmessage import bar, failure, human_size, message


def test_a_bar_needs_id_and_detail() -> None:
    raw = message("Loading layer", about="abc", current=5, total=10)
    assert raw.endswith(b"\r\n")
    assert json.loads(raw) == {
        "status": "Loading layer",
        "progressDetail": {"current": 5, "total": 10},
        "progress": bar(5, 10),
        "id": "abc",
    }


def test_a_failure_says_it_twice() -> None:
    assert json.loads(failure("no")) == {"errorDetail": {"message": "no"}, "error": "no"}


def test_sizes() -> None:
    assert [human_size(size) for size in (0, 999, 1_234_567, 5 * 10**18)] == ["0B", "999B", "1.235MB", "5000PB"]
    assert bar(5, 10) == "[" + "=" * 25 + ">" + " " * 24 + "]  5B/10B"
    assert bar(10, 10) == "[" + "=" * 50 + "]  10B/10B"
