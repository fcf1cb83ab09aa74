"""Sending logs away (journald, syslog): the monitor writes its file as for every driver, the daemon follows and forwards it.

    <data-root>/containers/<id>/forwarded     which file of the log, and the offset up to which it has been sent

So the container never waits for a log server, a server that is away is caught up with, and an engine that is killed goes
on where it was: each line arrives at least once. What is not sent when rotation removes it is lost, and that is logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from tare.aio import tasks
from tare.aio.threads import in_thread
from tare.base.errors import InternalError, InvalidArgument
from tare.containers import logforward, logtag
from tare.containers.container import Container
from tare.containers.logforward import Assembler, Line, Position
from tare.containers.logoptions import FORWARDING
from tare.containers.logs import LogFile, open_all
from tare.containers.service import Slot
from tare.drivers import logsinks
from tare.drivers.inotify import Alarm
from tare.drivers.logsinks import Sink
from tare.engine.engine import Engine, directory_of, log_path

log = logging.getLogger(__name__)

_PIECE_BYTES = 128 * 1024
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 5.0
_MARK_BYTES = 96
FINISH_S = 2.0

Format = Callable[[Line], bytes]


def forwards(container: Container) -> bool:
    """Whether its log is sent away."""
    return container.host_config.LogConfig.Type in FORWARDING


def sink_of(engine: Engine, container: Container) -> tuple[Sink, Format]:
    """Where its lines go, not connected yet, and in what form. Raises InvalidArgument."""
    settings = container.host_config.LogConfig
    options = settings.Config or {}
    facts = logtag.facts_of(container, options, path=str(log_path(engine, container)))
    tag = logtag.render(options.get("tag") or logtag.DEFAULT, facts)
    if settings.Type == "journald":
        texts = {name: value for name, value in facts.fields.items() if isinstance(value, str)}
        fields = logforward.journal_fields(texts, tag=tag, attributes=facts.attributes)
        return logsinks.Journal(engine.settings.journal_socket), lambda line: logforward.journal_message(line, fields)
    target = logforward.syslog_of(options)
    hostname, pid = os.uname().nodename, os.getpid()
    return _syslog_sink(target), lambda line: logforward.syslog_message(
        line, target, tag=tag, hostname=hostname, pid=pid
    )


def _syslog_sink(target: logforward.Syslog) -> Sink:
    if not target.scheme:
        return logsinks.LocalSyslog()
    if target.scheme == "unixgram":
        return logsinks.Datagrams(socket.AF_UNIX, target.host)
    if target.scheme == "unix":
        return logsinks.Streams(target.host)
    if target.scheme == "udp":
        return logsinks.Datagrams(socket.AF_INET, (target.host, target.port))
    tls = None
    if target.scheme == logforward.TLS:
        tls = logsinks.Tls(ca_cert=target.ca_cert, cert=target.cert, key=target.key, skips_verify=target.skips_verify)
    return logsinks.Streams((target.host, target.port), tls)


async def prepare(engine: Engine, container: Container) -> None:
    """Before a start: whoever shall get the lines must be there. Raises InvalidArgument, InternalError in Docker's words."""
    if not forwards(container):
        return
    try:
        sink, _ = sink_of(engine, container)
        try:
            await sink.connect()
        finally:
            sink.close()
    except InvalidArgument as error:
        raise InvalidArgument(f"failed to initialize logging driver: {error.message}") from None
    except (OSError, TimeoutError) as error:
        raise InternalError(f"failed to initialize logging driver: {_why(error)}") from None


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def watch(engine: Engine, slot: Slot) -> None:
    """Begin, or go on where an earlier engine was; ends by itself when a container that has ended is sent whole."""
    if forwards(slot.container) and (slot.forwarding is None or slot.forwarding.done()):
        slot.forwarding = tasks.spawn(_forward(engine, slot), name=f"forward log of {slot.container.name}")


