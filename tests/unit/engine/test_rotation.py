"""How often a log's size is looked at; the rest is proved on a real engine in tests/e2e/test_logs.py."""

from __future__ import annotations

import pytest

from tare.engine.rotation import QUICKEST_S, SLOWEST_S, pause_before_look


@pytest.mark.parametrize(
    ("left", "grown", "in_s", "pause_s"),
    [
        (10**6, 0, 0.1, SLOWEST_S),  # it rests
        (10**6, -5, 0.1, SLOWEST_S),  # it was rotated
        (10**6, 100, 0.1, SLOWEST_S),  # a line now and then
        (10**6, 10**6, 0.1, 0.05),  # full in a tenth of a second
        (10**4, 10**7, 0.02, QUICKEST_S),  # a flood
        (-5, 10**7, 0.02, QUICKEST_S),
    ],
)
def test_the_pace_follows_the_growth(left: int, grown: int, in_s: float, pause_s: float) -> None:
    assert pause_before_look(left, grown=grown, in_s=in_s) == pytest.approx(pause_s)
