"""Mending what somebody else took away: rules, bridges, the host's ends of containers' interfaces.

The kernel tells (`drivers/network/watch`); a moment later, when the storm is over, what is ours is compared with what
should be there. Rules that are as they were cost one look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from tare.aio.tasks import spawn
from tare.aio.threads import in_thread
from tare.base.errors import TareError
from tare.drivers.network.nft import PREFIX
from tare.drivers.network.watch import Losses, Watch
from tare.networks import plugging
from tare.networks.holding import Held
from tare.networks.publishing import Publisher
from tare.networks.records import NetworkRecord
from tare.networks.wiring import Wiring

log = logging.getLogger(__name__)

_SETTLE_S = 0.1
_AGAIN_S = 1.0


class Watcher:
    """Sees to it that networks stay whole. All methods belong to the event loop's thread."""

    def __init__(
        self,
        wiring: Wiring,
        publisher: Publisher,
        networks: Mapping[str, NetworkRecord],
        held: Mapping[str, Held],
    ) -> None:
        """networks, held: the service's own tables, by network id and by container id."""
        self._wiring = wiring
        self._publisher = publisher
        self._networks = networks
        self._held = held
        self._watch: Watch | None = None
        self._losses = Losses()
        self._timer: asyncio.TimerHandle | None = None
        self._shape = ""

    def start(self) -> None:
        """Listen from now on. A kernel that does not tell is logged: then nothing is mended."""
        try:
            self._watch = self._wiring.driver.watch()
        except OSError as error:
            log.warning("the kernel does not tell what happens to links and rules: %s", error.strerror)
            return
        loop = asyncio.get_running_loop()
        for each in self._watch.sockets:
            loop.add_reader(each.fileno(), self._hear)

    def close(self) -> None:
        """Listen no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watch is not None:
            loop = asyncio.get_running_loop()
            for each in self._watch.sockets:
                loop.remove_reader(each.fileno())
            self._watch.close()
            self._watch = None

    def _hear(self) -> None:
        if self._watch is None:
            return
        losses = self._watch.read()
        if not losses:
            return
        concerned = self._concerning(losses)
        if concerned:
            self._remember(concerned)

    def _concerning(self, losses: Losses) -> Losses:
        """What of it may be ours."""
        ours: set[str] = set()
        if losses.links:
            ours |= {record.bridge for record in self._networks.values() if record.bridge}
            ours |= {name for held in self._held.values() for name in held.outside.values()}
        return Losses(
            losses.links & ours,
            losses.tables & {PREFIX + self._wiring.engine},
            everything=losses.everything,
            firewalls=losses.firewalls and any(not name.startswith(PREFIX) for name in losses.tables | {""}),
        )

    def _remember(self, losses: Losses, delay_s: float = _SETTLE_S) -> None:
        before = self._losses
        self._losses = Losses(
            before.links | losses.links,
            before.tables | losses.tables,
            everything=before.everything or losses.everything,
            firewalls=before.firewalls or losses.firewalls,
        )
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._mend_soon)

    def _mend_soon(self) -> None:
        self._timer = None
        losses, self._losses = self._losses, Losses()
        spawn(self._mend(losses), name="mend networks")

    async def _mend(self, losses: Losses) -> None:
        try:
            await self.mend(losses)
        except TareError as error:
            log.warning("what was taken from a network cannot be mended yet: %s", error.message)
            if self._watch is not None:
                self._remember(losses, _AGAIN_S)

    async def mend(self, losses: Losses) -> None:
        """Put back what is missing of this. Raises TareError."""
        bridges = [record for record in self._networks.values() if record.bridge]
        lost = [record for record in bridges if record.bridge in losses.links or losses.everything]
        for record in lost:
            await in_thread(self._wiring.make, record)
        is_suspect = losses.everything or PREFIX + self._wiring.engine in losses.tables
        if lost or (is_suspect and not await self._is_whole()):
            names = ", ".join(record.bridge for record in lost if record.bridge in losses.links)
            log.warning("rules%s were taken away: they are made again", f" and bridge {names}" if names else "")
            rules = [self._wiring.rules(record) for record in self._networks.values() if record.bridge]
            await self._publisher.restore(rules)
        for held in list(self._held.values()):
            await self.mend_ends(held, losses)
        if losses.firewalls:
            names_now = [record.bridge for record in self._networks.values() if record.bridge]
            await in_thread(self._wiring.accept_forwarding, names_now)

    async def learn(self) -> None:
        """The rules have just been made for the first time: remember how they look. It is the same for any networks.

        Not again when they were mended: somebody may be taking them away at that moment.
        """
        self._shape = await in_thread(self._wiring.driver.shape, self._wiring.engine)

    async def _is_whole(self) -> bool:
        return bool(self._shape) and self._shape == await in_thread(self._wiring.driver.shape, self._wiring.engine)

    async def mend_ends(self, held: Held, losses: Losses) -> None:
        """The same for one container's interfaces. Raises TareError."""
        for network_id, outside in list(held.outside.items()):
            network = self._networks.get(network_id)
            if network is None or not network.bridge or not held.pid:
                continue
            if not (losses.everything or outside in losses.links or network.bridge in losses.links):
                continue
            settings = held.attachment.endpoints.get(network.name)
            if settings is None:
                continue
            gateways = [version for version, chosen in held.gateways.items() if chosen == network_id]
            plug = plugging.plug(
                network, settings, gateways=gateways, mtu=self._wiring.mtu, reflects=bool(held.published or held.again)
            )
            try:
                namespace = await in_thread(self._wiring.driver.open_namespace, held.pid)
            except TareError:
                continue  # it has just ended
            try:
                found = await in_thread(self._wiring.driver.mend, namespace, plug)
            finally:
                namespace.close()
            if network_id in held.outside:
                held.outside[network_id] = found
