"""Telling about containers: the attributes every container event carries (W41)."""

from __future__ import annotations

from tare.base.news import News
from tare.containers.container import Container
from tare.engine.engine import Engine


def tell(engine: Engine, container: Container, action: str, **extra: str) -> None:
    """Publish a container event: labels, image and name, then what the action adds."""
    attributes = {**container.labels, "image": container.image_reference, "name": container.name, **extra}
    engine.events.publish(News(type="container", action=action, id=container.id, attributes=attributes))
