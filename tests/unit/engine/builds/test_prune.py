from __future__ import annotations

from tare.engine.builds.prune import Kept, beyond


def test_the_longest_unused_goes_until_the_rest_fits() -> None:
    old, middle, new = Kept(1, "a", 5), Kept(2, "b", 5, is_mount=True), Kept(3, "c", 5)
    assert beyond([new, old, middle], 15) == []
    assert beyond([new, old, middle], 14) == [old]
    assert beyond([new, old, middle], 5) == [old, middle]
    assert beyond([new, old, middle], 0) == [old, middle, new]
