"""Docker's rules for removing images, as plans."""

from __future__ import annotations

import pytest

from tare.base.digest import Digest
from tare.base.errors import Conflict
from tare.base.reference import Reference, parse_reference
from tare.images.records import Image, ImageUse
from tare.images.removal import World, plan
from tare.oci.image import ImageConfig
from tare.wire.config import ContainerConfig


def image(letter: str, parent: str | None = None) -> Image:
    return Image(
        id=name(letter),
        raw=b"",
        document=ImageConfig(),
        config=ContainerConfig(),
        layers=(),
        parent=name(parent) if parent else None,
    )


def name(letter: str) -> Digest:
    return Digest("sha256:" + letter * 64)


def world(*images: Image, uses: tuple[ImageUse, ...] = (), **references: list[str]) -> World:
    named = {name(letter): [parse_reference(text) for text in texts] for letter, texts in references.items()}
    return World(images={i.id: i for i in images}, references=named, uses=uses)


def go(world: World, text: str, letter: str, *, force: bool = False, prune: bool = True) -> tuple[list[str], str]:
    reference: Reference | None = None if text == name(letter) else parse_reference(text)
    out = plan(text, name(letter), reference, world, force=force, prune=prune)
    return [r.familiar() for r in out.untagged], "".join(i[7] for i in out.deleted)


def use(letter: str, *, running: bool) -> ImageUse:
    return ImageUse("c" * 64, name(letter), "x", running)


def test_one_of_two_names() -> None:
    assert go(world(image("a"), a=["x:1", "y:1"]), "x:1", "a") == (["x:1"], "")


def test_the_last_name_takes_the_image_and_untagged_parents() -> None:
    family = world(image("a"), image("b", "a"), image("d", "b"), d=["x:1"], a=["base:1"])
    assert go(family, "x:1", "d") == (["x:1"], "db")
    assert go(family, "x:1", "d", prune=False) == (["x:1"], "d")


def test_a_parent_keeps_its_bytes() -> None:
    assert go(world(image("a"), image("b", "a"), a=["x:1"]), "x:1", "a") == (["x:1"], "")


def test_by_id_with_names_in_one_repository_and_in_two() -> None:
    assert go(world(image("a"), a=["x:1"]), name("a"), "a") == (["x:1"], "a")
    two = world(image("a"), a=["x:1", "y:1"])
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is referenced in multiple repositories"):
        go(two, name("a"), "a")
    assert go(two, name("a"), "a", force=True) == (["x:1", "y:1"], "a")


@pytest.mark.parametrize(
    ("text", "running", "force", "message"),
    [
        ("x:1", True, False, 'unable to remove repository reference "x:1" (must force) - container cccccccccccc'),
        ("x:1", False, False, "is using its referenced image aaaaaaaaaaaa"),
        (name("a"), True, True, "(cannot be forced) - image is being used by running container cccccccccccc"),
        (name("a"), False, False, "(must be forced) - image is being used by stopped container cccccccccccc"),
    ],
)
def test_containers_stand_in_the_way(text: str, running: bool, force: bool, message: str) -> None:
    with pytest.raises(Conflict) as caught:
        go(world(image("a"), uses=(use("a", running=running),), a=["x:1"]), text, "a", force=force)
    assert message in caught.value.message


def test_force_by_name_only_untags_what_runs() -> None:
    assert go(world(image("a"), uses=(use("a", running=True),), a=["x:1"]), "x:1", "a", force=True) == (["x:1"], "")
    assert go(world(image("a"), uses=(use("a", running=False),), a=["x:1"]), "x:1", "a", force=True) == (["x:1"], "a")


def test_children_cannot_be_forced() -> None:
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image has dependent child images"):
        go(world(image("a"), image("b", "a")), name("a"), "a", force=True)
