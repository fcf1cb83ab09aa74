"""Looking images up and choosing them by filters."""

from __future__ import annotations

import json

import pytest

from tare.base.digest import Digest, sha256
from tare.base.errors import InvalidArgument, NotFound
from tare.base.reference import Reference, parse_reference
from tare.images import naming
from tare.images.records import Image
from tare.oci.image import parse_config
from tare.wire.config import ContainerConfig


def image(created: str, **labels: str) -> Image:
    raw = json.dumps({"created": created}).encode()
    return Image(
        id=sha256(raw), raw=raw, document=parse_config(raw), config=ContainerConfig(Labels=labels or None), layers=()
    )


OLD = image("2020-01-01T00:00:00Z", a="b")
NEW = image("2024-01-01T00:00:00.5+01:00")
IMAGES = {OLD.id: OLD, NEW.id: NEW}
TAGS = {parse_reference("x:latest"): OLD.id, parse_reference(NEW.id[7:13] + ":latest"): OLD.id}


@pytest.mark.parametrize(
    "text", ["x", "x:latest", "docker.io/library/x", OLD.id, OLD.id[7:], OLD.id[7:15], OLD.id[:20]]
)
def test_found(text: str) -> None:
    assert naming.find(text, IMAGES, TAGS)[0] == OLD.id


def test_a_name_wins_over_a_prefix() -> None:
    assert naming.find(NEW.id[7:13], IMAGES, TAGS)[0] == OLD.id
    assert naming.find(NEW.id[7:14], IMAGES, TAGS)[0] == NEW.id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", "No such image: nope:latest"),
        ("abcdef", "No such image: abcdef:latest"),
        ("sha256:" + "0" * 64, "No such image: sha256:" + "0" * 64),
        ("x@sha256:" + "0" * 64, "No such image: x@sha256:" + "0" * 64),
    ],
)
def test_not_found(text: str, message: str) -> None:
    with pytest.raises(NotFound) as caught:
        naming.find(text, IMAGES, TAGS)
    assert caught.value.message == message


def test_an_ambiguous_prefix() -> None:
    twins = {Digest("sha256:" + "ab" * 31 + end): OLD for end in ("cd", "ce")}
    with pytest.raises(NotFound, match="ambiguous reference"):
        naming.find("abab", twins, {})


def references(image_id: Digest) -> list[Reference]:
    return [reference for reference, known in TAGS.items() if known == image_id]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [OLD, NEW]),
        ({"dangling": ["true"]}, [NEW]),
        ({"dangling": ["false"]}, [OLD]),
        ({"label": ["a"]}, [OLD]),
        ({"label": ["a=b", "c"]}, []),
        ({"label!": ["a=b"]}, [NEW]),
        ({"since": ["x"]}, [NEW]),
        ({"before": [NEW.id]}, [OLD]),
        ({"until": ["2021-01-01"]}, [OLD]),
        ({"reference": ["x*"]}, [OLD]),
        ({"reference": ["x:lat*"]}, [OLD]),
        ({"reference": ["y"]}, []),
    ],
)
def test_filters(filters: dict[str, list[str]], expected: list[Image]) -> None:
    view = naming.View(references, lambda text: IMAGES[naming.find(text, IMAGES, TAGS)[0]], 0)
    assert naming.choose(IMAGES.values(), filters, view, known=naming.LIST_FILTERS) == expected


@pytest.mark.parametrize("filters", [{"x": ["1"]}, {"dangling": ["maybe"]}, {"until": ["whenever"]}])
def test_wrong_filters(filters: dict[str, list[str]]) -> None:
    view = naming.View(references, lambda text: OLD, 0)
    with pytest.raises(InvalidArgument):
        naming.choose(IMAGES.values(), filters, view, known=naming.LIST_FILTERS)


def test_patterns_stop_at_slashes() -> None:
    reference = parse_reference("a/b:1")
    assert naming.matches(reference, ["a/*"])
    assert naming.matches(reference, ["*/*:1"])
    assert not naming.matches(reference, ["*"])


def test_moments() -> None:
    assert naming.time_ns("2024-01-01T00:00:00.5+01:00") == 1704063600_500000000
    assert naming.time_ns("yesterday") == 0
    assert naming.parse_moment("10m", 10**15) == 10**15 - 600 * 10**9
    assert naming.parse_moment("12.5", 0) == 12_500_000_000
