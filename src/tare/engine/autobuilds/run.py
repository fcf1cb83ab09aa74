"""One run of an autobuild: look at the branch, and if it has a new commit, build, tag and push; every end is recorded.

A run is nobody's request: it goes on when the client that follows it leaves. What a run that was killed leaves is what a
build leaves, and goes the same way.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tare.aio.tasks import finish
from tare.aio.threads import in_thread
from tare.base import clock
from tare.base.durations import exact_duration
from tare.base.errors import TareError, Unavailable
from tare.base.reference import Reference, parse_reference
from tare.build.autobuild import FAILED, INTERRUPTED, RUNNING, SUCCEEDED, Autobuild, Run, cause_of
from tare.build.autobuilds import Live
from tare.engine.autobuilds import places
from tare.engine.autobuilds.log import RunLog
from tare.engine.autobuilds.news import tell
from tare.engine.builds import build as building
from tare.engine.builds.repository import resolve
from tare.engine.builds.request import StepFailed, Wanted
from tare.engine.engine import Engine
from tare.images.carry import Progress
from tare.images.push import Pushed
from tare.registry.credentials import ANONYMOUS, Credentials
from tare.wire.config import HostConfig
from tare.wire.errors import text_of

log = logging.getLogger(__name__)


async def run(engine: Engine, item: Autobuild, live: Live) -> None:
    """Do it. `live` is told how it goes; nothing is raised but the cancellation."""
    work = _Work(engine, item, live, cause_of(item))
    try:
        status, error, code = await _outcome(work)
        if status:
            await finish(work.ended(status, error, code=code), name="end of autobuild run")
    except asyncio.CancelledError:
        await finish(work.ended(INTERRUPTED, "the run was stopped"), name="end of autobuild run")
        raise
    finally:
        engine.autobuilds.over(live)


async def _outcome(work: _Work) -> tuple[str, str, int]:
    """Status, error and exit code to record; no status when there was nothing to build."""
    item = work.item
    try:
        async with asyncio.timeout(item.timeout_s):
            return (SUCCEEDED if await work.do() else ""), "", 0
    except TimeoutError:
        took = exact_duration(item.timeout_s * 1_000_000_000)
        return FAILED, f"the run took longer than {took}: give the autobuild another --timeout", 0
    except StepFailed as error:
        return FAILED, error.message, error.code
    except TareError as error:
        return FAILED, text_of(error), 0
    except OSError as error:
        return FAILED, f"the run cannot go on: {error.strerror or error}", 0
    except Exception:
        log.exception("run %d of autobuild %s failed", work.live.number, item.name)
        return FAILED, "the run failed because of an internal error: see the daemon's log", 0


class _Work(Struct):
    engine: Engine
    item: Autobuild
    live: Live
    cause: str
    run: Run | None = None
    log: RunLog | None = None

    async def do(self) -> bool:
        """Whether there was something to build, which is done then. Raises what went wrong."""
        engine, item, live = self.engine, self.item, self.live
        private = engine.images.options.allow_private_sources
        live.commit = await resolve(item.source, allow_private=private)
        if live.commit == item.built and not (item.is_forced and self.cause != "schedule"):
            await engine.autobuilds.looked(item, live)
            return False
        await self._begin()
        await self._build()
        if item.pushes:
            await self._push()
        return True

    async def _begin(self) -> None:
        """From here on the run is in the history."""
        self.run = Run(
            number=self.live.number,
            status=RUNNING,
            cause=self.cause,
            commit=self.live.commit,
            began_at=clock.now(),
        )
        try:
            self.log = RunLog(places.log_path(self.engine, self.item.id, self.run.number))
        finally:
            await self.engine.autobuilds.begin(self.item, self.live, self.run)
        tell(self.engine, self.item, "start", run=str(self.run.number), cause=self.cause, commit=self.run.commit)

    def say(self, text: str) -> None:
        """A piece of text for the log."""
        if self.log is not None:
            self.log.write(text)
            self.live.tell()

    # -- building -----------------------------------------------------------------------------------------------------

    def _wanted(self) -> Wanted:
        item = self.item
        epoch = item.arguments.get("SOURCE_DATE_EPOCH", "")
        return Wanted(
            dockerfile=item.dockerfile,
            tags=self._tags(),
            arguments=item.arguments,
            host=HostConfig(NetworkMode="default"),
            pull=False,
            epoch_ns=int(epoch) * 1_000_000_000 if epoch.isdecimal() else None,
            credentials=self._credentials,
        )

    def _tags(self) -> tuple[Reference, ...]:
        return tuple(parse_reference(text) for text in self.item.tags)

    def _credentials(self, reference: Reference) -> Credentials:
        """What was given is for the registry of the tags and for no other."""
        if reference.domain not in {tag.domain for tag in self._tags()[:1]}:
            return ANONYMOUS
        return places.secrets(self.engine, self.item).credentials

    async def _build(self) -> None:
        item = self.item
        remote = f"{item.git}#{item.source.ref}:{item.context.strip('/')}"
        stream = await building.begin(self.engine, self._wanted(), None, remote=remote)
        self._known(commit=stream.commit)
        failure: StepFailed | None = None
        async with aclosing(stream):
            async for raw in stream:
                failure = self._message(msgspec.json.decode(raw)) or failure
        if failure is not None:
            raise failure

    def _message(self, told: Any) -> StepFailed | None:
        """Take note of what the build says; its failure, if that is what it says."""
        if "stream" in told:
            self.say(told["stream"])
        elif "errorDetail" in told:
            detail = told["errorDetail"]
            return StepFailed(detail["message"], code=detail.get("code", 0))
        elif "aux" in told:
            self._known(image=told["aux"]["ID"])
        elif told.get("status") and not told.get("progressDetail"):
            about = f"{told['id']}: " if told.get("id") else ""
            self.say(f"{about}{told['status']}\n")
        return None

    async def _push(self) -> None:
        pushed: list[str] = []
        for reference in self._tags():
            last = ("", "")
            steps = self.engine.pushes.begin(reference, credentials=self._credentials(reference))
            async with aclosing(steps):  # type: ignore[type-var]
                async for step in steps:
                    if isinstance(step, Pushed):
                        pushed.append(f"{reference.familiar()}@{step.digest}")
                        self._known(pushed=tuple(pushed))
                    elif isinstance(step, Progress) and (step.about, step.status) != last:
                        last = (step.about, step.status)
                        self.say(f"{step.about}: {step.status}\n" if step.about else f"{step.status}\n")

    def _known(self, *, commit: str = "", image: str = "", pushed: tuple[str, ...] = ()) -> None:
        assert self.run is not None
        self.run = replace(
            self.run,
            commit=commit or self.run.commit,
            image=image or self.run.image,
            pushed=pushed or self.run.pushed,
        )
        self.live.run = self.run

    # -- the end ------------------------------------------------------------------------------------------------------

    async def ended(self, status: str, error: str = "", *, code: int = 0) -> None:
        """Record how it ended. Idempotent."""
        engine, item = self.engine, self.item
        if self.run is not None and self.run.status != RUNNING:
            return
        if self.run is None:
            await self._begin()
        assert self.run is not None
        try:
            if error:
                self.say(f"{error}\n")
            if self.log is not None:
                await in_thread(self.log.close)
        except OSError:
            log.exception("the log of run %d of autobuild %s is not complete", self.run.number, item.name)
            error = error or text_of(Unavailable("no space left on device for the log"))
        self.run = replace(
            self.run,
            status=status,
            error=error,
            code=code,
            ended_at=clock.now(),
            log_bytes=self.log.size if self.log else 0,
        )
        self.live.run = self.run
        for number in await engine.autobuilds.end(item, self.run):
            places.log_path(engine, item.id, number).unlink(missing_ok=True)
        done = self.run
        tell(
            engine, item, "end", run=str(done.number), status=status, commit=done.commit, image=done.image,
            exitCode=str(code) if status == FAILED else "",
        )  # fmt: skip


__all__ = ["run"]
