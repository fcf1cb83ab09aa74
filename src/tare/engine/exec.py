"""A further process in a running container: create, start attached or detached, resize.

The exit status is recorded before the client's stream closes (W28), and a process that cannot be started says so in
the stream, with exit code 126 or 127.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from tare.aio import tasks
from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound, TareError
from tare.base.ids import random_id
from tare.containers import spec
from tare.containers.container import Container, State
from tare.containers.execs import Exec, Wish
from tare.containers.merge import environment
from tare.containers.service import Slot
from tare.drivers import linux, rootfs
from tare.drivers.runtime.monitor import start_time
from tare.drivers.runtime.sessions import NOT_INVOKABLE, Asked, CannotExec, Session, translate
from tare.engine import userns
from tare.engine.engine import Engine
from tare.engine.news import tell
from tare.engine.streams import End, Terms, converse, part
from tare.web.message import Peer
from tare.wire.config import as_list
from tare.wire.detach import DEFAULT, parse_keys
from tare.wire.errors import text_of
from tare.wire.exec import ExecCreateBody
from tare.wire.frames import STDOUT, frame

LOST_EXIT_CODE = 255
_RESIZE_PATIENCE_S = 10.0
_DRAIN_S = 2.0


def require_running(container: Container, *, name: str = "") -> None:
    """Raise Conflict, in the words clients search for (W30), unless a process can be started in it now."""
    shown = name or container.id
    if container.state is State.RESTARTING:
        raise Conflict(f"Container {shown} is restarting, wait until the container is running")
    if not container.is_running or container.process is None:
        raise Conflict(f"container {container.id} is not running")
    if container.is_paused:
        raise Conflict(f"Container {shown} is paused, unpause the container before exec")


def create(engine: Engine, slot: Slot, body: ExecCreateBody, *, name: str = "") -> Exec:
    """Remember what shall run. Raises InvalidArgument, Conflict."""
    argv = as_list(body.Cmd)
    if not argv:
        raise InvalidArgument("No exec command specified")
    keys = parse_keys(body.DetachKeys) if body.DetachKeys else b""
    require_running(slot.container, name=name)
    if body.User:
        _check_user(slot.container, body.User)
    engine.migration.expect()
    exec_ = Exec(
        id=random_id(),
        container_id=slot.container.id,
        wish=Wish(
            argv=tuple(argv),
            env=tuple(body.Env or ()),
            user=body.User,
            cwd=body.WorkingDir,
            has_tty=body.Tty,
            is_privileged=body.Privileged,
            stdin=body.AttachStdin,
            stdout=body.AttachStdout,
            stderr=body.AttachStderr,
            detach_keys=keys,
            size=size_of(body.ConsoleSize) if body.Tty else (0, 0),
        ),
    )
    engine.execs.add(exec_)
    tell(engine, slot.container, f"exec_create: {_command(exec_)}", execID=exec_.id)
    return exec_


def _check_user(container: Container, user: str) -> None:
    """Raise InvalidArgument when it is none of the container's."""
    root_fd = open_root(container)
    try:
        rootfs.resolve_user(root_fd, user)
    finally:
        os.close(root_fd)


def size_of(asked: Sequence[int] | None) -> tuple[int, int]:
    """(height, width) of a terminal; zeros when not given. Raises InvalidArgument."""
    if not asked:
        return (0, 0)
    if len(asked) != 2 or not all(0 <= n < 65536 for n in asked):
        raise InvalidArgument("invalid console size: height and width must be numbers from 0 to 65535")
    return (asked[0], asked[1])


def _command(exec_: Exec) -> str:
    """The command line in an event: the program, a space, the arguments."""
    return f"{exec_.wish.argv[0]} {' '.join(exec_.wish.argv[1:])}"


