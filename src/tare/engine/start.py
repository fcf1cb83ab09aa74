"""Starting a container: plan, attach, mount, monitor, go; undone step by step when anything fails.

See docs/flows/run.md.
"""

from __future__ import annotations

import logging
import os
import signal

import msgspec

from tare.aio import failpoints, proc, tasks
from tare.aio.undo import undo_on_error
from tare.base import clock
from tare.base.digest import Digest
from tare.base.errors import Conflict, InvalidArgument, NotModified, TareError
from tare.containers import spec
from tare.containers.container import Container, Process, State
from tare.containers.service import Slot
from tare.drivers import rootfs
from tare.drivers.runtime.monitor import Started, boot_id, start_time
from tare.drivers.runtime.oci import CommandNotFound, CommandNotInvokable
from tare.engine import cdi, forward, health, rotation, userns, volumes
from tare.engine.engine import Engine, directory_of, log_path, rootfs_of
from tare.engine.exits import supervise
from tare.engine.news import tell
from tare.engine.prepare import spec_input, wish_of
from tare.engine.release import HOOKS, release
from tare.engine.remove import remove_after_exit
from tare.engine.stop import stop
from tare.networks.attachment import Attachment
from tare.networks.plan import NAMESPACE_MODE

log = logging.getLogger(__name__)

_CANNOT_INVOKE = 126
_NOT_FOUND = 127
_CANNOT_START = 128


async def restart_by_policy(engine: Engine, slot: Slot) -> None:
    """Start it because its restart policy says so."""
    await start(engine, slot, by_policy=True)


async def restart_unhealthy(engine: Engine, slot: Slot) -> None:
    """Stop and start it because its health check failed for good and it asked for that."""
    try:
        await stop(engine, slot, timeout_s=None)
        await start(engine, slot, by_policy=True)
    except TareError as error:
        log.warning("unhealthy container %s could not be restarted: %s", slot.container.name, error.message)
        return
    tell(engine, slot.container, "restart")


async def start(engine: Engine, slot: Slot, *, by_policy: bool = False) -> None:
    """Start it. Raises NotModified when it runs already, Conflict when it cannot be started now.

    A program that cannot be executed is recorded with exit code 127 or 126 and raised as InvalidArgument (W9). When
    `--rm` was asked for, a failed start removes the container and releases who waits for that (W37).
    """
    engine.migration.expect()
    async with slot.lock:
        container = slot.container
        if slot.is_being_removed or container.state is State.REMOVING:
            raise Conflict("container is marked for removal and cannot be started")
        if container.is_paused:
            raise Conflict("cannot start a paused container, try unpause instead")
        if container.is_running or (container.state is State.RESTARTING and not by_policy):
            raise NotModified(f"container {container.id} is already running")
        if slot.supervisor is not None:
            await slot.supervisor
            slot.supervisor = None
        if not by_policy:
            slot.restart_delay_s = 0.0
            engine.containers.change(slot, restart_count=0)
        try:
            await volumes.take_over(engine, slot)
            await _start(engine, slot)
        except Exception as error:
            _record_failure(engine, slot, error)
            slot.hub.finish()
            slot.tell_exit()
            if container.host_config.AutoRemove:
                await remove_after_exit(engine, slot)
            raise


