from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument, NotFound
from tare.images.lineage import Origin, count_of, origins, split_name
from tare.oci.image import History

IDS = ["sha256:" + "ab" * 32, "sha256:" + "ac" * 32, "sha256:" + "ab" * 32, ""]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("web", ("web", "")),
        ("web:1", ("web:1", "")),
        ("host:5000/web:1@2", ("host:5000/web:1", "2")),
        ("web@sha256:" + "a" * 64, ("web@sha256:" + "a" * 64, "")),
        ("web@sha256:" + "a" * 64 + "@-1", ("web@sha256:" + "a" * 64, "-1")),
        ("web@3fa9c1", ("web", "3fa9c1")),
    ],
)
def test_a_layer_is_named_after_the_image(text: str, found: tuple[str, str]) -> None:
    assert split_name(text) == found


@pytest.mark.parametrize("text", ["web@", "@1", "web@x", "web@abc", "web@12345", "web@--1"])
def test_what_is_no_layer_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="number of a layer"):
        split_name(text)


@pytest.mark.parametrize(
    ("layer", "count"), [("", 4), ("0", 0), ("4", 4), ("-1", 3), ("-4", 0), ("acacac", 2), ("ababab", 3)]
)
def test_a_layer_is_found(layer: str, count: int) -> None:
    assert count_of(layer, IDS, name="web") == count


@pytest.mark.parametrize("layer", ["5", "-5", "ffffff"])
def test_a_layer_that_is_not_there(layer: str) -> None:
    with pytest.raises(NotFound):
        count_of(layer, IDS, name="web")
    with pytest.raises(NotFound, match="several"):
        count_of("aaaaaa", ["sha256:" + "a" * 64, "sha256:aaaaaa" + "b" * 58], name="web")


def test_steps_belong_to_layers() -> None:
    history = [History(created_by="ADD"), History(created_by="ENV", empty_layer=True), History(created_by="RUN")]
    found = origins(IDS[:2], [7, 8], history)
    assert [(o.number, o.size_bytes, o.created_by) for o in found] == [(1, 7, "ADD"), (2, 8, "RUN")]


@pytest.mark.parametrize("history", [None, [], [History(created_by="ADD")], [History(empty_layer=True)] * 2])
def test_a_history_that_does_not_fit_is_not_guessed_at(history: list[History] | None) -> None:
    assert origins(IDS[:2], [7, 8], history) == [
        Origin(number=1, diff_id=IDS[0], size_bytes=7),
        Origin(number=2, diff_id=IDS[1], size_bytes=8),
    ]
