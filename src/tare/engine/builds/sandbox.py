"""A RUN step: a real container on the files of the step before; what it leaves becomes a draft."""

from __future__ import annotations

import asyncio
import codecs
import errno
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from tare.aio.tasks import finish, spawn
from tare.aio.threads import in_thread
from tare.base.errors import InvalidArgument, NotFound, TareError
from tare.build.evaluate import SCRIPT_PATH, RunStep
from tare.build.instructions import Run
from tare.build.mounts import Mount
from tare.containers.hub import Subscriber
from tare.containers.service import Slot
from tare.drivers import linux, trees, userns
from tare.drivers.archive.client import Options
from tare.drivers.snapshots import Ids
from tare.engine.builds import agents, stubs
from tare.engine.builds.cachemounts import in_use
from tare.engine.builds.compose import compose_tree
from tare.engine.builds.context import Spool
from tare.engine.builds.request import Build, StepFailed
from tare.engine.create import Base, create_on
from tare.engine.remove import remove
from tare.engine.start import start
from tare.images.drafts import Draft
from tare.wire.config import ContainerConfig, CreateBody, LogSettings
from tare.wire.config import Mount as WireMount


class _Guard:
    """A lock, and how many want it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


_locks: dict[str, _Guard] = {}
"""Directories of cache mounts that a step has for itself, or waits for."""
_PIDS_PERCENT, _MAX_PIDS = 15, 16384
_RED, _PLAIN = (
    "\x1b[91m",
    "\x1b[0m",
)  # around what a step writes to stderr: the stream of a build has no other mark for it


async def execute(build: Build, run: Run, step: RunStep, below: Draft | None, sources: Sources) -> Draft | None:
    """Run the step. The draft of what it changed, None if it changed nothing. Raises StepFailed, TareError."""
    engine = build.engine
    await ready(build, below)
    async with AsyncExitStack() as stack:
        mounts, extra = await _mounts(build, run, step, sources, stack)
        body = _body(build, step, mounts)
        base = Base(
            image_id=f"sha256:{build.build_id}",
            config=ContainerConfig(),
            snapshot=below.snapshot if below is not None else None,
        )
        slot = await _created(build, body, base)
        container = slot.container
        slot.hidden_environment = (*step.hidden, *extra)
        try:
            build.remark(f" ---> Running in {container.id[:12]}\n")
            subscriber = slot.hub.subscribe()
            reading = spawn(_relay(build, subscriber), name="output of a build step", is_awaited=True)
            try:
                ended = slot.wait("next-exit")
                await finish(start(engine, slot), name="start build step")  # half a start is nobody's to end
                outcome = await ended
                await reading
            finally:
                slot.hub.unsubscribe(subscriber)
                reading.cancel()
            if outcome.exit_code:
                words = " ".join(step.argv)
                raise StepFailed(
                    f"The command '{words}' returned a non-zero code: {outcome.exit_code}", code=outcome.exit_code
                )
            await slot.stopped.wait()
            if step.mounts:
                await _clear(build, below, container.id, [mount.target for mount in step.mounts if mount.target])
            if engine.images.drafts.is_empty(container.id):
                return None
            return engine.images.drafts.seal(build.lease, container.id, below, newest_ns=build.wanted.epoch_ns)
        finally:
            await finish(remove(engine, slot, force=True, volumes=True), name="remove build step")
            build.remark(f" ---> Removed intermediate container {container.id[:12]}\n")


async def _created(build: Build, body: CreateBody, base: Base) -> Slot:
    """The container of a step. One that is being made when the build ends is finished, and then removed."""
    engine = build.engine
    creating = spawn(create_on(engine, body, base, build_id=build.build_id), name="create build step", is_awaited=True)
    try:
        container, _ = await asyncio.shield(creating)
    except asyncio.CancelledError:
        await asyncio.wait({creating})
        if creating.exception() is None:
            slot = engine.containers.find(creating.result()[0].id)
            await finish(remove(engine, slot, force=True, volumes=True), name="remove build step")
        raise
    return engine.containers.find(container.id)


async def _clear(build: Build, below: Draft | None, container_id: str, targets: list[str]) -> None:
    """Take away what was made only to mount something on it."""
    async with mounted(build, below) as root:
        made = stubs.missing(root, targets)
    stubs.remove(build.engine.snapshots.upper(container_id), made)


async def ready(build: Build, below: Draft | None) -> None:
    """Make sure that the files of a draft are there to be mounted."""
    if below is not None and (layer := below.layer) is not None:
        await build.engine.images.layers.make_ready(layer.chain_id)


async def _relay(build: Build, subscriber: Subscriber) -> None:
    decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in (1, 2)}
    while packets := await subscriber.read():
        for stream, data in packets:
            text = decoders[stream].decode(data)
            if text:
                build.tell(f"{_RED}{text}{_PLAIN}" if stream == 2 else text)
        await build.room()


def pids_limit(asked: int | None) -> int | None:
    """How many processes a step may have. None asks for the default, 0 or less for no limit.

    A Dockerfile may be a stranger's: one that forks for ever must not take the host's last process number. The share is
    that of systemd's DefaultTasksMax; the bound is for hosts with four million numbers, whose memory would end first.
    """
    if asked is not None:
        return asked
    numbers = int(Path("/proc/sys/kernel/pid_max").read_text())
    return min(numbers * _PIDS_PERCENT // 100, _MAX_PIDS)


def _body(build: Build, step: RunStep, mounts: list[WireMount]) -> CreateBody:
    host = build.wanted.host
    network = host.NetworkMode if step.network == "default" else step.network
    host = msgspec.structs.replace(
        host,
        NetworkMode=network or "default",
        Privileged=step.is_privileged,
        PidsLimit=pids_limit(build.wanted.host.PidsLimit),
        Mounts=mounts,
        LogConfig=LogSettings(Type="none"),
    )
    named = {entry.partition("=")[0] for entry in step.environment}
    environment = [*step.environment, *step.arguments]
    if "HOME" not in named and step.user in ("", "root", "0"):
        environment.append("HOME=/root")
    return CreateBody(
        Cmd=list(step.argv),
        Entrypoint=[],
        Env=environment,
        WorkingDir=step.workdir,
        User=step.user,
        HostConfig=host,
        AttachStdout=True,
        AttachStderr=True,
    )


class Sources(Protocol):
    """Where files of other stages, images and contexts are found; `stages.py` fills it in."""

    async def draft_of(self, name: str) -> Draft | None:
        """The file system called `name`: a stage, a named context, an image. None for an empty one."""
        ...

    async def key_of(self, name: str) -> str:
        """What decides its content."""
        ...


async def _mounts(
    build: Build, run: Run, step: RunStep, sources: Sources, stack: AsyncExitStack
) -> tuple[list[WireMount], list[str]]:
    """The mounts of a step for the container, and variables that hold secrets."""
    made: list[WireMount] = []
    extra: list[str] = []
    if step.script:
        place = _own_file(build, stack, step.script.encode(), mode=0o755)
        made.append(_bind(place, SCRIPT_PATH, writable=False))
    for mount in step.mounts:
        if mount.kind == "tmpfs":
            made.append(_tmpfs(mount))
        elif mount.kind == "secret":
            extra += _secret(build, run, mount, stack, made)
        elif mount.kind == "ssh":
            extra += await _agent(build, run, mount, stack, made)
        elif mount.kind == "cache":
            made.append(_bind(await _cache(build, mount, sources, stack), mount.target, writable=mount.writable))
        else:
            path = await stack.enter_async_context(_bound(build, mount, sources))
            made.append(_bind(path, mount.target, writable=mount.writable))
    return made, extra


def _bind(source: str, target: str, *, writable: bool) -> WireMount:
    return WireMount(Type="bind", Source=source, Target=target, ReadOnly=not writable)


def _tmpfs(mount: Mount) -> WireMount:
    body: dict[str, object] = {"Type": "tmpfs", "Target": mount.target}
    if mount.size:
        body["TmpfsOptions"] = {"SizeBytes": mount.size}
    return msgspec.convert(body, WireMount)


def _own_file(build: Build, stack: AsyncExitStack, data: bytes, *, mode: int, uid: int = 0, gid: int = 0) -> str:
    """A file of this step outside of its file system, gone after it. In memory where exec-root is."""
    directory = build.engine.settings.exec_root / "builds" / build.build_id
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / secrets.token_hex(8)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    stack.callback(path.unlink)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        os.fchown(fd, *_outside(build, uid, gid))
        os.fchmod(fd, mode)
    return str(path)


def _secret(build: Build, run: Run, mount: Mount, stack: AsyncExitStack, made: list[WireMount]) -> list[str]:
    data = build.wanted.secrets.get(mount.id)
    if data is None:
        if mount.required:
            raise run.line.error(f"secret {mount.id}: not found: give it with --secret id={mount.id},src=FILE")
        return []
    if mount.target:
        path = _own_file(build, stack, data, mode=mount.mode, uid=mount.uid, gid=mount.gid)
        made.append(_bind(path, mount.target, writable=False))
    return [f"{mount.env}={data.decode('utf-8', 'surrogateescape')}"] if mount.env else []


async def _agent(build: Build, run: Run, mount: Mount, stack: AsyncExitStack, made: list[WireMount]) -> list[str]:
    """A socket of the step's own that leads to the agent of who asked for the build."""
    agent = build.wanted.agents.get(mount.id)
    if agent is None:
        if mount.required:
            raise run.line.error(f"ssh agent {mount.id}: not found: give it with --ssh {mount.id}")
        return []
    directory = build.engine.settings.exec_root / "builds" / build.build_id
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / secrets.token_hex(8)
    await stack.enter_async_context(agents.leading(path, agent))
    os.chown(path, *_outside(build, mount.uid, mount.gid))
    os.chmod(path, mount.mode)
    made.append(_bind(str(path), mount.target, writable=True))
    return [f"SSH_AUTH_SOCK={mount.target}"]


