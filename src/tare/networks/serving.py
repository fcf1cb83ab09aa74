"""Names of containers, served inside each of them at 127.0.0.11."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from tare.aio.threads import in_thread
from tare.drivers.network.bridge import BridgeDriver
from tare.drivers.network.netns import NetNamespace
from tare.networks import texts
from tare.networks.directory import Directory
from tare.networks.holding import Held
from tare.networks.nameserver import Book, NameServer
from tare.networks.records import NetworkRecord
from tare.wire.config import EndpointSettings


class Names:
    """Opens name servers. `networks` is the service's own table, by id; dns: the engine's servers, none for the host's."""

    def __init__(
        self,
        driver: BridgeDriver,
        directory: Directory,
        networks: Mapping[str, NetworkRecord],
        *,
        dns: Sequence[str] = (),
    ) -> None:
        self._driver = driver
        self._directory = directory
        self._networks = networks
        self._dns = tuple(dns)

    def are_wanted(self, endpoints: Mapping[str, EndpointSettings]) -> bool:
        """Whether one of its networks has names."""
        return any(n.has_names for e in endpoints.values() if (n := self._networks.get(e.NetworkID)) is not None)

    async def open(self, held: Held, namespace: NetNamespace, *, is_new: bool = False) -> None:
        """Serve them inside, until `held.names` is closed. is_new: nobody did in this namespace before."""
        book = Book(
            find=lambda name: self._directory.find(name, held.attachment.endpoints),
            name_of=lambda address: self._directory.name_of(address, held.attachment.endpoints),
            servers=lambda: self.servers_for(held),
        )
        server = NameServer(book)
        await server.open(*await in_thread(partial(self._driver.name_sockets, namespace, is_new=is_new)))
        held.names = server

    def servers_for(self, held: Held) -> Sequence[str]:
        """Whom to ask what we do not know: nobody where the container must not reach the outside."""
        if not held.gateways:
            return ()
        return tuple(held.wish.host.Dns or ()) or self._dns or texts.host_servers()
