"""What a clean-up removes, and what it never does."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tare.base.digest import sha256
from tare.base.errors import InvalidArgument
from tare.images.cleanup import Policy, age_text, parse_age, parse_policy, plan
from tare.images.records import Image, Layer
from tare.oci.image import parse_config
from tare.wire.config import ContainerConfig

HOUR = 3600 * 1_000_000_000
NOW = 1000 * HOUR


def layer(name: str, size: int) -> Layer:
    digest = sha256(name.encode())
    return Layer(
        chain_id=digest, parent=None, diff_id=digest, blob=digest, blob_size=1, compression="gzip", plain_size=1,
        size_bytes=size,
    )  # fmt: skip


def image(name: str, hours: int, *layers: Layer, parent: Image | None = None, label: str | None = None) -> Image:
    """Unused for so many hours."""
    raw = b'{"rootfs":{"type":"layers","diff_ids":[]}}'
    labels = None if label is None else {"tare.keep": label}
    return Image(
        id=sha256(name.encode()),
        raw=raw,
        document=parse_config(raw),
        config=replace_labels(labels),
        layers=layers,
        parent=parent.id if parent else None,
        imported_at=NOW - hours * HOUR,
    )


def replace_labels(labels: dict[str, str] | None) -> ContainerConfig:
    return ContainerConfig(Labels=labels)


BASE, SHARED = layer("base", 100), layer("shared", 50)
OLD, MIDDLE, NEW = image("old", 90, BASE), image("middle", 50, BASE, SHARED), image("new", 1, BASE, SHARED)


def ids(images: list[Image], policy: Policy, used: set[str] | None = None) -> list[str]:
    found = plan(images, policy, used=used or set(), last_use=lambda one: one.imported_at, now_ns=NOW)
    return [item.image.id for item in found]


def test_by_age_count_and_space() -> None:
    images = [NEW, OLD, MIDDLE]
    assert ids(images, Policy()) == []
    assert ids(images, parse_policy("max-age=2d")) == [OLD.id, MIDDLE.id]
    assert ids(images, parse_policy("max-age=3d")) == [OLD.id]
    assert ids(images, parse_policy("max-count=2")) == [OLD.id]
    assert ids(images, parse_policy("max-space=150")) == []  # each layer counts once
    assert ids(images, parse_policy("max-space=120")) == [OLD.id, MIDDLE.id, NEW.id]


def test_what_is_used_or_kept_stays() -> None:
    policy = parse_policy("max-age=1h")
    assert ids([OLD, MIDDLE], policy, {OLD.id}) == [MIDDLE.id]
    assert ids([replace(OLD, config=replace_labels({"tare.keep": ""})), MIDDLE], policy) == [MIDDLE.id]
    assert ids([replace(OLD, config=replace_labels({"tare.keep": "false"}))], policy) == [OLD.id]


def test_a_base_stays_with_what_was_made_from_it_and_goes_after_it() -> None:
    child = image("child", 1, BASE, parent=OLD)
    assert ids([OLD, child], parse_policy("max-age=2d")) == []
    late = image("child", 80, BASE, parent=OLD)
    assert ids([OLD, late], parse_policy("max-age=2d")) == [late.id, OLD.id]


def test_reasons_are_for_people() -> None:
    found = plan([OLD], parse_policy("max-age=2d"), used=set(), last_use=lambda one: one.imported_at, now_ns=NOW)
    assert [item.reason for item in found] == ["unused for 3d"]
    assert [age_text(hours * HOUR) for hours in (0, 1, 23, 24, 50)] == ["0s", "1h", "23h", "1d", "2d"]
    assert [age_text(HOUR // part) for part in (60, 61)] == ["1m", "59s"]


@pytest.mark.parametrize(("text", "hours"), [("1d", 24), ("2w", 336), ("36h", 36), ("1h30m", 1.5)])
def test_ages(text: str, hours: float) -> None:
    assert parse_age(text) == hours * HOUR


@pytest.mark.parametrize("text", ["x", "-1h", "0h", "1y"])
def test_wrong_ages(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_age(text)


@pytest.mark.parametrize("text", ["max-age", "max-count=x", "max-space=1Q", "max-weight=1", "max-count=-1"])
def test_wrong_policies(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_policy(text)


def test_a_policy_is_true_with_a_bound() -> None:
    assert not parse_policy("")
    assert parse_policy("max-age=1h,max-count=3,max-space=1GB") == Policy(
        max_age_ns=HOUR, max_count=3, max_bytes=1024**3
    )
