"""How long a program that was just started is given before it gets a signal."""

from __future__ import annotations

import pytest

from tare.engine.stop import looks


@pytest.mark.parametrize(
    ("age_s", "times"),
    [(0.0, 50), (0.125, 25), (0.25, 0), (3600.0, 0), (-3600.0, 50)],
)
def test_only_a_young_one_is_waited_for_whatever_the_clock_does(age_s: float, times: int) -> None:
    assert looks(age_s) == times
