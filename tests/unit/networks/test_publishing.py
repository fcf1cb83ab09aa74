"""Host's side and packet filter: both or neither."""

import asyncio
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from msgspec.structs import replace

from tare.base.errors import InternalError, NotFound
from tare.drivers.network.nft import BridgeRules
from tare.networks.ports import PortWish, Published
from tare.networks.publishing import Place, Publisher, publications, sides

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

    def flush_flows(self, ports, ends):
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


V4, V6 = IPv4Address("10.0.0.2"), IPv6Address("fd00::2")


def dual(mode="nat", mode6="nat", *, direct=False, has6=True):
    rules = replace(RULES, subnet6=IPv6Network("fd00::/64"), mode=mode, mode6=mode6, direct=direct)
    return Place({4: (rules, V4), 6: (rules, V6)} if has6 else {4: (rules, V4)})


def sides_of(place, *, host_ip="", default="0.0.0.0", protocol="tcp"):
    wish = PortWish(protocol=protocol, port=80, host_ip=ip_address(host_ip) if host_ip else None, first=8080, last=8080)
    opened, ips = sides(wish, default, place)
    assert {(entry.port, entry.host_port) for entry in opened} <= {(80, 0)}
    return [str(entry.host_ip) for entry in opened], [str(ip) for ip in ips]


def test_whether_the_host_or_the_container_is_reached():
    """Source: moby's TestAddPortMappings."""
    assert sides_of(dual()) == ([], ["0.0.0.0", "::"])
    assert sides_of(dual(mode6="routed")) == (["::"], ["0.0.0.0"])
    assert sides_of(dual("routed")) == (["0.0.0.0"], ["::"])
    assert sides_of(dual("routed", "routed")) == (["0.0.0.0", "::"], [])
    assert sides_of(dual("routed", "routed"), host_ip="127.0.0.1") == (["0.0.0.0"], [])
    assert sides_of(dual("routed", "routed"), host_ip="fd09::1") == (["::"], [])
    assert sides_of(dual("routed"), default="127.0.0.1") == (["0.0.0.0"], [])
    assert sides_of(dual(mode6="routed"), default="127.0.0.1") == ([], ["127.0.0.1"])
    assert sides_of(dual("routed", has6=False)) == (["0.0.0.0"], [])  # no relay leads to an address that is routed
    assert sides_of(dual(has6=False)) == ([], ["0.0.0.0", "::"])
    assert sides_of(dual(has6=False), protocol="sctp") == ([], ["0.0.0.0"])


def said(place, *published):
    return {rule.said for _, rules in publications(published, place) for rule in rules}


def test_what_the_packet_filter_is_told():
    here = Published(protocol="tcp", port=80, host_ip=LOOPBACK, host_port=8080)
    there = Published(protocol="tcp", port=80, host_ip=IPv6Address("::"), host_port=0)
    mapped = "ip published_on 127.0.0.1 . tcp . 8080 : 10.0.0.2 . 80"
    assert said(dual(mode6="routed"), here, there) == {mapped, "ip6 opened fd00::2 . tcp . 80"}
    assert said(dual(), here) == said(dual("nat-unprotected", direct=True), here) == {mapped}
    assert said(dual(direct=True), here) == {mapped, "ip opened 10.0.0.2 . tcp . 80"}


@pytest.mark.parametrize(
    ("how", "filtered"),
    [({}, {"ip opened 10.0.0.2 . tcp . 80"}), ({"is_relayed": True}, {"ip opened 10.0.0.2 . tcp . 80"}),
     ({"is_filtered": False}, set())],
)  # fmt: skip
def test_a_routed_port_is_open_and_nothing_is_held(how, filtered):
    """Whatever is published at the host is carried by; without rules of ours nothing need be opened."""

    class Told:
        def __init__(self):
            self.rules, self.flows = set(), []

        def publish(self, rules, publications, *, present):
            for rule in publications:
                (self.rules.add if present else self.rules.remove)(rule.said)

        def flush_flows(self, ports, ends):
            self.flows.append((set(ports), set(ends)))

    async def main():
        table, place = Told(), dual("routed", has6=False)
        publisher = Publisher(table, **how)
        wishes = [
            PortWish(protocol="tcp", port=80, first=8080, last=8080),
            PortWish(protocol="tcp", port=80, host_ip=IPv6Address("::1")),
        ]
        published = await publisher.publish(wishes, place=place, default_ip="", who="box")
        assert published == (Published(protocol="tcp", port=80, host_ip=IPv4Address("0.0.0.0"), host_port=0),)
        assert (table.rules, publisher.held()) == (filtered, frozenset())
        await publisher.adopt(published, place=place)
        assert table.rules == filtered
        await publisher.withdraw(published, place=place, keeps=published)
        assert table.rules == filtered
        await publisher.withdraw(published, place=place)
        assert table.rules == set()
        udp = await publisher.publish([PortWish(protocol="udp", port=53)], place=place, default_ip="", who="box")
        await publisher.withdraw(udp, place=place)
        assert table.flows == ([(set(), {(V4, 53)})] * 2 if filtered else [])
        publisher.close()

    asyncio.run(main())


def test_what_is_published_already_outlives_a_failure(monkeypatch):
    """Two bindings open the same port: taking the second one back after an error leaves it open."""

    async def main():
        table, place = Opened(), dual("routed", has6=False)
        publisher = Publisher(table)
        wish = PortWish(protocol="tcp", port=80)
        first = await publisher.publish([wish], place=place, default_ip="", who="box")

        async def fail(*_):
            raise OSError("no relay")

        monkeypatch.setattr(publisher, "_open_relays", fail)
        with pytest.raises(OSError, match="no relay"):
            await publisher.publish([wish], place=place, default_ip="", who="box", besides=first)
        assert table.rules == {"ip opened 10.0.0.2 . tcp . 80"}

    asyncio.run(main())


class Opened(Filter):
    """The packet filter as what it was told."""

    rules = frozenset()

    def publish(self, rules, publications, *, present):
        told = {rule.said for rule in publications}
        self.rules = self.rules | told if present else self.rules - told