def find_startable(engine: Engine, exec_id: str) -> Exec:
    """An exec that may be started now. Raises NotFound, Conflict."""
    exec_ = engine.execs.find(exec_id)
    try:
        slot = engine.containers.find(exec_.container_id)
    except NotFound:
        raise NotFound(f"No such exec instance: {exec_id}") from None
    if exec_.exit_code is not None:
        raise Conflict(f"Error: Exec command {exec_id} has already run")
    if exec_.is_claimed:
        raise Conflict(f"Error: Exec command {exec_id} is already running")
    require_running(slot.container)
    return exec_


async def start(engine: Engine, exec_: Exec, *, attached: bool, size: tuple[int, int] = (0, 0)) -> None:
    """Start it; returns when the program runs. size: of the terminal, zeros for the one asked at create.

    Raises CannotExec, Conflict, InvalidArgument; the failure is recorded as its exit status.
    """
    if exec_.is_claimed:
        raise Conflict(f"Error: Exec command {exec_.id} is already running")
    engine.migration.expect()
    slot = engine.containers.find(exec_.container_id)
    exec_.is_claimed = True
    launching = tasks.spawn(
        _launch(engine, slot.container, exec_, attached=attached, size=size), name="launch", is_awaited=True
    )
    await asyncio.sleep(0)  # the runtime loads while the event is written: 1 ms
    tell(engine, slot.container, f"exec_start: {_command(exec_)}", execID=exec_.id)
    try:
        session = await launching
    except BaseException as error:
        exec_.end(error.exit_code if isinstance(error, CannotExec) else NOT_INVOKABLE)
        exec_.hub.finish()
        raise
    exec_.pid, exec_.kill = session.pid, session.kill
    exec_.resize = lambda height, width: session.resize(height=height, width=width)
    exec_.started.set()
    tasks.spawn(_supervise(engine, slot, exec_, session), name=f"watch exec {exec_.id[:12]}")


async def _launch(
    engine: Engine, container: Container, exec_: Exec, *, attached: bool, size: tuple[int, int]
) -> Session:
    require_running(container)
    runtime = engine.runtimes.get(container.runtime)
    if runtime is None:
        raise InternalError(f"Unknown runtime specified {container.runtime}")
    asked = Asked(
        container_id=container.id,
        runtime=runtime,
        has_terminal=exec_.wish.has_tty,
        is_attached=attached,
        has_stdin=exec_.wish.stdin and attached,
    )
    async with engine.sessions.opening(exec_.id, asked) as opening:
        process = _process(engine, container, exec_.wish, size=size)
        mapping = userns.mapping_of(engine, container.host_config)
        owner = None
        if mapping is not None:
            user = process["user"]
            owner = (userns.outside(mapping.uids, user["uid"]), userns.outside(mapping.gids, user["gid"]))
        session = await opening.execute(process, owner=owner)
    if (streams := session.streams) is not None:
        exec_.hub.connect(lambda: streams)
    return session


def _process(engine: Engine, container: Container, wish: Wish, *, size: tuple[int, int]) -> Mapping[str, Any]:
    """The OCI process: the container's own sandbox, the exec's program."""
    config, host = container.config, container.host_config
    cwd = wish.cwd or config.WorkingDir or "/"
    given = msgspec.structs.replace(config, Tty=wish.has_tty, Env=[*(config.Env or ()), *wish.env])
    env = environment(given, hostname=config.Hostname)
    root_fd = open_root(container)
    try:
        user = rootfs.resolve_user(root_fd, wish.user or config.User, host.GroupAdd or ())
        _check(root_fd, wish.argv[0], env=env, cwd=cwd)
    finally:
        os.close(root_fd)
    return spec.render_process(
        argv=wish.argv,
        env=env,
        cwd=cwd,
        user=spec.User(uid=user.uid, gid=user.gid, additional_gids=user.additional_gids),
        tty=wish.has_tty,
        host=host,
        facts=engine.host,
        no_new_privileges=spec.has_no_new_privileges(host, default=engine.settings.no_new_privileges),
        privileged=True if wish.is_privileged else None,
        console_size=size if any(size) else wish.size,
    )


