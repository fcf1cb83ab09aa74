"""The containers this engine knows: records in memory, written through to the database; names; who waits for what.

Each container has a `Slot`: the current record (replaced, never edited), the lock that verbs take in turn, the hub of
its standard streams, and the waiters. All of it lives on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.base.ids import ContainerId, is_full_id
from tare.containers import names, records
from tare.containers.container import Container, State
from tare.containers.health import HEALTHY, UNHEALTHY, check_of
from tare.containers.hub import Hub
from tare.store.db import Database

CONDITIONS = ("not-running", "next-exit", "removed", "healthy")
_NOT_HEALTHY = 1


class Outcome(Struct, frozen=True):
    """What `wait` answers: the exit status, and why removal failed if it did."""

    exit_code: int
    error: str = ""


class Slot(Struct):
    """The living side of one container."""

    container: Container
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    hub: Hub = field(default_factory=Hub)
    is_being_removed: bool = False
    supervisor: asyncio.Task[None] | None = None
    restarting: asyncio.Task[None] | None = None  # waits to start it again, by its restart policy
    restart_delay_s: float = 0.0
    is_coming_back: bool = False  # it is stopped to be started again at once: `--rm` does not mean this end
    health: asyncio.Task[None] | None = None  # runs its health checks
    rotation: asyncio.Task[None] | None = None  # keeps its log within its limit
    forwarding: asyncio.Task[None] | None = None  # sends its log away
    stopped: asyncio.Event = field(default_factory=asyncio.Event)  # it does not run, and start's work is undone
    hidden_environment: tuple[str, ...] = ()  # NAME=VALUE that the program gets and no record, secrets of builds
    size: tuple[int, int] = (0, 0)  # height, width of its terminal, as last asked for
    _exit_waiters: set[asyncio.Future[Outcome]] = field(default_factory=set)
    _removal_waiters: set[asyncio.Future[Outcome]] = field(default_factory=set)
    _health_waiters: set[asyncio.Future[Outcome]] = field(default_factory=set)

    def wait(self, condition: str) -> asyncio.Future[Outcome]:
        """A future for the condition; already resolved where that holds now. Raises InvalidArgument.

        `healthy` is beyond Docker: exit code 0 when its check passes; an error when it fails for good or it ends.
        """
        if condition not in CONDITIONS:
            raise InvalidArgument(f'invalid condition: "{condition}"')
        if condition == "healthy" and check_of(self.container.config) is None:
            raise InvalidArgument(
                f"container {self.container.name} has no health check", hint="give it one, as with --health-cmd"
            )
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if condition == "healthy":
            self._health_waiters.add(future)
            future.add_done_callback(self._health_waiters.discard)
            self.tell_health()
        elif condition == "removed":
            self._removal_waiters.add(future)
            future.add_done_callback(self._removal_waiters.discard)
        elif condition == "not-running" and not self.container.is_running:
            future.set_result(Outcome(self.container.exit_code, self.container.error))
        else:
            self._exit_waiters.add(future)
            future.add_done_callback(self._exit_waiters.discard)
        return future

    def tell_health(self) -> None:
        """Its health may have changed: release who waits for it, unless it is still open."""
        container = self.container
        status = container.health.status if container.is_running and container.health is not None else ""
        if status == HEALTHY:
            _release(self._health_waiters, Outcome(0))
        elif status == UNHEALTHY:
            _release(self._health_waiters, Outcome(_NOT_HEALTHY, f"container {container.name} is unhealthy"))
        elif container.state in (State.EXITED, State.DEAD, State.REMOVING):
            self._give_up_health()

    def _give_up_health(self) -> None:
        code, name = self.container.exit_code, self.container.name
        _release(self._health_waiters, Outcome(code or _NOT_HEALTHY, f"container {name} exited ({code})"))

    def tell_exit(self) -> None:
        """The container ended (or could not start): release who waits for that."""
        _release(self._exit_waiters, Outcome(self.container.exit_code, self.container.error))
        self._give_up_health()

    def tell_removed(self, error: str = "") -> None:
        """The container is gone, or its automatic removal failed with `error`."""
        outcome = Outcome(self.container.exit_code, error)
        _release(self._removal_waiters, outcome)
        if not error:
            _release(self._exit_waiters, outcome)
            self._give_up_health()


def _release(waiters: Iterable[asyncio.Future[Outcome]], outcome: Outcome) -> None:
    for waiter in list(waiters):
        if not waiter.done():
            waiter.set_result(outcome)


class Containers:
    """All slots, by id and by name."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._slots: dict[ContainerId, Slot] = {}
        self._names: dict[str, ContainerId] = {}

    async def load(self) -> None:
        """Read every record; called once at start."""
        for container in await self._db.read(records.load_all):
            self._admit(container)

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        """Newest first, as lists are shown."""
        return iter(sorted(self._slots.values(), key=lambda slot: slot.container.created_at, reverse=True))

    def _admit(self, container: Container) -> Slot:
        slot = Slot(container)
        if not container.is_running:
            slot.stopped.set()
        self._slots[container.id] = slot
        self._names[container.name] = container.id
        return slot

    def find(self, text: str) -> Slot:
        """Full id, then name, then unique id prefix (W66). Raises NotFound or InvalidArgument (ambiguous)."""
        if is_full_id(text) and ContainerId(text) in self._slots:
            return self._slots[ContainerId(text)]
        by_name = self._names.get(text.removeprefix("/"))
        if by_name is not None:
            return self._slots[by_name]
        matches = [id_ for id_ in self._slots if id_.startswith(text)] if text else []
        if len(matches) == 1:
            return self._slots[matches[0]]
        if matches:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {text}")
        raise NotFound(f"No such container: {text}")

    def choose_name(self, wanted: str, container_id: ContainerId) -> str:
        """Check the wanted name, or make one up. Raises InvalidArgument, Conflict."""
        if not wanted:
            return names.made_up(lambda name: name in self._names, container_id[:12])
        name = names.check_name(wanted)
        self.refuse_taken(name)
        return name

    def refuse_taken(self, name: str) -> None:
        """Raise Conflict, in the words clients search for, when another container has the name."""
        owner = self._names.get(name)
        if owner is not None:
            raise _name_conflict(name, owner)

    async def add(self, container: Container) -> Slot:
        """Record a new container durably. Raises Conflict when the name was taken meanwhile."""
        self.refuse_taken(container.name)
        self._names[container.name] = container.id  # reserved before the write, so that two creates cannot both pass
        try:
            await self._db.write(lambda connection: records.insert(connection, container))
        except sqlite3.IntegrityError:
            self._names.pop(container.name, None)
            raise _name_conflict(container.name, container.id) from None
        except BaseException:
            self._names.pop(container.name, None)
            raise
        return self._admit(container)

    def change(self, slot: Slot, **changes: Any) -> Container:
        """Replace the record in memory at once and on disk soon: for facts the kernel can tell again."""
        self._replace(slot, changes, durable=False)
        return slot.container

    async def save(self, slot: Slot, *, durable: bool = False, **changes: Any) -> Container:
        """Replace the record; returns when kill -9 cannot undo it, with `durable` when a power cut cannot either."""
        await asyncio.wrap_future(self._replace(slot, changes, durable=durable))
        return slot.container

    def _replace(self, slot: Slot, changes: dict[str, Any], *, durable: bool) -> Future[None]:
        slot.container = container = replace(slot.container, **changes)
        if container.is_running:
            slot.stopped.clear()
        return self._db.submit(lambda connection: records.update(connection, container), durable=durable)

    def begin_removal(self, slot: Slot) -> Future[None]:
        """It is being removed: in memory at once; the future resolves when even a power cut does not undo that.

        Nothing of it may go before: a container that has lost a part would look like a whole one.
        """
        return self._replace(slot, {"state": State.REMOVING}, durable=True)

    async def rename(self, slot: Slot, wanted: str) -> str:
        """Give it another name. Raises InvalidArgument, Conflict. Returns the old name."""
        if not wanted:
            raise InvalidArgument("Neither old nor new names may be empty")
        old = slot.container.name
        if wanted.removeprefix("/") == old:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        try:
            name = names.check_name(wanted)
            self.refuse_taken(name)
        except (InvalidArgument, Conflict) as error:
            raise type(error)(f"Error when allocating new name: {error.message}", hint=error.hint) from None
        self._names[name] = slot.container.id
        try:
            await self.save(slot, durable=True, name=name)
        except BaseException:
            self._names.pop(name, None)
            raise
        self._names.pop(old, None)
        return old

    async def forget(self, slot: Slot) -> None:
        """Delete the record durably; the name is free afterwards. Idempotent."""
        container = slot.container
        await self._db.write(lambda connection: records.delete(connection, container.id))
        self._slots.pop(container.id, None)
        if self._names.get(container.name) == container.id:
            del self._names[container.name]


def _name_conflict(name: str, owner: str) -> Conflict:
    return Conflict(
        f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