def _outside(build: Build, uid: int, gid: int) -> tuple[int, int]:
    """A container's ids as the host's."""
    mapping = build.engine.settings.id_mapping
    return mapping.outside(uid, gid) if mapping is not None else (uid, gid)


@asynccontextmanager
async def _alone(directory: Path) -> AsyncIterator[None]:
    """One at a time has the directory; nothing of it is remembered when nobody wants it."""
    guard = _locks.setdefault(f"{directory}", _Guard())
    guard.users += 1
    try:
        async with guard.lock:
            yield
    finally:
        guard.users -= 1
        if not guard.users:
            del _locks[f"{directory}"]


def cache_name(mount: Mount, origin_key: str = "") -> str:
    """The name of the directory of a cache mount. origin_key: what decides the files it begins with."""
    begins = f"\0{origin_key}\0{mount.source}" if mount.origin else ""
    return hashlib.sha256(f"{mount.id}\0{mount.uid}:{mount.gid}{begins}".encode()).hexdigest()


async def _cache(build: Build, mount: Mount, sources: Sources, stack: AsyncExitStack) -> str:
    """The directory of a cache mount, which stays after the build."""
    name = cache_name(mount, await sources.key_of(mount.origin) if mount.origin else "")
    root = build.engine.settings.data_root / "buildcache"
    directory = root / name
    if mount.sharing == "private":
        number = 0
        while f"{directory}" in _locks:
            number += 1
            directory = root / f"{name}-{number}"
    if mount.sharing != "shared":
        await stack.enter_async_context(_alone(directory))
    stack.enter_context(in_use(directory.name))
    if not directory.exists():
        root.mkdir(mode=0o700, exist_ok=True)
        fresh = root / f".new-{secrets.token_hex(8)}"
        fresh.mkdir()
        try:
            if not await _imported(build, name, fresh) and mount.origin:
                await _fill(build, mount, sources, fresh)
            os.chown(fresh, *_outside(build, mount.uid, mount.gid))
            os.chmod(fresh, mount.mode)
            if not directory.exists():  # another step may have made it meanwhile
                os.rename(fresh, directory)
        finally:
            trees.discard(fresh)
    await in_thread(os.utime, directory)
    return str(directory)


