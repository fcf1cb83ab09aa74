"""Which of its networks carries a container's default routes, and turning those of a running one."""

from __future__ import annotations

from collections.abc import Mapping

from tare.aio.threads import in_thread
from tare.drivers.network.bridge import BridgeDriver
from tare.drivers.network.netns import NetNamespace
from tare.networks import parents
from tare.networks import plan as planning
from tare.networks.attachment import addresses_of
from tare.networks.holding import Held
from tare.networks.records import NetworkRecord
from tare.wire.config import EndpointSettings


class Routes:
    """Chooses and turns. `networks` is the service's own table, by id."""

    def __init__(self, driver: BridgeDriver, networks: Mapping[str, NetworkRecord]) -> None:
        self._driver = driver
        self._networks = networks

    def gateways_of(self, endpoints: Mapping[str, EndpointSettings]) -> dict[int, str]:
        """For each family (4, 6) the id of the network that carries the default route."""
        pairs = [(self._networks[e.NetworkID], e) for e in endpoints.values() if e.NetworkID in self._networks]
        chosen = {version: planning.choose_gateway(pairs, version) for version in (4, 6)}
        return {version: network.id for version, network in chosen.items() if network is not None}

    async def turn(self, held: Held, namespace: NetNamespace, version: int) -> None:
        """The default route of a family goes by `held.gateways` now; nothing is done where that has no network."""
        network = self._networks.get(held.gateways.get(version, ""))
        if network is not None:
            settings = held.attachment.endpoints[network.name]
            if version == 6 and not settings.GlobalIPv6Address:  # switched off in this container
                return
            await in_thread(
                self._driver.set_gateway,
                namespace,
                settings.MacAddress,
                network.gateway if version == 4 else network.gateway6,
                version=version,
                addresses=addresses_of([settings]),
                is_direct=parents.routes_directly(network),
                besides=held.leaving,
            )

    async def check(self, held: Held, namespace: NetNamespace) -> None:
        """An engine that was killed while it connected or disconnected may have left a default route half turned.

        One that the container made for itself is left alone.
        """
        routes = await in_thread(namespace.netlink.routes)
        ours = {gateway for n in self._networks.values() for gateway in (n.gateway, n.gateway6)}
        for version, network_id in held.gateways.items():
            network = self._networks[network_id]
            wanted = network.gateway if version == 4 else network.gateway6
            defaults = {r.gateway for r in routes if not r.destination.prefixlen and r.destination.version == version}
            if not parents.routes_directly(network) and wanted not in defaults and defaults <= ours:
                await self.turn(held, namespace, version)
