"""Volumes: which there are, who refers to them, who has them mounted.

Life of a volume: `obtain` (made if it is not there, and held for a container in the same step) or `create`; `mount`
and `unmount` while the container runs; `let_go` when the container is removed; `remove` once nobody refers to it.
Steps about one volume follow each other; a step about one never waits for another volume's server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from tare.aio import failpoints
from tare.aio.threads import in_thread
from tare.base import clock
from tare.base.errors import Conflict, InvalidArgument, NotFound, TareError
from tare.base.ids import is_full_id, random_id
from tare.base.news import News, Publish
from tare.drivers.volumes import VolumeDriver
from tare.store.db import Database
from tare.volumes import records
from tare.volumes.names import check_name
from tare.volumes.records import ANONYMOUS, VolumeRecord
from tare.wire.filters import Filters, flag, labels_match

log = logging.getLogger(__name__)

DEFAULT_DRIVER = "local"
LIST_FILTERS = frozenset({"dangling", "driver", "label", "label!", "name"})
PRUNE_FILTERS = frozenset({"all", "label", "label!"})


class Volumes:
    """All volumes, by name."""

    def __init__(self, *, database: Database, drivers: Mapping[str, VolumeDriver], publish: Publish) -> None:
        self._db = database
        self._drivers = drivers
        self._publish = publish
        self._records: dict[str, VolumeRecord] = {}
        self._holders: dict[str, set[str]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"Volumes({len(self._records)})"

    @property
    def driver_names(self) -> list[str]:
        """The drivers there are, for `info`."""
        return sorted(self._drivers)

    async def restore(self, holders: Mapping[str, set[str]], users: Mapping[str, set[str]]) -> None:
        """Once at start. holders: the containers that refer to each volume; users: those that ran when we stopped.

        Volumes that are on disk without a record (it was lost with the database) come back.
        """
        self._records = {record.name: record for record in await self._db.read(records.load)}
        for driver in self._drivers.values():
            for name, created_at in (await in_thread(driver.lost, set(self._records))).items():
                await self._adopt(driver, name, created_at)
        self._holders = {name: set(ids) for name, ids in holders.items() if ids}
        for record in self._records.values():
            if not record.options:  # its record is durable, an empty directory need not have been
                self._driver(record.driver).create(record.name, record.options)
            self._driver(record.driver).adopt(record.name, users.get(record.name, set()))

    async def _adopt(self, driver: VolumeDriver, name: str, created_at: int) -> None:
        try:
            check_name(name)
        except InvalidArgument:
            return
        log.warning("volume %s has content and no record: it is taken in again", name)
        labels = {ANONYMOUS: ""} if is_full_id(name) else {}
        record = VolumeRecord(name=name, driver=driver.name, created_at=created_at, labels=labels)
        await self._db.write(partial(records.save, record=record))
        self._records[name] = record

    # -- looking ------------------------------------------------------------------------------------------------------

    def get(self, name: str) -> VolumeRecord:
        """Raises NotFound in the words clients search for (W8)."""
        try:
            return self._records[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    def select(self, filters: Filters) -> list[VolumeRecord]:
        """Those that pass, by name. Raises InvalidArgument for a value that cannot be."""
        dangling = flag(filters, "dangling")
        return [
            record
            for name, record in sorted(self._records.items())
            if (dangling is None or dangling == (not self._holders.get(name)))
            and ("driver" not in filters or record.driver in filters["driver"])
            and ("name" not in filters or any(part in name for part in filters["name"]))
            and labels_match(filters, record.labels)
        ]

    def is_plain(self, name: str) -> bool:
        """Whether it is kept as it is between uses: nothing has to be mounted for it. Raises NotFound."""
        return not self.get(name).options

    def path(self, name: str) -> Path:
        """Where its content is (while it is mounted). Raises NotFound."""
        record = self.get(name)
        return self._driver(record.driver).path(name)

    def holders(self, name: str) -> list[str]:
        """Ids of the containers that refer to it."""
        return sorted(self._holders.get(name, ()))

    def held_by(self, container_id: str) -> list[str]:
        """Names of the volumes a container refers to."""
        return sorted(name for name, ids in self._holders.items() if container_id in ids)

    async def usage(self, name: str) -> int:
        """Bytes of its files."""
        record = self.get(name)
        return await in_thread(self._driver(record.driver).usage, name)

    # -- making and removing ------------------------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> VolumeRecord:
        """Make a volume, or find the one of that name. "": a name is made up.

        Durable. Raises Conflict when the name belongs to another driver, NotFound for an unknown driver,
        InvalidArgument for name or options.
        """
        chosen = name or random_id()
        async with self._lock(chosen):
            return await self._create(chosen, name, driver, options or {}, labels or {}, durable=True)

    async def obtain(
        self,
        name: str,
        container_id: str,
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> tuple[VolumeRecord, bool]:
        """Like `create`, and held for the container from the same moment on. Also says whether it is new.

        The record is durable once a later durable write has returned (that of the container).
        """
        chosen = name or random_id()
        async with self._lock(chosen):
            is_new = chosen not in self._records
            record = await self._create(chosen, name, driver, options or {}, labels or {}, durable=False)
            self._holders.setdefault(chosen, set()).add(container_id)
            return record, is_new

    async def _create(
        self,
        name: str,
        wanted: str,
        driver: str,
        options: Mapping[str, str],
        labels: Mapping[str, str],
        *,
        durable: bool,
    ) -> VolumeRecord:
        try:
            found = self._records.get(name)
            if found is not None:
                if driver and driver != found.driver:
                    raise Conflict(f"driver '{found.driver}' already has volume '{name}': volume name must be unique")
                return found
            chosen = self._driver(driver or DEFAULT_DRIVER)
            check_name(name)
            chosen.check(options)
        except TareError as error:
            raise type(error)(f"create {name}: {error.message}", hint=error.hint) from None
        is_new = not chosen.path(name).exists()
        try:
            chosen.create(name, options)
        except BaseException as error:
            if is_new:
                chosen.remove(name)
            if isinstance(error, TareError):
                raise type(error)(f"create {name}: {error.message}", hint=error.hint) from None
            raise
        record = VolumeRecord(
            name=name,
            driver=chosen.name,
            created_at=clock.now(),
            options=dict(options),
            labels=dict(labels) if wanted else {**labels, ANONYMOUS: ""},
        )
        try:
            await self._db.write(partial(records.save, record=record), durable=durable)
        except BaseException:
            if is_new:
                chosen.remove(name)
            raise
        failpoints.passed("volume.recorded")
        self._records[name] = record
        self._tell(record, "create")
        return record

    def let_go(self, name: str, container_id: str) -> None:
        """The container refers to it no more. Idempotent."""
        holders = self._holders.get(name)
        if holders is not None:
            holders.discard(container_id)
            if not holders:
                del self._holders[name]

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove it with its content. Raises Conflict while a container refers to it, NotFound unless forced."""
        async with self._lock(name):
            record = self._records.get(name)
            if record is None:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            holders = self.holders(name)
            if holders:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(holders)}]")
            driver = self._driver(record.driver)
            await self._db.write(partial(records.delete, name=name))
            try:
                failpoints.hit("volume.forgotten")
                await in_thread(driver.remove, name)
            except (TareError, OSError):  # it is still there: so is its record
                await self._db.write(partial(records.save, record=record))
                raise
            del self._records[name]
            self._tell(record, "destroy")

    async def prune(self, filters: Filters, *, include_named: bool) -> tuple[list[str], int]:
        """Remove what no container refers to: anonymous ones, or all. Names and bytes freed."""
        deleted: list[str] = []
        reclaimed = 0
        for name, record in sorted(self._records.items()):
            if self._holders.get(name) or not (include_named or record.is_anonymous):
                continue
            if not labels_match(filters, record.labels):
                continue
            size = await self.usage(name)
            try:
                await self.remove(name)
            except (Conflict, NotFound):
                continue  # somebody was quicker
            deleted.append(name)
            reclaimed += size
        self._publish(News(type="volume", action="prune", id="", attributes={"reclaimed": str(reclaimed)}))
        return deleted, reclaimed

    # -- use ----------------------------------------------------------------------------------------------------------

    async def mount(self, name: str, user: str) -> Path:
        """Make the content appear at the path returned, for a container. Counted once per user.

        Raises NotFound, InvalidArgument (the volume's options), Unavailable (a server that does not answer).
        """
        async with self._lock(name):
            record = self.get(name)
            driver = self._driver(record.driver)
            if record.options:
                return await in_thread(driver.mount, name, record.options, user)
            return driver.mount(name, record.options, user)

    async def unmount(self, name: str, user: str) -> bool:
        """The user needs it no more. Whether it had it. Idempotent."""
        async with self._lock(name):
            record = self._records.get(name)
            if record is None:
                return False
            driver = self._driver(record.driver)
            if user not in driver.users(name):
                return False
            if record.options:
                return await in_thread(driver.unmount, name, user)
            return driver.unmount(name, user)

    def stage(self, name: str) -> Path | None:
        """An empty directory to be filled and made the content by `commit`; None where only the volume itself will do."""
        record = self.get(name)
        return self._driver(record.driver).stage(name, record.options)

    async def commit(self, name: str) -> bool:
        """Make the staged directory the content. False when the volume got some meanwhile, or a user."""
        async with self._lock(name):
            record = self.get(name)
            return await in_thread(self._driver(record.driver).commit, name)

    async def exchange(self, name: str) -> bool:
        """The staged directory and the content change places. False while it has a user."""
        async with self._lock(name):
            record = self.get(name)
            return await in_thread(self._driver(record.driver).exchange, name)

    def users(self, name: str) -> list[str]:
        """Who has it mounted now. Raises NotFound."""
        return sorted(self._driver(self.get(name).driver).users(name))

    def filling(self, name: str) -> asyncio.Lock:
        """Held by whoever brings the first content into a volume."""
        return self._lock(f"{name}/")

    def tell(self, name: str, action: str, **attributes: str) -> None:
        """Publish a volume event with the driver's name and these attributes; nothing for an unknown volume."""
        record = self._records.get(name)
        if record is not None:
            self._tell(record, action, **attributes)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _tell(self, record: VolumeRecord, action: str, **attributes: str) -> None:
        self._publish(
            News(type="volume", action=action, id=record.name, attributes={"driver": record.driver, **attributes})
        )

    def _driver(self, name: str) -> VolumeDriver:
        try:
            return self._drivers[name]
        except KeyError:
            raise NotFound(f'error looking up volume plugin {name}: plugin "{name}" not found') from None

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock
