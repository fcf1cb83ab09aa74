"""Host's side and packet filter: both or neither."""

import asyncio
import socket
from ipaddress import IPv4Address, IPv4Network

import pytest

from tare.base.errors import InternalError, NotFound
from tare.drivers.network.nft import BridgeRules
from tare.networks.ports import PortWish
from tare.networks.publishing import Place, Publisher

RULES = BridgeRules(bridge="br-x", subnet=IPv4Network("10.0.0.0/24"))
PLACE = Place({4: (RULES, IPv4Address("10.0.0.2"))})
LOOPBACK = IPv4Address("127.0.0.1")


class Filter:
    """The packet filter as a set of keys."""

    def __init__(self):
        self.mapped, self.error = set(), None

    def publish(self, rules, publications, *, present):
        if self.error is not None:
            raise self.error
        for entry in publications:
            (self.mapped.add if present else self.mapped.remove)((entry.host_ip, entry.host_port, entry.port))

    def apply_all(self, wanted):
        self.mapped = {(e.host_ip, e.host_port, e.port) for _, publications in wanted for e in publications}

    def flush_flows(self, ports):
        pass


def publish(publisher, *wishes):
    return publisher.publish(wishes, place=PLACE, default_ip="127.0.0.1", who="box (e1)")


def test_published_and_withdrawn():
    async def main():
        table = Filter()
        publisher = Publisher(table)
        [published] = await publish(publisher, PortWish(protocol="tcp", port=80))
        assert table.mapped == {(LOOPBACK, published.host_port, 80)}
        wish = PortWish(protocol="tcp", port=81, first=published.host_port, last=published.host_port)
        with pytest.raises(InternalError, match=r"endpoint box \(e1\): Bind for 127.0.0.1:\d+ failed: port is already"):
            await publish(publisher, PortWish(protocol="udp", port=9), wish)
        assert len(table.mapped) == 1
        table.error = NotFound("flushed")
        await publisher.withdraw([published], place=PLACE)
        table.error = None
        [again] = await publish(publisher, wish)
        assert again.host_port == published.host_port
        publisher.close()

    asyncio.run(main())


def test_a_running_containers_ports_are_taken_back():
    async def main():
        table = Filter()
        first, second = Publisher(table), Publisher(table)
        [published] = await publish(first, PortWish(protocol="tcp", port=80))
        await second.adopt([published], place=PLACE)  # the port is lost, the mapping is not
        first.close()
        await second.adopt([published], place=PLACE)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", published.host_port))
        second.close()

    asyncio.run(main())


def test_rules_that_were_flushed_are_made_again_with_all_ports():
    async def main():
        table = Filter()
        publisher = Publisher(table)
        [first] = await publish(publisher, PortWish(protocol="tcp", port=80))
        table.mapped.clear()
        await publisher.restore([RULES])
        assert table.mapped == {(LOOPBACK, first.host_port, 80)}
        table.mapped, table.error = set(), NotFound("flushed")
        [second] = await publish(publisher, PortWish(protocol="tcp", port=81))
        assert table.mapped == {(LOOPBACK, first.host_port, 80), (LOOPBACK, second.host_port, 81)}
        publisher.close()

    asyncio.run(main())


def test_nothing_stays_mapped_when_publishing_fails_later(monkeypatch):
    """Found by the checker: the element stayed, and led to whoever got the address next."""

    async def main():
        table = Filter()
        publisher = Publisher(table)

        async def fail(*_):
            raise OSError("no relay")

        monkeypatch.setattr(publisher, "_open_relays", fail)
        with pytest.raises(OSError, match="no relay"):
            await publish(publisher, PortWish(protocol="tcp", port=80))
        assert (table.mapped, publisher.held()) == (set(), frozenset())
        await publisher.restore([RULES])
        assert table.mapped == set()

    asyncio.run(main())


@pytest.mark.parametrize("error", [NotFound("one element is gone"), OSError(5, "busy")])
def test_what_cannot_be_unmapped_goes_with_the_rules(error):
    """One element that somebody deleted kept all others of its container: they go all or none."""

    async def main():
        table = Filter()
        publisher = Publisher(table)
        await publisher.restore([RULES])
        both = await publish(publisher, PortWish(protocol="tcp", port=80), PortWish(protocol="tcp", port=81))
        [other] = await publish(publisher, PortWish(protocol="tcp", port=82))
        table.error = error
        await publisher.withdraw(both, place=PLACE)
        assert table.mapped == {(LOOPBACK, other.host_port, 82)}
        publisher.close()

    asyncio.run(main())
