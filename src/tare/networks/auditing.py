"""What the packet filter, the host's ports and the namespaces must be by the records, and what they are. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from tare.drivers.network.nft import entries
from tare.networks import ports
from tare.networks.exposing import Exposer
from tare.networks.holding import Held
from tare.networks.plan import Mode
from tare.networks.ports import Published
from tare.networks.publishing import Publisher
from tare.networks.records import NetworkRecord
from tare.networks.wiring import Wiring
from tare.wire.config import PortBinding

Bindings = Mapping[str, list[PortBinding] | None]


class Due(Struct, frozen=True, kw_only=True):
    """What must be. is_changing: a network is being made or removed, so that nothing can be said of more than this.

    rules: elements of our sets and maps in words (`Nft.said`), by whose they are: a bridge or a container's id. held,
    unheld: ports of the host, as `tcp 0.0.0.0:80`, that are held for nobody, and by container those that should be.
    modes: the network namespaces of containers that are plugged in.
    """

    rules: Mapping[str, frozenset[str]] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    unheld: Mapping[str, frozenset[str]] = field(default_factory=dict)
    modes: Mapping[str, Mode] = field(default_factory=dict)
    is_changing: bool = False


class Auditor:
    """Looks at what the service has: its own tables, by network id and by container id."""

    def __init__(
        self,
        wiring: Wiring,
        exposer: Exposer,
        publisher: Publisher,
        networks: Mapping[str, NetworkRecord],
        held: Mapping[str, Held],
        changing: asyncio.Lock,
    ) -> None:
        """changing: locked while networks are made and removed."""
        self._wiring = wiring
        self._exposer = exposer
        self._publisher = publisher
        self._networks = networks
        self._held = held
        self._changing = changing

    def said(self) -> frozenset[str] | None:
        """What the packet filter has of ours, None where it is not used. Blocks; for a thread."""
        return self._wiring.driver.said(self._wiring.engine)

    def due(self, running: Mapping[str, Bindings]) -> Due:
        """running: what the records say is published, by id of each container that runs. For the loop's thread."""
        rules = {
            record.bridge: frozenset(entry.said for entry in entries(self._wiring.rules(record)))
            for record in self._networks.values()
            if record.bridge
        }
        places: set[str] = set()
        unheld: dict[str, frozenset[str]] = {}
        there = {_place(*key) for key in self._publisher.held()}
        for container_id, bindings in running.items():
            published = ports.published_of(bindings)
            wanted = {_place(entry.protocol, entry.host_ip, entry.host_port) for entry in published if entry.host_port}
            places |= wanted
            unheld[container_id] = frozenset(wanted - there)
            rules[container_id] = self._translated(container_id, published)
        return Due(
            rules=rules,
            held=frozenset(there - places),
            unheld=unheld,
            modes={container_id: held.attachment.mode for container_id, held in self._held.items()},
            is_changing=self._changing.locked(),
        )

    def _translated(self, container_id: str, published: Sequence[Published]) -> frozenset[str]:
        held = self._held.get(container_id)
        if held is None:
            return frozenset()
        by_bridge = self._publisher.rules_of(published, self._exposer.place(held))
        return frozenset(publication.said for _, chosen in by_bridge for publication in chosen)


def _place(protocol: str, host_ip: object, port: int) -> str:
    return f"{protocol} {f'[{host_ip}]' if ':' in str(host_ip) else host_ip}:{port}"
