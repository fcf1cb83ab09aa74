"""Which ports a container has published, from its start to its end, and while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from msgspec.structs import replace

from tare.aio.threads import in_thread
from tare.networks import ports
from tare.networks.holding import Held
from tare.networks.ports import PortWish, Published
from tare.networks.publishing import Place, Publisher
from tare.networks.records import NetworkRecord
from tare.networks.wiring import Wiring
from tare.wire.config import HostConfig


class Exposer:
    """Publishes for containers. `networks` is the service's own table, by id."""

    def __init__(self, publisher: Publisher, wiring: Wiring, networks: Mapping[str, NetworkRecord]) -> None:
        self._publisher = publisher
        self._wiring = wiring
        self._networks = networks

    def place(self, held: Held) -> Place:
        """Where a container's ports are published; empty where they cannot be (no bridge with a way out)."""
        found = {}
        for version, network_id in held.gateways.items():
            network = self._networks.get(network_id)
            if network is None or network.driver != "bridge":
                continue
            endpoint = held.attachment.endpoints[network.name]
            address = endpoint.IPAddress if version == 4 else endpoint.GlobalIPv6Address
            if not address:  # IPv6, switched off in this container
                continue
            found[version] = self._wiring.rules(network), ip_address(address)
        return Place(found)

    async def expose(self, held: Held) -> None:
        """Publish what the container asks for. Those that were published before keep their number."""
        place = self.place(held)
        wishes = ports.wishes(held.wish.config, held.wish.host) if place else []
        if not wishes:
            return
        if held.again:  # moved from one network to another: the host's side stays
            wishes, held.again = list(held.again), ()
        self._show(held, await self._publish(held, wishes, place))

    async def _publish(
        self, held: Held, wishes: list[PortWish], place: Place, *, besides: Sequence[Published] = ()
    ) -> tuple[Published, ...]:
        network = self._networks[held.gateways[min(place.by_version)]]
        return await self._publisher.publish(
            wishes,
            place=place,
            default_ip=network.host_binding,
            who=f"{held.name} ({held.attachment.endpoints[network.name].EndpointID})",
            besides=besides,
        )

    @staticmethod
    def _show(held: Held, published: tuple[Published, ...]) -> None:
        held.published = published
        held.attachment = replace(held.attachment, ports=ports.bindings(published))

    async def withdraw(self, held: Held, *, keep: bool = False) -> None:
        """Take the published ports back. keep: remember their numbers for the next network."""
        if held.attachment.ports:
            place = self.place(held)
            if keep and place:
                wishes = ports.wishes(held.wish.config, held.wish.host)
                held.again = tuple(ports.again(wishes, held.published, self._default_ip(held, place)))
            await self._publisher.withdraw(held.published, place=place)
        self._show(held, ())

    def _default_ip(self, held: Held, place: Place) -> str:
        return self._networks[held.gateways[min(place.by_version)]].host_binding

    async def adopt(self, held: Held) -> None:
        """After a restart of the engine: what is published goes on being so."""
        if held.published and (place := self.place(held)):
            await self._publisher.adopt(held.published, place=place)

    async def change(self, held: Held, host: HostConfig) -> None:
        """The container asks for other ports now. What stays is not touched; a conflict changes nothing.

        Raises InvalidArgument, InternalError (taken).
        """
        place = self.place(held)
        before = ports.wishes(held.wish.config, held.wish.host)
        after = ports.wishes(held.wish.config, host)
        held.again = ()
        if place:
            owners = ports.owners(before, held.published, self._default_ip(held, place))
            kept = Counter(after)
            removed: list[Published] = []
            for wish, entries in owners:
                if kept[wish]:
                    kept[wish] -= 1
                else:
                    removed += entries
            added = sorted(kept.elements(), key=ports.order)
            await self._exchange(held, removed, added, place)
        held.wish = replace(held.wish, host=host)

    async def _exchange(self, held: Held, removed: list[Published], added: list[PortWish], place: Place) -> None:
        kept = ports.less(held.published, removed)
        if removed:
            await self._publisher.withdraw(removed, place=place, keeps=kept)
        try:
            new = await self._publish(held, added, place, besides=kept) if added else ()
        except BaseException:
            if removed:
                await self._publish(held, [ports.wish_of(entry) for entry in removed], place, besides=kept)
            raise
        if added:
            for outside in held.outside.values():
                await in_thread(self._wiring.driver.reflect, outside)
        self._show(held, (*kept, *new))