def open_root(container: Container) -> int:
    """A descriptor of a running container's root as its first process sees it, mounts included; the caller closes it.

    Raises Conflict when that process is gone.
    """
    process = container.process
    gone = Conflict(f"container {container.id} is not running")
    if process is None:
        raise gone
    try:
        root_fd = rootfs.open_root(f"/proc/{process.pid}/root")
    except OSError:
        raise gone from None
    if start_time(process.pid) != process.pid_started:  # the number belongs to another process by now
        os.close(root_fd)
        raise gone
    return root_fd


def _check(root_fd: int, program: str, *, env: Sequence[str], cwd: str) -> None:
    """Say in Docker's words, and without starting anything, why it cannot run. The runtime has the last word."""
    if not cwd.startswith("/"):
        raise translate(f"Cwd must be an absolute path: {cwd}")
    try:
        os.close(linux.open_in_root(root_fd, cwd, os.O_PATH | os.O_DIRECTORY))
    except OSError as error:
        why = (error.strerror or "").lower()
        raise translate(f'chdir to cwd ("{cwd}") set in config.json failed: {why}') from None
    path = next((entry[5:] for entry in env if entry.startswith("PATH=")), rootfs.DEFAULT_PATH)
    try:
        rootfs.check_executable(root_fd, program, path=path, cwd=cwd)
    except rootfs.CannotExecute as error:
        raise CannotExec(translate(error.message).message, exit_code=error.exit_code) from None


async def _supervise(engine: Engine, slot: Slot, exec_: Exec, session: Session) -> None:
    code = await session.ended()
    exec_.end(LOST_EXIT_CODE if code is None or code < 0 else code)
    tell(engine, slot.container, "exec_die", execID=exec_.id, exitCode=str(exec_.exit_code))
    await exec_.hub.until_drained(_DRAIN_S)
    exec_.hub.finish()


def conversation(
    engine: Engine, exec_: Exec, *, is_raw: bool, size: tuple[int, int]
) -> Callable[[Peer], Awaitable[None]]:
    """What to do with the connection of a client that starts the exec and stays attached."""
    wish = exec_.wish

    async def run(peer: Peer) -> None:
        subscriber = exec_.hub.subscribe()
        try:
            try:
                await tasks.finish(start(engine, exec_, attached=True, size=size), name="exec")
            except (TareError, OSError) as error:
                text = f"{error.message if isinstance(error, TareError) else text_of(error)}\r\n".encode()
                await peer.write(text if is_raw else frame(STDOUT, text))
                return
            end = await converse(exec_.hub, subscriber, peer, _terms(wish, is_raw=is_raw))
            if end is End.OUTPUT:
                await exec_.ended.wait()
                if wish.stdin:
                    await part(peer)
            elif end is End.DETACHED:
                slot = engine.containers.find(exec_.container_id)
                tell(engine, slot.container, "exec_detach", execID=exec_.id)
        finally:
            exec_.hub.unsubscribe(subscriber)

    return run


def _terms(wish: Wish, *, is_raw: bool) -> Terms:
    return Terms(
        stdin=wish.stdin,
        stdout=wish.stdout,
        stderr=wish.stderr or (wish.has_tty and wish.stdout),
        is_raw=is_raw,
        detach_keys=(wish.detach_keys or DEFAULT) if wish.has_tty else b"",
        closes_stdin=not wish.has_tty,
    )


async def resize(exec_: Exec, *, height: int, width: int) -> None:
    """Give the terminal a size, waiting up to ten seconds for the start (W31). Raises Conflict."""
    try:
        await asyncio.wait_for(exec_.started.wait(), _RESIZE_PATIENCE_S)
    except TimeoutError:
        raise Conflict("timeout waiting for exec session ready") from None
    if exec_.resize is None:
        raise Conflict("cannot resize a stopped process")
    exec_.resize(height, width)
