"""The whole record of a container as its clients read it."""

from __future__ import annotations

from typing import Any

import msgspec

from tare.containers.container import Container
from tare.containers.view import inspect_body
from tare.engine import links, listing
from tare.engine.engine import Engine, files_of, rootfs_of
from tare.wire.containers import ContainerBody


def inspect_json(engine: Engine, container: Container) -> bytes:
    """The body as JSON text, kept until the record changes."""
    exec_ids = engine.execs.ids_of(container.id)
    if container.host_config.Links:  # names of others, which change without this record
        return msgspec.json.encode(_body(engine, container, exec_ids, None)) + b"\n"
    return engine.inspections.encode(container, exec_ids, lambda: _body(engine, container, exec_ids, None))


async def inspect_json_with_sizes(engine: Engine, container: Container) -> bytes:
    """The same with `SizeRw` and `SizeRootFs`, which the disk is asked for."""
    sizes = await listing.sizes_of(engine, container)
    return msgspec.json.encode(_body(engine, container, engine.execs.ids_of(container.id), sizes)) + b"\n"


def _body(engine: Engine, container: Container, exec_ids: list[str], sizes: tuple[int, int] | None) -> ContainerBody:
    return inspect_body(
        container,
        files=files_of(engine, container),
        graph_driver=_graph_driver(engine, container),
        exec_ids=exec_ids,
        sizes=sizes,
        links=links.shown(engine, container),
    )


def _graph_driver(engine: Engine, container: Container) -> dict[str, Any]:
    """`GraphDriver` of inspect: the directories of the overlay."""
    upper = engine.snapshots.upper(container.id)
    return {
        "Data": {
            "ID": container.id,
            "LowerDir": ":".join(str(path) for path in engine.snapshots.lowers(container.id)),
            "MergedDir": str(rootfs_of(engine, container.id)),
            "UpperDir": str(upper),
            "WorkDir": str(upper.parent / "work"),
        },
        "Name": "overlay2",
    }
