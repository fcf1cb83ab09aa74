"""Publishing ports: the host's numbers held, the packet filter told; both or neither."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from ipaddress import IPv4Address

from tare.aio.threads import in_thread
from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound, TareError, Unavailable
from tare.drivers.network.bridge import BridgeDriver
from tare.drivers.network.nft import BridgeRules, Publication
from tare.drivers.network.ports import PortHolder
from tare.networks.ports import PortWish, Published

log = logging.getLogger(__name__)


class Publisher:
    """What this engine publishes at the host's addresses."""

    def __init__(self, driver: BridgeDriver) -> None:
        self._driver = driver
        self._holder = PortHolder()

    def close(self) -> None:
        """Let go of the host's ports; the rules stay, and with them what is published."""
        self._holder.close()

    async def publish(
        self, wishes: Sequence[PortWish], *, rules: BridgeRules, address: IPv4Address, default_ip: IPv4Address, who: str
    ) -> tuple[Published, ...]:
        """Hold and map every port, or none. who: `NAME (ENDPOINT)` for the message.

        Raises InternalError in the words in which Docker's clients know a port that is taken.
        """
        held: list[Published] = []
        try:
            for wish in wishes:
                host_ip = wish.host_ip or default_ip
                number = self._holder.hold(wish.protocol, host_ip, wish.first, wish.last)
                held.append(Published(protocol=wish.protocol, port=wish.port, host_ip=host_ip, host_port=number))
            await self._map(held, rules=rules, address=address, present=True)
        except BaseException as error:
            self._release(held)
            if isinstance(error, Conflict | InvalidArgument | Unavailable):
                raise InternalError(
                    f"driver failed programming external connectivity on endpoint {who}: {error.message}",
                    hint=error.hint,
                ) from None
            raise
        return tuple(held)

    async def withdraw(self, published: Sequence[Published], *, rules: BridgeRules, address: IPv4Address) -> None:
        """Unmap and let go. Rules somebody flushed are as good as unmapped."""
        try:
            await self._map(published, rules=rules, address=address, present=False)
        except (NotFound, Unavailable) as error:
            log.info("ports of %s were not mapped any more: %s", address, error.message)
        finally:
            self._release(published)

    async def adopt(self, published: Sequence[Published], *, rules: BridgeRules, address: IPv4Address) -> None:
        """After a restart of the engine: hold and map what a running container has. What is lost is logged."""
        for entry in published:
            try:
                self._holder.hold(entry.protocol, entry.host_ip, entry.host_port, entry.host_port)
            except TareError as error:
                log.warning("port %s of the host is not ours any more: %s", entry.host_port, error.message)
        await self._map(published, rules=rules, address=address, present=True)

    async def _map(
        self, published: Sequence[Published], *, rules: BridgeRules, address: IPv4Address, present: bool
    ) -> None:
        if not published:
            return
        publications = [
            Publication(
                protocol=entry.protocol,
                host_port=entry.host_port,
                address=address,
                port=entry.port,
                host_ip=None if entry.host_ip.is_unspecified else entry.host_ip,
            )
            for entry in published
        ]
        await in_thread(partial(self._driver.publish, rules, publications, present=present))

    def _release(self, published: Sequence[Published]) -> None:
        for entry in published:
            self._holder.release(entry.protocol, entry.host_ip, entry.host_port)