async def _start(engine: Engine, slot: Slot) -> None:
    container = slot.container
    runtime = engine.runtimes.get(container.runtime)
    if runtime is None:
        raise InvalidArgument(f"Unknown runtime specified {container.runtime}")
    engine.reserve.make_room()
    directory_of(engine, container.id).mkdir(mode=0o700, exist_ok=True)  # in case somebody has cleaned up there
    await forward.prepare(engine, container)
    mapping = userns.mapping_of(engine, container.host_config)
    async with userns.provided(engine, container) as space, undo_on_error("start") as undo:
        ids = userns.ids_of(space, mapping) if space is not None and mapping is not None else None
        undo.push(release, engine, container)
        bundle = engine.monitor.bundle(container.id)
        target = rootfs_of(engine, container.id)
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        engine.snapshots.mount(container.id, target)
        engine.images.usage.note(Digest(container.image_id))
        bare = space.net_fd if space is not None else None
        failpoints.hit("start.mounted")
        attachment = await _attach(engine, container, bare_namespace=bare)
        failpoints.hit("start.attached")
        mounted = await volumes.mount(engine, container, ids=ids)
        joins = userns.spec_of(space, mapping) if space is not None and mapping is not None else None
        given = spec_input(
            engine, container, runtime=runtime, attachment=attachment, volumes=mounted, user_namespace=joins
        )
        if ids is not None and mapping is not None:
            # Until here it was looked at, and filled, with the ids that are on the disk.
            engine.snapshots.unmount(target)
            engine.snapshots.mount(container.id, target, ids=ids)
            userns.let_in(engine, container, mapping)
        config = spec.render(given)
        if has_hooks := cdi.edit(engine, container.host_config, config):
            (bundle / HOOKS).touch()
        (bundle / "config.json").write_bytes(msgspec.json.encode(config))
        failpoints.hit("start.rendered")
        logs = container.host_config.LogConfig.Type != "none"
        started = await engine.monitor.create(
            container.id,
            runtime=runtime,
            log_path=log_path(engine, container) if logs else None,
            has_tty=container.config.Tty,
            has_stdin=container.config.OpenStdin,
            keep_stdin=not container.config.StdinOnce,
        )
        undo.push(_end, started)
        failpoints.hit("start.created")
        if mapping is not None:
            userns.give_streams(started.pid, given.user, mapping)
        pid_started = start_time(started.pid)
        monitor_started = start_time(started.monitor.pid)
        if slot.hub.is_wanted:
            slot.hub.connect(lambda: engine.monitor.connect(container.id))
        if any(slot.size):
            engine.monitor.resize(container.id, height=slot.size[0], width=slot.size[1])
        engine.networks.handed_over(container.id, started.pid)
        await runtime.start(container.id, has_hooks=has_hooks)
        failpoints.hit("start.going")
        await engine.containers.save(
            slot,
            state=State.RUNNING,
            process=Process(
                pid=started.pid,
                pid_started=pid_started or 0,
                monitor_pid=started.monitor.pid,
                monitor_started=monitor_started or 0,
                boot_id=boot_id(),
            ),
            started_at=clock.now(),
            exit_code=0,
            error="",
            is_oom_killed=False,
            health=None,
            was_stopped_by_user=False,
            endpoints=attachment.endpoints,
            ports=attachment.ports,
        )
    failpoints.passed("start.recorded")
    health.watch(engine, slot, restarter=restart_unhealthy)
    rotation.watch(engine, slot)
    forward.watch(engine, slot)
    tell(engine, slot.container, "start")
    watch = supervise(engine, slot, proc.wait(started.monitor), starter=restart_by_policy)
    slot.supervisor = tasks.spawn(watch, name=f"watch {container.name}")


async def _attach(engine: Engine, container: Container, *, bare_namespace: int | None) -> Attachment:
    """Plug it in. What goes wrong with networks of its own is said as Docker does: clients look for the words."""
    try:
        return await engine.networks.attach(wish_of(engine, container, bare_namespace=bare_namespace))
    except TareError as error:
        if not container.host_config.NetworkMode.startswith(("container:", NAMESPACE_MODE)):
            error.message = f"failed to set up container networking: {error.message}"
            error.args = (error.message,)
        raise


async def _end(started: Started) -> None:
    """Kill a container that was created and could not be started; its monitor ends with it."""
    try:
        os.kill(started.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    await proc.wait(started.monitor)


def _record_failure(engine: Engine, slot: Slot, error: Exception) -> None:
    code = _CANNOT_START
    if isinstance(error, rootfs.CannotExecute):
        code = error.exit_code
    elif isinstance(error, CommandNotFound):
        code = _NOT_FOUND
    elif isinstance(error, CommandNotInvokable):
        code = _CANNOT_INVOKE
    text = error.message if isinstance(error, TareError) else str(error)
    state = State.EXITED if slot.container.state is State.RESTARTING else slot.container.state
    engine.containers.change(slot, state=state, exit_code=code, error=text, process=None)
