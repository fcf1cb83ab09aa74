"""Images by platform: what a name means for one, which an index has, and removing them."""

from __future__ import annotations

from collections.abc import Sequence

from tare.base import clock
from tare.base.digest import Digest
from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.base.reference import Reference
from tare.engine import imagemount
from tare.engine.engine import Engine, image_uses
from tare.images import naming
from tare.images.artifacts import Artifact, Artifacts
from tare.images.platforms import Family, choose, family_of
from tare.images.records import Image
from tare.oci.image import Platform
from tare.wire.filters import Filters, flag, labels_match

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
    engine.manifests.artifacts.tell("tag", found[0], reference.familiar())


async def prune(engine: Engine, filters: Filters) -> tuple[Done, int]:
    """Remove what no container uses: untagged images, or with dangling=false all, and all artifacts, which have no use
    here. The records and bytes freed.

    Of artifacts, label and until are asked of the annotations; one that does not say when it was made is not older than
    anything, and nobody knows when it was used. Those that travel with an image stay with it. Raises InvalidArgument.
    """
    artifacts = engine.manifests.artifacts
    before = artifacts.bytes()
    done, freed = await engine.images.prune(filters, uses=[*image_uses(engine), *imagemount.uses(engine)])
    if flag(filters, "dangling") is False and not filters.get("unused-for"):
        done += await _prune_artifacts(artifacts, filters)
    return done, freed + before - artifacts.bytes()


async def _prune_artifacts(artifacts: Artifacts, filters: Filters) -> Done:
    until = [naming.parse_moment(value, clock.now()) for value in filters.get("until", ())]

    def fits(artifact: Artifact) -> bool:
        annotations = artifact.document.annotations or {}
        created = naming.time_ns(annotations.get("org.opencontainers.image.created", ""))
        return labels_match(filters, annotations) and all(0 < created < moment for moment in until)

    return await artifacts.prune(fits)


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
