"""The table of a clean-up."""

from __future__ import annotations

from tare.cli.clean import rows


def test_one_row_for_each_image() -> None:
    image = {
        "Id": "sha256:" + "a" * 64,
        "Names": ["web:1", "web@sha256:" + "b" * 64],
        "LastUsed": 0,
        "Size": 1500,
        "Reason": "unused for 3d",
        "Removed": True,
    }
    head, row, bare = rows([image, {**image, "Names": [], "Removed": False}])
    assert len(head) == len(row)
    assert (row[0], row[1], row[3:]) == ("web:1", "a" * 12, ["1.5kB", "unused for 3d", "yes"])
    assert (bare[0], bare[5]) == ("<none>", "no")
