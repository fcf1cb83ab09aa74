"""What was made for networks that are gone, and whom it would have belonged to: found, and taken away.

A link that this engine has made carries the engine's mark as its alias; those of other engines, of dockerd and of the
administrator do not, and are never touched. What the kernel was told of a link (addresses, `net.ipv4.conf.<link>`) goes
with it; what the packet filter says of it is in our own tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tare.aio.threads import in_thread
from tare.drivers.network.nft import bridge_of
from tare.networks.records import NetworkRecord
from tare.networks.wiring import Wiring


class Strays:
    """Looks at the kernel; `networks` is the service's own table, by id."""

    def __init__(self, wiring: Wiring, networks: Mapping[str, NetworkRecord], changing: asyncio.Lock) -> None:
        """changing: locked while networks are made and removed."""
        self._wiring = wiring
        self._networks = networks
        self._changing = changing

    def marked(self) -> dict[str, int]:
        """Links that this engine has made, and how many interfaces use each. Blocks; for a thread."""
        return self._wiring.driver.marked(self._wiring.mark)

    def known(self) -> frozenset[str]:
        """Links of networks that there are. For the loop's thread."""
        return frozenset(name for record in self._networks.values() for name in (record.bridge, record.parent) if name)

    async def remove_link(self, name: str) -> str:
        """Take a link away that has our mark and no network. "" when it is gone or has one, else why it stays."""
        async with self._changing:
            used = (await in_thread(self.marked)).get(name)
            if used is None or name in self.known():
                return ""
            if used:
                return f"{used} interfaces use it: end what has them, or `ip link delete {name}`"
            await in_thread(self._wiring.driver.remove_link, name)
            await in_thread(self._wiring.driver.forget_forwarding, name)
            return ""

    async def remove_rule(self, said: str) -> None:
        """Take an entry of our tables away that is about no network and no container; the caller knows that."""
        async with self._changing:
            if (bridge := bridge_of(said)) in self.known():
                return
            await in_thread(self._wiring.driver.forget, self._wiring.engine, said)
            if bridge:
                await in_thread(self._wiring.driver.forget_forwarding, bridge)
