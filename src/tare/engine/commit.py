"""A container's changes as a new image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import msgspec

from tare.base.errors import Conflict, NotFound
from tare.base.reference import parse_reference
from tare.containers.container import Container, State
from tare.containers.merge import argv_of
from tare.containers.service import Slot
from tare.drivers import cgroups
from tare.engine.engine import Engine
from tare.engine.news import tell
from tare.engine.release import cgroup_path
from tare.images.records import Image
from tare.wire.config import ContainerConfig


async def commit(
    engine: Engine,
    slot: Slot,
    *,
    repository: str,
    tag: str,
    comment: str,
    author: str,
    changes: Sequence[str],
    pauses: bool,
    config: ContainerConfig | None,
    created_ns: int | None = None,
) -> str:
    """Make an image of the container's layer on top of its image. Returns the image id.

    pauses: freeze a running container meanwhile, so that the layer is of one moment. config: replaces the
    container's own where given. created_ns: what the image says, None for now: with it, the same state, author and
    comment give the same image. Raises Conflict for a dead container or one being removed.
    """
    container = slot.container
    reference = None
    if repository:
        reference = parse_reference(f"{repository}:{tag}" if tag else repository).with_default_tag()
    if container.state in (State.DEAD, State.REMOVING) or slot.is_being_removed:
        raise Conflict(f"You cannot commit container {container.id} which is {container.state.value}")
    async with slot.lock:
        with frozen(engine, container, wanted=pauses):
            image = await engine.images.commit(
                container.id,
                _base(engine, container),
                _portable(config or container.config),
                author=author,
                comment=comment,
                changes=changes,
                reference=reference,
                created_by=" ".join(argv_of(container.config)),
                created_ns=created_ns,
            )
    engine.images.tell("create", image, image.id)
    tell(engine, container, "commit", comment=comment, imageID=image.id, imageRef=repository)
    return image.id


@contextlib.contextmanager
def frozen(engine: Engine, container: Container, *, wanted: bool = True) -> Iterator[None]:
    """A running container holds still inside the block. Its slot is locked; one that was paused stays so."""
    freezes = wanted and container.state is State.RUNNING
    path = cgroup_path(container)
    if freezes:
        try:
            cgroups.freeze(engine.cgroups, path, frozen=True)
        except NotFound:  # it ended this instant: nothing writes any more
            freezes = False
    try:
        yield
    finally:
        if freezes:
            with contextlib.suppress(NotFound):
                cgroups.freeze(engine.cgroups, path, frozen=False)


def _base(engine: Engine, container: Container) -> Image | None:
    """The image it stands on, None when that has been removed meanwhile."""
    try:
        return engine.images.get(container.image_id)
    except NotFound:
        return None


def _portable(config: ContainerConfig) -> ContainerConfig:
    """The configuration without what belongs to this one container."""
    return msgspec.structs.replace(config, Hostname="", Domainname="", Image=config.Image)
