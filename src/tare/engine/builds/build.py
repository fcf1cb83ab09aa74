"""`build`: a context and a Dockerfile become an image, told step by step in the classic builder's words."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct, field

from tare.aio.tasks import finish, spawn
from tare.aio.threads import in_thread
from tare.base import clock
from tare.base.clock import Nanos, rfc3339nano
from tare.base.digest import Digest, hex_of, sha256
from tare.base.errors import InvalidArgument, NotFound, TareError
from tare.base.ids import random_id
from tare.base.reference import parse_reference
from tare.build import copying, evaluate
from tare.build.cachedoc import Held
from tare.build.evaluate import Given
from tare.build.evaluate import Platform as BuildPlatform
from tare.build.gitref import parse_git
from tare.build.instructions import Program, needed, parse_program, sources_of
from tare.build.lint import Warned, lint, read_settings, refuse
from tare.build.squash import squashed_history
from tare.drivers import trees
from tare.engine.builds import cacheexport, cacheimport, provenance, results
from tare.engine.builds.cachefrom import cache_sources
from tare.engine.builds.context import Context, Spool, receive, spool
from tare.engine.builds.copy import repository_files
from tare.engine.builds.prune import keep_within
from tare.engine.builds.repository import fetch
from tare.engine.builds.request import STEP, Build, StepFailed, Wanted
from tare.engine.builds.squash import squashed
from tare.engine.builds.stages import Stages, Standing
from tare.engine.engine import Engine
from tare.images.documents import config_document, host_architecture, parse_platform
from tare.images.layers import Lease
from tare.images.records import Image, Layer
from tare.images.sources import open_url, url_chunks
from tare.store.reserve import check_room
from tare.wire.changes import set_labels
from tare.wire.errors import text_of
from tare.wire.jsonmessage import failure, message

log = logging.getLogger(__name__)

_QUEUE_HIGH, _QUEUE_LOW = 1000, 500  # messages: past the first a step's output waits for the client

CHECK_ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"

_running: dict[str, BuildStream] = {}
"""Builds by the id their client gave them, for `cancel`."""


class BuildStream:
    """The messages of a build. Whoever has it must iterate it or `aclose` it: the build ends with it."""

    def __init__(self, work: _Work, client_id: str) -> None:
        self._work = work
        self._task = spawn(work.run(), name="build", is_awaited=True)
        self._client_id = client_id
        if client_id:
            _running[client_id] = self

    @property
    def commit(self) -> str:
        """The commit of the repository that is the context; "" for other contexts."""
        return self._work.context.origin.get("commit", "")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        item = await self._work.messages.get()
        if self._work.messages.qsize() < _QUEUE_LOW:
            self._work.has_room.set()
        if item is None:
            await self._ended()
            raise StopAsyncIteration
        return item

    def cancel(self) -> None:
        """End the build, unless its image is being kept already: who is told that it was cancelled finds no image."""
        if not self._work.is_kept:
            self._task.cancel()

    async def aclose(self) -> None:
        """The client is gone: end the build and wait until nothing of it is left."""
        self._task.cancel()
        await finish(self._ended(), name="end of build")

    async def _ended(self) -> None:
        await asyncio.gather(self._task, return_exceptions=True)
        if self._client_id and _running.get(self._client_id) is self:
            del _running[self._client_id]


def cancel(client_id: str) -> None:
    """End the build its client called `client_id`. Idempotent."""
    stream = _running.get(client_id)
    if stream is not None:
        stream.cancel()


class _Plan(Struct):
    """A Dockerfile with what the request says about it."""

    program: Program
    given: Given
    arguments: dict[str, str]
    bases: list[str]
    stages: list[int]


def _plan(dockerfile: bytes, wanted: Wanted) -> _Plan:
    program = parse_program(dockerfile)
    host = BuildPlatform(architecture=host_architecture())
    parts = parse_platform(wanted.platform)
    target = BuildPlatform(system=parts[0], architecture=parts[1], variant=parts[2]) if parts else host
    given = Given(arguments=wanted.arguments, build=host, target=target, target_stage=wanted.target or "default")
    arguments = evaluate.global_arguments(program, given)
    bases = [evaluate.base_of(program, stage.number, arguments, given)[0] for stage in program.stages]
    return _Plan(program, given, arguments, bases, needed(program, wanted.target, bases, replaced=wanted.named))


async def begin(
    engine: Engine, wanted: Wanted, source: AsyncIterator[bytes] | None, *, remote: str = "", client_id: str = ""
) -> BuildStream:
    """Take the context in and understand the Dockerfile; the stream that is returned builds.

    source: the context as a tar, None when `remote`, a URL or a git repository, has it. Raises InvalidArgument (DockerfileError with the
    line), NotFound (no Dockerfile), Unavailable. Nothing is left when it raises.
    """
    build_id, directory = _place(engine)
    try:
        context, plan, warned = await _understood(engine, wanted, source, remote, directory)
    except BaseException:
        trees.discard(directory)
        raise
    return BuildStream(_Work(engine, wanted, build_id, context, plan, warned), client_id)


async def check(
    engine: Engine, wanted: Wanted, source: AsyncIterator[bytes] | None, *, remote: str = ""
) -> list[Warned]:
    """What is unwise in the Dockerfile; nothing is built. Raises as `begin`."""
    _, directory = _place(engine)
    try:
        context, _, warned = await _understood(engine, wanted, source, remote, directory, is_check=True)
        context.close()
        return warned
    finally:
        trees.discard(directory)


def _place(engine: Engine) -> tuple[str, Path]:
    """An ID for a build, and its directory. Raises Unavailable on a full disk."""
    build_id = random_id()
    directory = engine.settings.data_root / "builds" / build_id
    check_room(directory.parent)
    directory.mkdir(mode=0o700, parents=True)
    return build_id, directory


async def _understood(
    engine: Engine,
    wanted: Wanted,
    source: AsyncIterator[bytes] | None,
    remote: str,
    directory: Path,
    *,
    is_check: bool = False,
) -> tuple[Context, _Plan, list[Warned]]:
    """The context, the plan, and what is unwise in it. The context is closed when this raises."""
    context = await _received(engine, wanted, source, remote, directory)
    try:
        for name, prefix in wanted.local_contexts.items():
            context.named[name] = context.take_out(prefix)
        for place in filter(None, (cache.place for cache in wanted.cache_sources)):
            context.caches[place] = context.take_out(place)
        for name, url in wanted.remote_contexts.items():
            context.named[name] = await _fetched(engine, url, directory)
        plan = _plan(context.dockerfile, wanted)
        settings = read_settings(
            wanted.arguments.get(CHECK_ARGUMENT, plan.program.dockerfile.directives.get("check", ""))
        )
        warned = lint(
            plan.program,
            context.dockerfile.decode("utf-8", "replace"),
            plan.given,
            environment_of=partial(_environment, engine, wanted),
            is_ignored=context.ignore.leaves_out,
            settings=settings,
        )
        if settings.is_error and not is_check:
            refuse(warned)
        return context, plan, warned
    except BaseException:
        context.close()
        raise


def _environment(engine: Engine, wanted: Wanted, name: str) -> list[str] | None:
    """The environment of an image that is here."""
    try:
        return engine.images.resolve(wanted.contexts.get(name, name)).config.Env or []
    except (NotFound, InvalidArgument):
        return None


async def _fetched(engine: Engine, url: str, directory: Path) -> Spool:
    """A further context: the files of a repository, or of a tar at a URL."""
    options = engine.images.options
    git = parse_git(url)
    if git is not None:
        return (await repository_files(engine, git, directory))[0]
    response = await in_thread(lambda: open_url(url, allow_private=options.allow_private_sources))
    chunks = url_chunks(response, max_bytes=options.max_source_bytes, max_seconds=options.max_source_seconds)
    return await spool(engine.archiver, directory, chunks)


async def _received(
    engine: Engine, wanted: Wanted, source: AsyncIterator[bytes] | None, remote: str, directory: Path
) -> Context:
    options = engine.images.options
    git = parse_git(remote) if source is None else None
    if git is not None:
        place = directory / "git"
        place.mkdir(mode=0o700)
        found = await fetch(git, place, allow_private=options.allow_private_sources)
        try:
            source = engine.archiver.pack_chunks(found.fd)
            context = await receive(engine.archiver, directory, source, dockerfile=wanted.dockerfile)
        finally:
            os.close(found.fd)
        context.origin = {"uri": remote, "commit": found.commit}
        context.submodules = [(module.url, module.commit) for module in found.submodules]
        return context
    if source is None:
        response = await in_thread(lambda: open_url(remote, allow_private=options.allow_private_sources))
        source = url_chunks(response, max_bytes=options.max_source_bytes, max_seconds=options.max_source_seconds)
    return await receive(engine.archiver, directory, source, dockerfile=wanted.dockerfile, is_remote=bool(remote))


class _Work(Struct):
    """One build from its plan to its end."""

    engine: Engine
    wanted: Wanted
    build_id: str
    context: Context
    plan: _Plan
    warned: list[Warned] = field(default_factory=list)
    messages: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    has_room: asyncio.Event = field(default_factory=asyncio.Event)
    held: Digest | None = None  # the image that is kept until it is read
    is_kept: bool = False  # its image is among the engine's, or becomes one of them now

    def tell(self, text: str) -> None:
        """A piece of text for the client."""
        if not self.wanted.quiet:
            self.say(message(stream=text, step=STEP.get() if self.wanted.tells_steps else None))

    def say(self, data: bytes) -> None:
        """A message for the client."""
        self.messages.put_nowait(data)
        if self.messages.qsize() > _QUEUE_HIGH:
            self.has_room.clear()

    async def room(self) -> None:
        """Wait while the client is slow to take what it was told."""
        await self.has_room.wait()

    async def run(self) -> None:
        """Build. The last message tells an error; the queue ends with None."""
        last: bytes | None = None
        self.has_room.set()
        try:
            async with self.engine.images.lease() as lease:
                build = self._build(lease)
                try:
                    await self._run(build)
                finally:
                    await finish(self._clear(build), name="clear build")
        except StepFailed as error:
            last = failure(error.message, code=error.code)
        except TareError as error:
            last = failure(text_of(error))
        except asyncio.CancelledError:
            last = failure("build cancelled")
            if self.held is not None:
                await finish(results.held.let_go(self.held), name="let go of a build's result")
            raise
        except Exception:
            log.exception("build failed")
            last = failure("build failed because of an internal error: see the daemon's log")
        finally:
            await finish(self._trim(), name="trim build cache")
            if last is not None:
                self.messages.put_nowait(last)
            self.messages.put_nowait(None)

    async def _trim(self) -> None:
        limit = self.engine.settings.builder_cache_bytes
        if not limit:
            return
        try:
            await keep_within(self.engine, limit)
        except (TareError, OSError):  # the build is what it is without it; the next one tries again
            log.exception("cannot trim the build cache")

    def _build(self, lease: Lease) -> Build:
        plan = self.plan
        stood_on: set[int] = set()
        for number in plan.stages:
            sources = map(plan.program.find, sources_of(plan.program.stages[number]))
            found = [plan.program.find(plan.bases[number], before=number), *sources]
            stood_on.update(stage.number for stage in found if stage is not None)
        return Build(
            engine=self.engine,
            wanted=self.wanted,
            build_id=self.build_id,
            directory=self.engine.settings.data_root / "builds" / self.build_id,
            context=self.context,
            program=plan.program,
            given=plan.given,
            arguments=plan.arguments,
            bases=plan.bases,
            stood_on=frozenset(stood_on),
            lease=lease,
            tell=self.tell,
            status=self.say,
            room=self.room,
            cache_sources=cache_sources(self.engine.images, self.wanted.cache_from),
            steps=sum(1 + len(plan.program.stages[number].body) for number in plan.stages),
            started_ns=clock.now(),
        )

    async def _import(self, build: Build) -> None:
        """Look into the caches to take from. One that cannot be read is told: the first build of all has none."""
        for source in self.wanted.cache_sources:
            try:
                found = await cacheimport.load(
                    build.engine, source, spools=self.context.caches, credentials=self.wanted.credentials
                )
            except TareError as error:
                self.tell(f"[Warning] the cache of {source} is not used: {text_of(error)}\n")
            else:
                build.imports.append(found)

    async def _export(self, build: Build, result: Standing) -> None:
        """Send the cache where it was asked to go, or remember what whoever built will ask for."""
        held = Held(result.key, tuple(dict.fromkeys(build.keys)), dict(build.cache_mounts))
        for target in self.wanted.cache_targets:
            if target.reference is None:
                cacheexport.hold(build.build_id, held)
                self.say(message(aux={"Cache": build.build_id}))
                continue
            self.tell(f"Exporting the cache to {target.reference.familiar()}\n")
            credentials = self.wanted.credentials(target.reference)
            await cacheexport.to_registry(build.engine, held, target, credentials=credentials, tell=self.tell)

    async def _run(self, build: Build) -> None:
        stages = Stages(build)
        try:
            await self._import(build)
            tasks = [stages.stage(number) for number in self.plan.stages]
            await _all(tasks)
            result = await tasks[-1]
            unused = build.given.unused()
            if unused:
                self.tell(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
            file = self.wanted.dockerfile or "Dockerfile"
            for found in self.warned:
                self.tell(f"[Warning] {found.rule}: {found.text} ({file}:{found.line})\n")
            image = await self._image(build, result)
            if self.wanted.provenance:
                await self._attest(build, stages, image)
            if build.pending:
                await asyncio.gather(*build.pending)
            await self._export(build, result)
        finally:
            await finish(stages.stop(), name="stop stages")
        if self.wanted.quiet:
            self.say(message(stream=f"{image.id}\n"))
            return
        self.say(message(aux={"ID": image.id}))
        self.tell(f"Successfully built {image.id[7:19]}\n")
        for reference in self.wanted.tags:
            self.tell(f"Successfully tagged {reference.familiar()}\n")

    async def _image(self, build: Build, result: Standing) -> Image:
        layers: list[Layer] = [await draft.made for draft in result.drafts]
        config = (
            set_labels(result.state.config, self.wanted.labels.items()) if self.wanted.labels else result.state.config
        )
        config = msgspec.structs.replace(config, Hostname="", Domainname="", Image="")
        created = Nanos(build.now_ns) if self.wanted.epoch_ns is not None or not result.at_ns else result.at_ns
        base = result.base
        platform = parse_platform(self.wanted.platform)
        if base is not None:
            platform = (base.document.os, base.document.architecture, base.document.variant)
        images = build.engine.images

        def document(history: Sequence[dict[str, object]]) -> bytes:
            return config_document(
                config,
                created=rfc3339nano(created),
                layers=layers,
                history=list(history),
                platform=platform,
                author=result.state.author,
            )

        raw = document(result.history)
        kept = len(base.layers) if base is not None else 0
        if self.wanted.squash and len(layers) - kept > 1:
            whole = sha256(raw)
            layers = await squashed(build, layers, kept=kept)
            before = len(base.document.history or ()) if base is not None else 0
            raw = document(
                squashed_history(
                    result.history, kept=before, image=whole, base=base.id if base else "", created=rfc3339nano(created)
                )
            )
        image_id = sha256(raw)
        is_new = images.find(image_id) is None
        if self.wanted.is_for_output and not self.wanted.tags and (is_new or image_id in results.held):
            results.held.hold(image_id, partial(results.forget, build.engine))
            self.held = image_id
        self.is_kept = True
        image = await images.add_image(raw, layers, references=self.wanted.tags)
        if is_new:
            images.tell("create", image, image.id)
        return image

    async def _attest(self, build: Build, stages: Stages, image: Image) -> None:
        """Keep what the build read as a statement about its image."""
        images, context, wanted = build.engine.images, self.context, self.wanted
        read: list[Mapping[str, object]] = [*build.read]
        for name, base in stages.images_read():
            digests = [reference.digest for reference in images.references(base.id) if reference.digest]
            about = parse_reference(name).with_default_tag().canonical()
            read.append(
                {"uri": f"docker-image://{about}", "digest": {"sha256": hex_of(digests[0] if digests else base.id)}}
            )
        for name, taken in (("context", context.spool), *context.named.items()):
            chosen = copying.choose(taken.tree, ["/"], what="provenance")
            files = {"sha256": await in_thread(copying.digest_of, taken.tree, chosen)}
            read.append({"uri": wanted.remote_contexts.get(name, f"context:{name}"), "digest": files})
        if context.origin:
            read.append({"uri": context.origin["uri"], "digest": {"sha1": context.origin["commit"]}})
            read += [{"uri": uri, "digest": {"sha1": commit}} for uri, commit in context.submodules]
        told = provenance.Told(
            image=image.id,
            names=wanted.tags,
            build_id=build.build_id,
            started=rfc3339nano(Nanos(build.started_ns)),
            finished=rfc3339nano(clock.now()),
            platform=str(self.plan.given.build),
            file=wanted.dockerfile or "Dockerfile",
            dockerfile=context.dockerfile,
            origin=context.origin,
            read=read,
            target=wanted.target,
            arguments=wanted.arguments,
            labels=wanted.labels,
            secrets=list(wanted.secrets),
            agents=list(wanted.agents),
        )
        document = provenance.statement(told, mode=wanted.provenance)
        await in_thread(provenance.write, build.engine.settings.data_root, image.id, document)

    async def _clear(self, build: Build) -> None:
        """Take away what the build had; what it made is recorded first, so that it is found again."""
        await asyncio.gather(*build.pending, return_exceptions=True)
        for draft in build.drafts:
            await asyncio.gather(draft.made, return_exceptions=True)
            build.engine.images.drafts.drop(draft)
        build.engine.build_cache.give_back(build.keys)
        build.context.close()
        for taken in build.spools:
            taken.close()
        await in_thread(trees.discard, build.directory)
        shutil.rmtree(build.engine.settings.exec_root / "builds" / build.build_id, ignore_errors=True)


async def _all(tasks: list[asyncio.Task[Standing]]) -> None:
    """Wait for all; the first failure ends the waiting. A failure that only repeats another stage's is that one's."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


__all__ = ["BuildStream", "begin", "cancel", "check"]
