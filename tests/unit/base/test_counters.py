from __future__ import annotations

from tare.base.counters import Counters


def test_each_route_has_one_counter() -> None:
    counters = Counters()
    counters.of("GET", "/_ping").count += 1
    counters.of("GET", "/_ping").count += 1
    counters.of("HEAD", "/_ping").count += 1
    assert {key: timed.count for key, timed in counters.routes.items()} == {("GET", "/_ping"): 2, ("HEAD", "/_ping"): 1}
