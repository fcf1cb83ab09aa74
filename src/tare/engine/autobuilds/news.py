"""Telling about autobuilds. Nothing secret is among the attributes."""

from __future__ import annotations

from tare.base.news import News
from tare.build.autobuild import Autobuild
from tare.engine.engine import Engine


def tell(engine: Engine, item: Autobuild, action: str, **extra: str) -> None:
    """Publish an event of type `autobuild`: create, start, end, pause, resume, destroy."""
    attributes = {"name": item.name, **{key: value for key, value in extra.items() if value}}
    engine.events.publish(News(type="autobuild", action=action, id=item.id, attributes=attributes))


__all__ = ["tell"]
