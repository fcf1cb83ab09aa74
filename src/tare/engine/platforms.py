"""Images by platform: what a name means for one, which an index has, and removing them."""

from __future__ import annotations

from collections.abc import Sequence

from tare.base.digest import Digest
from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.base.reference import Reference
from tare.engine import imagemount
from tare.engine.engine import Engine, image_uses
from tare.images.platforms import Family, choose, family_of
from tare.images.records import Image
from tare.oci.image import Platform

Done = list[tuple[str, str]]


async def family(engine: Engine, image: Image, reference: Reference | None) -> Family | None:
    """The index the image came through."""
    return await family_of(engine.images, engine.manifests, image, reference)


def is_artifact(engine: Engine, name: str) -> bool:
    """Whether a name means an artifact, and no image."""
    if engine.manifests.artifacts.named(name) is None:
        return False
    try:
        engine.images.look_up(name)
    except (NotFound, InvalidArgument):
        return True
    return False


async def tag_artifact(engine: Engine, name: str, reference: Reference) -> None:
    """Give an artifact one more name. Raises Conflict for one that an image has."""
    found = engine.manifests.artifacts.named(name)
    if found is None:
        raise NotFound(f"No such image: {name}")
    if reference in engine.images.all_references():
        raise Conflict(f"{reference.familiar()} is the name of an image", hint="remove that name first")
    await engine.manifests.artifacts.keep(found[0], reference=reference)


async def resolve(engine: Engine, name: str, wanted: Platform | None) -> Image:
    """What a name means, for the platform where one is wanted. Raises NotFound, InvalidArgument."""
    image, reference = engine.images.look_up(name)
    if wanted is None:
        return image
    return choose(await family(engine, image, reference), image, wanted, name=name)


async def remove(engine: Engine, name: str, *, force: bool, prune: bool, wanted: Sequence[Platform] = ()) -> Done:
    """Remove as dockerd does; with the last name of an index the images of its other platforms go too.

    wanted: only the images for these platforms. Raises NotFound, Conflict.
    """
    if is_artifact(engine, name):
        return await engine.manifests.artifacts.remove(name)
    image, reference = engine.images.look_up(name)
    known = await family(engine, image, reference)
    done: Done = []
    if wanted:
        chosen = [choose(known, image, platform, name=name) for platform in wanted]
        for one in {picked.id: picked for picked in chosen}.values():
            done += await _remove(engine, name if one.id == image.id else one.id, force=force, prune=prune)
        return done
    done = await _remove(engine, name, force=force, prune=prune)
    if known is None or engine.images.find(image.id) is not None:
        return done
    for member in known.here:
        assert member.image is not None
        names = engine.images.references(member.image.id)
        if all(one.digest == Digest(member.descriptor.digest) for one in names):
            try:
                done += await _remove(engine, member.image.id, force=force, prune=prune)
            except (Conflict, NotFound):
                continue  # a container has it: it stays under its digest
    return done


async def _remove(engine: Engine, name: str, *, force: bool, prune: bool) -> Done:
    uses = [*image_uses(engine), *imagemount.uses(engine)]
    return await engine.images.remove(name, uses=uses, force=force, prune=prune)
