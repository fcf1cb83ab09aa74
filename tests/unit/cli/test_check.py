from __future__ import annotations

from tare.cli.check import summary


def test_the_last_line_counts_in_words() -> None:
    found = {"Layers": 1, "Blobs": 1, "BytesRead": 5, "Containers": 1, "Seconds": 0.25, "Findings": 0, "Left": 0}
    assert summary(found) == "1 layer, 1 blob (5B read), 1 container, 0.2s: nothing is wrong"
    more = found | {"Layers": 2, "Blobs": 0, "Containers": 3, "Findings": 4, "Left": 1}
    assert summary(more) == "2 layers, 0 blobs (5B read), 3 containers, 0.2s: 4 found, 1 left"
    assert summary(more | {"Left": 0}).endswith("4 found, all mended")