async def _imported(build: Build, name: str, place: Path) -> bool:
    """Whether a cache that the build takes from had the content of the mount, which is in `place` now."""
    for source in build.imports:
        mount = source.document.mount(name)
        if mount is None:
            continue
        try:
            await source.fill(build.engine, mount, place)
        except TareError as error:
            build.tell(f"[Warning] the cache mount {mount.id} is not taken over: {error.message}\n")
            trees.discard(place)
            place.mkdir()
        else:
            return True
    return False


async def _fill(build: Build, mount: Mount, sources: Sources, place: Path) -> None:
    """Copy what a cache mount begins with."""
    archiver = build.engine.archiver
    async with _bound(build, mount, sources) as path:
        if not os.path.isdir(path):
            raise InvalidArgument(f"the cache mount begins with {mount.source or '/'}, which is no directory")
        with ExitStack() as opened:
            fds = []
            for directory in (path, place):
                fds.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                opened.callback(os.close, fds[-1])
            async with archiver.pack(fds[0]) as reader:
                options = Options(whiteouts=False, sync=False, allow_empty=True)
                await archiver.unpack(reader, fds[1], options=options)


@asynccontextmanager
async def _bound(build: Build, mount: Mount, sources: Sources) -> AsyncIterator[str]:
    """A directory or file of the context, a stage or an image, as a path that can be mounted."""
    own = build.named(mount.origin)
    if mount.origin and own is None:
        draft = await sources.draft_of(mount.origin)
        async with mounted(build, draft, writable=mount.writable, is_mapped=True) as root:
            yield inside(root, mount.source, what=mount.origin)
        return
    async with unpacked(build, own) as root:
        yield inside(root, mount.source, what=f"the context {mount.origin}" if own else "the build context")


