"""The stages of a build: each is a task, waits for the stages it stands on, and goes through its instructions.

A step is looked up in the cache by the key of all that went into it; if it is not known it is done, by one build at a
time, and the next step stands on its files while its layer is still being hashed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tare.aio import failpoints
from tare.aio.tasks import spawn
from tare.base.clock import NEVER, Nanos, rfc3339nano
from tare.base.digest import Digest, parse_digest
from tare.base.errors import InvalidArgument, NotFound, TareError
from tare.base.reference import Reference, parse_reference
from tare.build import copying, evaluate
from tare.build.cache import Record, key_of
from tare.build.cachedoc import record_of
from tare.build.evaluate import CopyStep, Evaluator, RunStep, StageState
from tare.build.instructions import SCRATCH, Arg, Copy, Instruction, Pairs, Plain, Run, Stage, parse_trigger
from tare.engine.builds import copy, sandbox
from tare.engine.builds.request import STEP, Build
from tare.images import naming
from tare.images.documents import parse_platform
from tare.images.drafts import Draft, done
from tare.images.records import Image
from tare.oci.image import Platform
from tare.wire.config import ContainerConfig
from tare.wire.jsonmessage import message

COMMENT = "tare.dockerfile.v1"
Make = Callable[[], Awaitable[Draft | None]]
_RUNNING: ContextVar[int] = ContextVar("the number of the stage whose task this is")


class Standing(Struct, frozen=True, kw_only=True):
    """Where a stage is: its configuration, files, cache key, and the history so far. `layers` counts drafts in order."""

    state: StageState
    drafts: tuple[Draft, ...] = ()
    key: str = SCRATCH
    history: tuple[dict[str, object], ...] = ()
    base: Image | None = None
    at_ns: Nanos = NEVER  # when what it holds was made: an all cached build gives the same image again

    @property
    def top(self) -> Draft | None:
        """The files of now; None for nothing."""
        return self.drafts[-1] if self.drafts else None


class Stages(sandbox.Sources):
    """The stages of one build."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._tasks: dict[int, asyncio.Task[Standing]] = {}
        self._images: dict[str, asyncio.Task[Standing]] = {}
        self._waits: dict[int, set[int]] = {}  # stage: those it has waited for

    def stage(self, number: int) -> asyncio.Task[Standing]:
        """The task that builds a stage; started once."""
        task = self._tasks.get(number)
        if task is None:
            build = self._build
            work = _Stage(self, build, build.program.stages[number]).run()
            task = self._tasks[number] = spawn(work, name=f"build stage {number}", is_awaited=True)
        return task

    async def reach(self, number: int) -> Standing:
        """The end of another stage, for the stage whose task this is. Raises InvalidArgument where each would wait for the other.

        What triggers of a base image take is known only now, so circles are found here and not when the file is read.
        """
        waiting = _RUNNING.get()
        if self._leads(number, waiting):
            raise InvalidArgument(f"circular dependency detected on stage: {self._build.program.stages[waiting].name}")
        self._waits.setdefault(waiting, set()).add(number)
        return await asyncio.shield(self.stage(number))

    def _leads(self, number: int, goal: int) -> bool:
        return number == goal or any(self._leads(each, goal) for each in self._waits.get(number, ()))

    async def stop(self) -> None:
        """End what still runs and wait until it has cleaned up after itself."""
        tasks: list[asyncio.Task[Standing]] = [*self._tasks.values(), *self._images.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def image(self, name: str, platform: str = "") -> Standing:
        """The image `name`, pulled where it is missing or `--pull` was asked for. Done once for each name."""
        key = f"{name} {platform}"
        task = self._images.get(key)
        if task is None:
            task = self._images[key] = spawn(self._image(name, platform), name=f"image {name}", is_awaited=True)
        return await asyncio.shield(task)

    def images_read(self) -> list[tuple[str, Image]]:
        """The images that stages stand on or took files from, by the names used."""
        found: dict[str, Image] = {}
        for key, task in self._images.items():
            if task.done() and not task.cancelled() and task.exception() is None:
                base = task.result().base
                if base is not None:
                    found[key.partition(" ")[0]] = base
        return sorted(found.items())

    async def _image(self, name: str, platform: str) -> Standing:
        build = self._build
        images = build.engine.images
        image: Image | None = None
        if not build.wanted.pull:
            try:
                image = images.resolve(name)
                images.usage.note(image.id)
            except NotFound:
                image = None
        if image is not None and platform and not _fits(image, platform):
            image = None
        if image is None:
            image = await self._pull(name, platform)
        drafts = []
        for layer in image.layers:
            known = images.layers.find(build.lease, layer.chain_id)
            if known is None:
                raise NotFound(f"No such image: {name}")
            drafts.append(done(known))
        history = tuple(_plain(entry) for entry in image.document.history or ())
        state = evaluate.begin(image.config, author=image.document.author)
        return Standing(
            state=state,
            drafts=tuple(drafts),
            key=f"image {image.id}",
            history=history,
            base=image,
            at_ns=Nanos(naming.created_ns(image)),
        )

    async def _pull(self, name: str, platform: str) -> Image:
        build = self._build
        reference: Reference = parse_reference(name).with_default_tag()
        parts = parse_platform(platform)
        wanted = Platform(os=parts[0], architecture=parts[1], variant=parts[2]) if parts else None
        credentials = build.wanted.credentials(reference)
        async for step in await build.engine.pulls.begin(reference, platform=wanted, credentials=credentials):
            build.status(
                message(step.status, about=step.about, current=step.current, total=step.total, progress=step.is_layer)
            )
        return build.engine.images.resolve(name)

    # -- sources of mounts and copies ---------------------------------------------------------------------------------

    async def _source(self, name: str) -> Standing:
        build = self._build
        if name.lower() == SCRATCH:
            return Standing(state=evaluate.begin(ContainerConfig()))
        found = build.program.find(name) if name.lower() not in build.wanted.named else None
        if found is not None:
            return await self.reach(found.number)
        return await self.image(build.wanted.contexts.get(name, name))

    async def draft_of(self, name: str) -> Draft | None:
        """See Sources."""
        return (await self._source(name)).top

    async def key_of(self, name: str) -> str:
        """See Sources."""
        return (await self._source(name)).key


def _fits(image: Image, platform: str) -> bool:
    wanted = parse_platform(platform)
    return wanted is None or (wanted[0], wanted[1]) == (image.document.os, image.document.architecture)


def _plain(entry: object) -> dict[str, object]:
    found: dict[str, object] = msgspec.to_builtins(entry)
    return found


class _Stage:
    """One stage on its way through its instructions."""

    def __init__(self, stages: Stages, build: Build, stage: Stage) -> None:
        self._stages = stages
        self._build = build
        self._stage = stage
        self._evaluator = Evaluator(build.given, build.arguments, escape=build.program.dockerfile.escape)
        names = build.wanted.no_cache_stages
        self._no_cache = build.wanted.no_cache or stage.name in names or str(stage.number) in names

    async def run(self) -> Standing:
        build, stage = self._build, self._stage
        _RUNNING.set(stage.number)
        STEP.set(0)  # not that of the task which was the first to want this stage
        label = stage.start.name or (f"stage-{stage.number}" if len(build.program.stages) > 1 else "")
        place = partial(build.announce, stage=label, positions=1 + len(stage.body))
        name, platform = build.bases[stage.number], ""
        _, platform = evaluate.base_of(build.program, stage.number, build.arguments, build.given)
        if build.named(name) is not None:
            raise stage.start.line.error(f"the context {name} is files, not an image: use it in COPY --from={name}")
        is_stage = not name.isdecimal() and name.lower() not in build.wanted.named
        before = build.program.find(name, before=stage.number) if is_stage else None
        if before is not None:
            here = await self._stages.reach(before.number)
            place(f"FROM {stage.start.line.rest}")
            triggers = here.state.config.OnBuild or []
            state = evaluate.begin(here.state.config, author=here.state.author)
            here = replace(here, state=replace(state, arguments=here.state.arguments))
        elif name.lower() == SCRATCH:
            place(f"FROM {stage.start.line.rest}")
            here, triggers = Standing(state=evaluate.begin(ContainerConfig())), []
        else:
            image, wanted = build.wanted.contexts.get(name, name), platform or build.wanted.platform
            if build.wanted.tells_steps:
                place(f"FROM {stage.start.line.rest}")
                with build.doing():
                    here = await self._stages.image(image, wanted)
            else:  # line by line: what is said of several stages at once would be mixed
                here = await self._stages.image(image, wanted)
                place(f"FROM {stage.start.line.rest}")
            triggers = (here.base.config.OnBuild if here.base else None) or []
        with build.doing():
            build.remark(f" ---> {_short(here)}\n")
        body: list[tuple[Instruction, bool]] = [(parse_trigger(text), True) for text in triggers]
        if triggers:
            build.remark(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
        body += [(instruction, False) for instruction in stage.body]
        for position, (instruction, is_trigger) in enumerate(body):
            if not is_trigger:
                place(_as_written(instruction), position=position + 2 - len(triggers))
            eager = self._is_stood_on([rest for rest, _ in body[position + 1 :]])
            with build.doing():
                here = await self._step(here, instruction, eager=eager)
            build.remark(f" ---> {_short(here)}\n")
        return here

    def _is_stood_on(self, rest: list[Instruction]) -> bool:
        """Whether something will want the files of this step: a later step, or another stage."""
        if any(isinstance(item, Run | Copy) or item.line.keyword == "WORKDIR" for item in rest):
            return True
        return self._stage.number in self._build.stood_on

    async def _step(self, here: Standing, instruction: Instruction, *, eager: bool) -> Standing:
        if isinstance(instruction, Run):
            return await self._run(here, instruction)
        if isinstance(instruction, Copy):
            return await self._copy(here, instruction, eager=eager)
        assert isinstance(instruction, Arg | Pairs | Plain)
        state, told = self._evaluator.apply(here.state, instruction)
        if instruction.line.keyword == "WORKDIR":
            path = state.config.WorkingDir
            after = replace(here, state=state)
            key = key_of("workdir", here.key, path)

            async def make() -> Draft | None:
                return await copy.make_directory(self._build, path, here.top, eager=eager)

            return await self._do(after, key, told, make)
        sources = self._build.cache_sources
        if sources is not None and not self._no_cache and sources.have_step(here.history, told):
            self._build.use_cache()
        return replace(here, state=state, history=(*here.history, self._entry(here.at_ns, told, empty=True)))

    async def _run(self, here: Standing, run: Run) -> Standing:
        step: RunStep = self._evaluator.run(here.state, run)
        self._check_entitlements(run, step)
        host = self._build.wanted.host
        network = host.NetworkMode if step.network == "default" else step.network
        mounts: list[object] = []
        for mount in step.mounts:
            read = ""
            if mount.kind == "bind":
                read = await self._bind_key(mount.origin, mount.source)
            elif mount.kind == "cache":
                read = await self._stages.key_of(mount.origin) if mount.origin else ""
                self._build.cache_mounts[sandbox.cache_name(mount, read)] = mount.id
            mounts.append((replace(mount, uid=mount.uid), read))
        key = key_of(
            "run", here.key, step.argv, step.script, step.environment, step.arguments, step.user, step.workdir,
            [str(mount) for mount in mounts], network, step.is_privileged, host.ExtraHosts or [],
        )  # fmt: skip

        async def make() -> Draft | None:
            return await sandbox.execute(self._build, run, step, here.top, self._stages)

        return await self._do(here, key, evaluate.created_by(step), make)

    def _check_entitlements(self, run: Run, step: RunStep) -> None:
        """A Dockerfile may be a stranger's: who asks for the build says whether its steps may leave the sandbox."""
        wanted = self._build.wanted
        for name, is_asked in (
            ("security.insecure", step.is_privileged),
            ("network.host", step.network == "host" and wanted.host.NetworkMode != "host"),
        ):
            if is_asked and name not in wanted.allowed:
                raise run.line.error(f"{name} is not allowed: give --allow {name} if this Dockerfile may have it")

    async def _bind_key(self, origin: str, source: str) -> str:
        own = self._build.named(origin)
        if origin and own is None:
            return await self._stages.key_of(origin)
        tree = (own or self._build.context.spool).tree
        return copying.digest_of(tree, copying.choose(tree, [source or "/"], what="RUN --mount"))

    async def _copy(self, here: Standing, instruction: Copy, *, eager: bool) -> Standing:
        build = self._build
        step: CopyStep = self._evaluator.copy(here.state, instruction)
        try:
            gathered = await copy.gather(build, step, self._stages)
        except NotFound as error:
            raise InvalidArgument(error.message) from None
        key = key_of(
            "add" if step.adds else "copy", here.key, gathered.digest, step.sources, step.files, step.target,
            step.workdir, step.origin != "", step.chown, step.chmod, step.link, step.parents, step.excludes,
            step.unpacks, build.wanted.epoch_ns,
        )  # fmt: skip

        async def make() -> Draft | None:
            return await copy.lay(build, step, gathered, here.top, self._stages, eager=eager)

        names = [*step.sources, *(f"<<{name}" for name, _ in step.files)]
        told = f"{instruction.line.keyword} {' '.join((*instruction.line.flags, *names, step.target))}"
        return await self._do(here, key, told, make)

    # -- the cache ----------------------------------------------------------------------------------------------------

    async def _do(self, here: Standing, key: str, told: str, make: Make) -> Standing:
        """Take the step from the cache, or do it."""
        build = self._build
        build.begin_again()
        cache = build.engine.build_cache
        build.keys.append(key)
        cache.take(key)
        found = await self._cached(here, key, told)
        if found is not None:
            return found
        release = await cache.claim(key)
        try:
            if not self._no_cache and release.waited:
                if here.top is not None:
                    await here.top.made
                found = await self._cached(here, key, told)
                if found is not None:
                    release()
                    return found
            found = await self._imported(here, key, told)
            if found is not None:
                release()
                return found
            draft = await make()
        except BaseException:
            release()
            raise
        if draft is not None:
            build.drafts.append(draft)
        build.pending.append(
            spawn(self._remember(here, key, told, draft, release), name="remember build step", is_awaited=True)
        )
        return self._after(here, key, told, draft, build.now_ns)

    async def _cached(self, here: Standing, key: str, told: str) -> Standing | None:
        build = self._build
        if self._no_cache or (here.top is not None and here.top.layer is None):
            return None
        below = here.top.layer.chain_id if here.top is not None and here.top.layer is not None else None
        record = build.engine.build_cache.find(key, below=below)
        if record is None or (build.cache_sources is not None and not build.cache_sources.have_files(record.chain)):
            return None
        draft: Draft | None = None
        if not record.is_empty:
            layer = build.engine.images.layers.find(build.lease, record.chain) if record.chain else None
            if layer is None:
                return None
            draft = done(layer)
        build.use_cache()
        build.engine.build_cache.used(record)
        return self._after(here, key, told, draft, record.created_at)

    async def _imported(self, here: Standing, key: str, told: str) -> Standing | None:
        """The step as an exported cache has it; what comes in is remembered like a step that was done."""
        build = self._build
        engine = build.engine
        if self._no_cache or (here.top is not None and here.top.layer is None):
            return None
        parent = here.top.layer if here.top is not None else None
        below = parent.chain_id if parent is not None else None
        for source in build.imports:
            step = source.document.find(key, below=below)
            if step is None:
                continue
            try:
                layer = await source.layer(engine, build.lease, step, parent) if step.layer else None
            except TareError as error:
                build.tell(f"[Warning] a step of a cache is not used: {error.message}\n")
                continue
            if layer is not None:
                await engine.images.keep_layers(layer)
            await engine.build_cache.add(record_of(step, size_bytes=layer.size_bytes if layer is not None else 0))
            build.use_cache()
            return self._after(here, key, told, done(layer) if layer is not None else None, step.created_at)
        return None

    def _after(self, here: Standing, key: str, told: str, draft: Draft | None, at_ns: int) -> Standing:
        at = Nanos(at_ns if self._build.wanted.epoch_ns is None else self._build.wanted.epoch_ns)
        entry = self._entry(at, told, empty=draft is None)
        drafts = (*here.drafts, draft) if draft is not None else here.drafts
        return replace(here, drafts=drafts, key=key, history=(*here.history, entry), at_ns=at)

    def _entry(self, at: Nanos, told: str, *, empty: bool) -> dict[str, object]:
        if at == NEVER or self._build.wanted.epoch_ns is not None:
            at = Nanos(self._build.now_ns)
        entry: dict[str, object] = {
            "created": rfc3339nano(at),
            "created_by": told,
            "comment": COMMENT,
        }
        return {**entry, "empty_layer": True} if empty else entry

    async def _remember(
        self, here: Standing, key: str, told: str, draft: Draft | None, release: Callable[[], None]
    ) -> None:
        """When the layer is known, others may have it."""
        engine = self._build.engine
        try:
            below: Digest | None = (await here.top.made).chain_id if here.top is not None else None
            layer = await draft.made if draft is not None else None
            if layer is not None:
                await engine.images.keep_layers(layer)
            failpoints.hit("build.step")
            await engine.build_cache.add(
                Record(
                    key=key,
                    parent=here.key,
                    chain=layer.chain_id if layer is not None else below,
                    below=below,
                    description=told[:1000],
                    size_bytes=layer.size_bytes if layer is not None else 0,
                    created_at=Nanos(self._build.now_ns),
                )
            )
        finally:
            release()


def _short(here: Standing) -> str:
    """Twelve digits that stand for where a stage is, as the classic builder's intermediate images did."""
    if here.key.startswith("image sha256:"):
        return parse_digest(here.key.removeprefix("image "))[7:19]
    return here.key[:12] if here.key != SCRATCH else ""


def _as_written(instruction: Instruction) -> str:
    """The instruction in one line."""
    line = instruction.line
    return " ".join((line.keyword, *line.flags, line.rest))


__all__ = ["COMMENT", "Stages", "Standing"]
