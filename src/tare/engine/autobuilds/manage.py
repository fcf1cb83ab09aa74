"""Autobuilds are added, asked to run, paused and removed."""

from __future__ import annotations

import asyncio
import secrets

from msgspec.structs import replace

from tare.aio.tasks import finish
from tare.aio.threads import in_thread
from tare.aio.undo import undo_on_error
from tare.base.errors import Conflict, Unauthorized
from tare.base.ids import random_id
from tare.base.reference import parse_reference
from tare.build.autobuild import Autobuild, check, is_signed
from tare.build.autobuilds import Live
from tare.engine.autobuilds import places
from tare.engine.autobuilds.news import tell
from tare.engine.builds.repository import resolve
from tare.engine.engine import Engine
from tare.registry.credentials import Credentials

HOOK, REQUEST = "hook", "request"


async def add(engine: Engine, wanted: Autobuild, credentials: Credentials) -> tuple[Autobuild, str]:
    """Make an autobuild; what it is now, and the secret of its hook, which is shown this once.

    wanted: without id and times. The repository is asked for the branch, so that a wrong name is found now.
    Raises InvalidArgument, Conflict, and as `repository.resolve`.
    """
    check(wanted)
    tags = dict.fromkeys(parse_reference(text).with_default_tag().canonical() for text in wanted.tags)
    item = replace(wanted, id=random_id(), tags=tuple(tags), has_credentials=credentials.has_secret)
    await resolve(item.source, allow_private=engine.images.options.allow_private_sources)
    hook = secrets.token_hex(32)

    async def store() -> Autobuild:
        async with undo_on_error("add autobuild") as undo:
            undo.push(places.discard, engine, item.id)
            await in_thread(places.make, engine, item.id, places.secrets_of(hook, credentials))
            return await engine.autobuilds.add(item)

    item = await finish(store(), name="add autobuild")
    tell(engine, item, "create")
    return item, hook


async def ask(engine: Engine, name: str, *, is_forced: bool) -> tuple[Autobuild, asyncio.Future[Live]]:
    """Run it as soon as one may run, paused or not. What resolves with the run. Raises NotFound."""
    item = engine.autobuilds.find(name)
    begun = engine.autobuilds.begun(item)
    await engine.autobuilds.ask(item, cause=REQUEST, is_forced=is_forced)
    return item, begun


async def hook(engine: Engine, name: str, body: bytes, signature: str) -> None:
    """A hook request: what it says is not believed, that it came is. Raises NotFound, Unauthorized, Conflict (paused)."""
    item = engine.autobuilds.find(name)
    if not is_signed(body, signature, places.secrets(engine, item).hook):
        raise Unauthorized(
            "the hook request is not signed with this autobuild's secret",
            hint="X-Hub-Signature-256: sha256=HMAC of the body, as GitHub and Gitea send it",
        )
    if item.is_paused:
        raise Conflict(f"autobuild {name} is paused", hint=f"tare autobuild resume {name}")
    await engine.autobuilds.ask(item, cause=HOOK)


async def pause(engine: Engine, name: str, *, is_paused: bool) -> None:
    """Its schedule and its hooks rest, or go on from now. Idempotent. Raises NotFound."""
    item = engine.autobuilds.find(name)
    if item.is_paused != is_paused:
        await engine.autobuilds.pause(item, is_paused=is_paused)
        tell(engine, item, "pause" if is_paused else "resume")


async def stop(engine: Engine, name: str) -> None:
    """End the run that goes on, and return when nothing of it is left. Raises NotFound, Conflict when none does."""
    live = engine.autobuilds.live.get(engine.autobuilds.find(name).id)
    if live is None:
        raise Conflict(f"autobuild {name} does not run now")
    await _end(live)


async def _end(live: Live) -> None:
    if live.task is not None:
        live.task.cancel()
        await asyncio.wait({live.task})


async def remove(engine: Engine, name: str) -> None:
    """Forget it, its history, logs and secrets; a run that goes on ends. Images stay. Raises NotFound."""
    item = engine.autobuilds.find(name)

    async def go() -> None:
        engine.autobuilds.hide(item)
        if (live := engine.autobuilds.live.get(item.id)) is not None:
            await _end(live)
        await engine.autobuilds.remove(item)
        await in_thread(places.discard, engine, item.id)

    await finish(go(), name="remove autobuild")
    tell(engine, item, "destroy")


__all__ = ["add", "ask", "hook", "pause", "remove", "stop"]
