"""Renaming a container."""

from __future__ import annotations

from tare.containers.service import Slot
from tare.engine.engine import Engine
from tare.engine.news import tell


async def rename(engine: Engine, slot: Slot, name: str) -> None:
    """Give it another name. Raises InvalidArgument, Conflict."""
    async with slot.lock:
        old = await engine.containers.rename(slot, name)
        engine.networks.renamed(slot.container.id, slot.container.name)
        if slot.container.is_running and slot.container.endpoints:
            endpoints = engine.networks.attachment_of(slot.container.id).endpoints
            await engine.containers.save(slot, endpoints=endpoints)
    tell(engine, slot.container, "rename", oldName=f"/{old}")