async def finish(slot: Slot) -> None:
    """The container is going to be removed: give what is left a moment to be sent, then stop."""
    task, slot.forwarding = slot.forwarding, None
    if task is None:
        return
    _, pending = await asyncio.wait({task}, timeout=FINISH_S)
    if pending:
        log.warning("the end of the log of container %s could not be sent in time", slot.container.name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Mark:
    """The place up to which a log has been sent, on disk; written in one go, so that a kill leaves the old or the new."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read(self) -> tuple[str, int]:
        """Identity of the file and offset; ("", 0) at first."""
        offset, _, identity = os.pread(self._fd, _MARK_BYTES, 0).decode("ascii", "replace").strip().partition(" ")
        return (identity, int(offset)) if offset.isdecimal() and identity else ("", 0)

    def write(self, identity: str, offset: int) -> None:
        """Everything before it has been sent."""
        os.pwrite(self._fd, f"{offset} {identity}".encode().ljust(_MARK_BYTES), 0)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._fd)


class _Delivery(Struct):
    """Sends for as long as it takes. One warning when it begins to fail, a word when it works again."""

    slot: Slot
    sink: Sink
    is_connected: bool = False

    async def send(self, messages: Sequence[bytes]) -> None:
        rest, pause_s = list(messages), _FIRST_PAUSE_S
        while rest:
            try:
                if not self.is_connected:
                    await self.sink.connect()
                    self.is_connected = True
                await self.sink.send(rest)
                if pause_s > _FIRST_PAUSE_S:
                    log.info("the log of container %s is sent again", self.slot.container.name)
                return
            except (OSError, TimeoutError) as error:
                if self.is_connected:
                    rest = rest[self.sink.sent :]
                if pause_s == _FIRST_PAUSE_S:
                    log.warning("the log of container %s cannot be sent: %s", self.slot.container.name, _why(error))
                self.sink.close()
                self.is_connected = False
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LAST_PAUSE_S)


async def _forward(engine: Engine, slot: Slot) -> None:
    container = slot.container
    path = log_path(engine, container)
    sink, form = sink_of(engine, container)
    delivery, assembler = _Delivery(slot, sink), Assembler()
    mark = Mark(directory_of(engine, container.id) / "forwarded")
    files = _from_mark(path, mark)
    first = 0  # the number of files[0]
    identities: dict[int, str] = {}  # of files by number, as far as they matter
    keeps_empty = container.host_config.LogConfig.Type == "journald"  # syslog has no empty messages
    alarm: Alarm | None = None

    async def send(lines: list[Line]) -> None:
        if lines:
            await delivery.send(await in_thread(lambda: [form(line) for line in lines if line.text or keeps_empty]))

    def note(now: Position) -> None:
        number, offset = assembler.safe(now)
        identities[now[0]] = files[0].identity
        if identities.get(number):
            mark.write(identities[number], offset)
        for old in [key for key in identities if key < number]:
            del identities[old]

    try:
        while True:
            container = slot.container
            has_ended = not container.is_running and container.started_at != 0
            if not files:
                if has_ended:
                    return
                files = open_all(path)
            elif len(files) == 1 and (newer := files[0].open_newer()) is not None:
                if files[0].is_dropped and files[0].has_more:
                    log.warning("the log of container %s outruns its server: lines may be lost", container.name)
                files.append(newer)
            while files:
                start = files[0].offset
                block = await in_thread(files[0].next_records, _PIECE_BYTES)
                if not block:
                    break
                await send(assembler.feed(block, (first, start)))
                note((first, files[0].offset))
            if len(files) > 1:
                files.pop(0).close()
                first += 1
            elif has_ended:
                await send(assembler.flush())
                if files:
                    note((first, files[0].offset))
                if not slot.container.is_running:  # else it was started meanwhile, and goes on with us
                    return
            elif alarm is None:
                alarm = engine.alarms.set(files[0].place if files else path.parent, beside=path.parent)
            else:
                await _either(alarm, slot)
                alarm.close()
                alarm = None
    finally:
        if alarm is not None:
            alarm.close()
        for file in files:
            file.close()
        sink.close()
        mark.close()


def _from_mark(path: Path, mark: Mark) -> list[LogFile]:
    """The files of the log from the place on that the mark names; all of them when it names none that is there."""
    identity, offset = mark.read()
    files = open_all(path)
    places = [file.identity for file in files]
    if identity and identity in places:
        index = places.index(identity)
        for file in files[:index]:
            file.close()
        files = files[index:]
        files[0].seek(offset)
    return files


async def _either(alarm: Alarm, slot: Slot) -> None:
    """Wait until the log changes or the container ends."""
    if not slot.container.is_running and slot.container.started_at:
        return
    ended = slot.wait("next-exit")
    waiting: set[asyncio.Future[Any]] = {alarm.future, ended}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
