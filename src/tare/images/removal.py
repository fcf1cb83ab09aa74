"""What removing an image means: Docker's rules about names, children and containers, as a plan. Pure.

Source: ENGINE-API W80; the texts are those clients search for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from tare.base.digest import Digest
from tare.base.errors import Conflict
from tare.base.ids import short_id
from tare.base.reference import Reference
from tare.images.records import Image, ImageUse


class World(Struct, frozen=True, kw_only=True):
    """Everything the rules look at."""

    images: Mapping[Digest, Image]
    references: Mapping[Digest, Sequence[Reference]]
    uses: Sequence[ImageUse]


class Removal(Struct):
    """What to do: references to drop, then images to delete (layers follow from them)."""

    untagged: list[Reference] = field(default_factory=list)
    deleted: list[Digest] = field(default_factory=list)


def _single_repository(references: Sequence[Reference]) -> bool:
    """At most one tag, everything else digests of the same repository."""
    if not references:
        return False
    tags = [reference for reference in references if reference.digest is None]
    return len(tags) <= 1 and len({reference.name for reference in references}) == 1


def _users(world: World, image_id: Digest, *, running: bool) -> list[ImageUse]:
    return [use for use in world.uses if use.image_id == image_id and use.running == running]


def plan(
    text: str, image_id: Digest, reference: Reference | None, world: World, *, force: bool, prune: bool
) -> Removal:
    """Plan the removal of what `text` named: by `reference`, or by ID when that is None. Raises Conflict."""
    out = Removal()
    references = list(world.references.get(image_id, ()))
    if reference is not None:
        if not force and _single_repository(references):
            for use in [*_users(world, image_id, running=True), *_users(world, image_id, running=False)]:
                if use.target:
                    raise Conflict(
                        f'conflict: unable to remove repository reference "{text}" (must force) - '
                        f"image is mounted at {use.target}"
                    )
                raise Conflict(
                    f'conflict: unable to remove repository reference "{text}" (must force) - container '
                    f"{short_id(use.container_id)} is using its referenced image {short_id(image_id)}"
                )
        out.untagged.append(reference)
        left = [known for known in references if known != reference]
        if reference.digest is None and not any(k.name == reference.name and k.digest is None for k in left):
            out.untagged += [known for known in left if known.name == reference.name]
            left = [known for known in left if known.name != reference.name]
        if not left:
            _delete(out, image_id, world, force=force, prune=prune, quiet=True)
        return out
    if _single_repository(references):
        _refuse(image_id, world, ignore_names=True, force=force, gone=set())
        out.untagged += sorted(references, key=Reference.canonical)
        _delete(out, image_id, world, force=force, prune=prune, quiet=False, ignore_names=True)
        return out
    _delete(out, image_id, world, force=force, prune=prune, quiet=False)
    return out


def _delete(
    out: Removal,
    image_id: Digest,
    world: World,
    *,
    force: bool,
    prune: bool,
    quiet: bool,
    ignore_names: bool = False,
) -> None:
    """Add the image, then its parents as far as nothing needs them. `quiet`: a conflict only stops."""
    while True:
        known = out.untagged
        dangling = ignore_names or not [r for r in world.references.get(image_id, ()) if r not in known]
        try:
            _refuse(image_id, world, ignore_names=dangling, force=force, gone=set(out.deleted))
        except Conflict:
            used = any(use.image_id == image_id for use in world.uses)
            children = any(i.parent == image_id for i in world.images.values() if i.id not in out.deleted)
            if quiet and (not dangling or used or children):
                return
            raise
        out.untagged += [
            r for r in sorted(world.references.get(image_id, ()), key=Reference.canonical) if r not in known
        ]
        out.deleted.append(image_id)
        parent = world.images[image_id].parent
        if not prune or parent is None or parent not in world.images:
            return
        image_id, force, quiet, ignore_names = parent, False, True, False


def _refuse(image_id: Digest, world: World, *, ignore_names: bool, force: bool, gone: set[Digest]) -> None:
    """Raise Conflict for what stands in the way; `force` overlooks the soft reasons."""

    def conflict(how: str, why: str) -> Conflict:
        return Conflict(f"conflict: unable to delete {short_id(image_id)} ({how}) - {why}")

    if any(image.parent == image_id and image.id not in gone for image in world.images.values()):
        raise conflict("cannot be forced", "image has dependent child images")
    for use in _users(world, image_id, running=True):
        if use.target:
            raise conflict("cannot be forced", f"image is mounted at {use.target}")
        raise conflict("cannot be forced", f"image is being used by running container {short_id(use.container_id)}")
    if force:
        return
    if not ignore_names and world.references.get(image_id):
        raise conflict("must be forced", "image is referenced in multiple repositories")
    for use in _users(world, image_id, running=False):
        raise conflict("must be forced", f"image is being used by stopped container {short_id(use.container_id)}")
