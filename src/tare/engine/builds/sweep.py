"""At the engine's start: what builds of one that is gone left behind."""

from __future__ import annotations

from pathlib import Path

from tare.drivers import trees
from tare.engine.engine import Engine


def sweep(engine: Engine) -> None:
    """Contexts, mounts and secrets of builds, and statements about images that are not here."""
    for directory in (engine.settings.data_root / "builds", engine.settings.exec_root / "builds"):
        if not directory.is_dir():
            continue
        for path in directory.iterdir():
            engine.snapshots.unmount(path)
            for place in path.iterdir() if path.is_dir() else ():
                engine.snapshots.unmount(place)
            trees.discard(path)
    known: set[str] = {image.id for image in engine.images.list_images({}, include_all=True)}
    drop_statements(engine.settings.data_root, known)
    if not (engine.settings.data_root / "builds").is_dir():
        (engine.settings.data_root / "builds").mkdir(mode=0o700)


def drop_statements(data_root: Path, known: set[str]) -> None:
    """Remove what `provenance` has written about images whose IDs are not `known`."""
    directory = data_root / "provenance"
    for path in directory.iterdir() if directory.is_dir() else ():
        if f"sha256:{path.name.removesuffix('.json')}" not in known:
            path.unlink()
