"""At start: runs that the last engine left unfinished are told as interrupted, and files without a record go.

What such a run had beside its log is what a build has, and is swept as that. An autobuild that is due by now runs once.
"""

from __future__ import annotations

from collections.abc import Sequence

from tare.build.autobuild import Autobuild, Run
from tare.drivers import trees
from tare.engine.autobuilds.news import tell
from tare.engine.engine import Engine


def restore(engine: Engine, interrupted: Sequence[tuple[Autobuild, Run]]) -> None:
    """interrupted: from `Autobuilds.load`."""
    root = engine.settings.data_root / "autobuilds"
    known = {item.id: item for item in engine.autobuilds.items()}
    for directory in root.iterdir() if root.is_dir() else ():
        item = known.get(directory.name)
        if item is None:
            trees.discard(directory)
            continue
        kept = {"secrets", *(f"{run.number}.log" for run in engine.autobuilds.runs(item))}
        for path in directory.iterdir():
            if path.name not in kept:
                path.unlink()
    for item, run in interrupted:
        tell(engine, item, "end", run=str(run.number), status=run.status, commit=run.commit)


__all__ = ["restore"]
