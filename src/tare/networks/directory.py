"""Who is called what on which network: the answers of the name servers. Pure but for its own memory.

An index per network is made at the first question after a change, so that a look-up is one step however many
containers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from msgspec import Struct, field

from tare.networks.attachment import Member
from tare.wire.config import EndpointSettings

IPAddress = IPv4Address | IPv6Address


class _Index(Struct, frozen=True):
    addresses: dict[str, list[IPAddress]] = field(default_factory=dict)
    names: dict[IPAddress, str] = field(default_factory=dict)


class Directory:
    """Names of all networks. `members` tells who is on one; `changed` must be called when that is not true any more."""

    def __init__(self, members: Callable[[str], Sequence[Member]]) -> None:
        self._members = members
        self._indexes: dict[str, _Index] = {}

    def changed(self) -> None:
        """Somebody came, went or was renamed."""
        self._indexes.clear()

    def _index(self, network_id: str) -> _Index:
        index = self._indexes.get(network_id)
        if index is None:
            index = self._indexes[network_id] = _Index()
            for member in self._members(network_id):
                for text in (member.settings.IPAddress, member.settings.GlobalIPv6Address):
                    if not text:
                        continue
                    address = ip_address(text)
                    index.names[address] = member.container_name
                    for name in member.settings.DNSNames or ():
                        index.addresses.setdefault(name.lower(), []).append(address)
        return index

    def find(self, name: str, endpoints: Mapping[str, EndpointSettings]) -> Sequence[IPAddress] | None:
        """The addresses of a name as a container with these endpoints (by network name) sees it; None: nobody's.

        `name.network` names a container on one network. A link's alias is known to the container that has it only.
        """
        named = [(network, settings) for network, settings in endpoints.items() if settings.DNSNames]
        for _, settings in named:
            index = self._index(settings.NetworkID)
            wanted = aliases(settings.Links or ()).get(name, name)
            if found := index.addresses.get(wanted.lower()):
                return found
        host, dot, last = name.rpartition(".")
        if dot:
            for network, settings in named:
                if network.lower() == last and (found := self._index(settings.NetworkID).addresses.get(host)):
                    return found
        return None

    def name_of(self, address: IPAddress, endpoints: Mapping[str, EndpointSettings]) -> str | None:
        """`container.network` of an address on one of the networks, or None."""
        for network, settings in endpoints.items():
            if settings.DNSNames and (name := self._index(settings.NetworkID).names.get(address)):
                return f"{name}.{network}"
        return None


def aliases(links: Sequence[str]) -> dict[str, str]:
    """`["web:frontend", "db"]` as alias (lower case) to container: `{"frontend": "web", "db": "db"}`."""
    found: dict[str, str] = {}
    for link in links:
        container, _, alias = link.partition(":")
        found[(alias or container).lower().removeprefix("/")] = container.removeprefix("/")
    return found