@asynccontextmanager
async def mounted(
    build: Build, draft: Draft | None, *, writable: bool = False, is_mapped: bool = False
) -> AsyncIterator[Path]:
    """The files of a draft, mounted at a place of ours; what is written there is thrown away.

    is_mapped: a container will look at them, so owners are shown as its user namespace, if any, needs them.
    """
    engine = build.engine
    await ready(build, draft)
    place = build.directory / secrets.token_hex(8)
    place.mkdir(mode=0o700)
    key = hashlib.sha256(os.fsencode(place)).hexdigest()
    mapping = engine.settings.id_mapping if is_mapped else None
    async with AsyncExitStack() as stack:
        ids = None
        if mapping is not None:
            space = await userns.make(mapping)
            stack.callback(space.close)
            ids = Ids(space.user_fd, *mapping.root)
        if writable or draft is None:
            engine.snapshots.prepare(key, draft.snapshot if draft is not None else None)
            stack.callback(engine.snapshots.remove, key)
            engine.snapshots.mount(key, place, ids=ids)
        else:
            engine.snapshots.view(draft.snapshot, place, ids=ids)
        stack.callback(engine.snapshots.unmount, place)
        yield place


@asynccontextmanager
async def unpacked(build: Build, named: Spool | None = None) -> AsyncIterator[Path]:
    """The whole context, or a further one, as files, in a directory of this step's own."""
    place = build.directory / secrets.token_hex(8)
    place.mkdir(mode=0o755)
    os.chown(place, *_outside(build, 0, 0))
    try:
        await compose_tree(build, named or build.context.spool, place)
        yield place
    finally:
        trees.discard(place)


def inside(root: Path, path: str, *, what: str) -> str:
    """Where a path inside of `root` leads, links followed and never out of it. Raises NotFound."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = linux.open_in_root(fd, path.lstrip("/") or ".", os.O_PATH)
        try:
            return os.readlink(f"/proc/self/fd/{found}")
        finally:
            os.close(found)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidArgument(f"too many links in {path} of {what}") from None
        raise NotFound(f"{path} is not in {what}") from None
    finally:
        os.close(fd)


__all__ = ["Sources", "cache_name", "execute", "inside", "mounted", "ready", "unpacked"]
