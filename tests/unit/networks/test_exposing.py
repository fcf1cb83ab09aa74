"""Ports of a container that runs: what stays, what goes, what comes."""

import asyncio
import socket

import pytest
from msgspec.structs import replace

from tare.base.errors import InternalError
from tare.networks import ports
from tare.networks.attachment import Attachment, NetworkOptions, Wish
from tare.networks.exposing import Exposer
from tare.networks.holding import Held
from tare.networks.plan import Mode
from tare.networks.ports import Published, host_ips
from tare.networks.publishing import Publisher
from tare.networks.records import NetworkRecord, Pool
from tare.networks.wiring import Wiring
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig, PortBinding

NETWORK = NetworkRecord(
    id="1" * 64,
    name="n",
    driver="bridge",
    created_at=0,
    bridge="br-n",
    pools=(Pool(subnet="10.9.0.0/24"),),
    options={"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"},
)


class Kernel:
    def __init__(self):
        self.reflected = []

    def reflect(self, outside):
        self.reflected.append(outside)


class Ports:
    """A publisher that remembers; `taken` is refused."""

    def __init__(self):
        self.said, self.taken = [], 0

    async def publish(self, wishes, *, place, default_ip, who, besides=()):
        for wish in wishes:
            if wish.first == self.taken:
                raise InternalError("port is already allocated")
            self.said.append(("+", wish.first))
        return tuple(
            Published(protocol=w.protocol, port=w.port, host_ip=ip, host_port=w.first or 32768)
            for w in wishes
            for ip in host_ips(w, default_ip)
        )

    async def withdraw(self, published, *, place, keeps=()):
        self.said += [("-", entry.host_port) for entry in published]


def config(*numbers):
    return HostConfig(PortBindings={"80/tcp": [PortBinding(HostPort=str(number)) for number in numbers]})


def prepared(*numbers):
    publisher, kernel = Ports(), Kernel()
    exposer = Exposer(publisher, Wiring(kernel, NetworkOptions()), {NETWORK.id: NETWORK})
    wish = Wish(container_id="c", name="box", config=ContainerConfig(), host=config(*numbers))
    endpoint = EndpointSettings(NetworkID=NETWORK.id, IPAddress="10.9.0.2", EndpointID="e")
    held = Held(wish, "box", None, Attachment(mode=Mode.OWN, endpoints={"n": endpoint}), gateways={4: NETWORK.id})
    held.outside = {NETWORK.id: "veth1"}
    return publisher, kernel, exposer, held


def test_only_what_changes_is_touched():
    publisher, kernel, exposer, held = prepared(8080, 8081)

    async def main():
        await exposer.expose(held)
        await exposer.change(held, config(8081, 9090))

    asyncio.run(main())
    assert publisher.said == [("+", 8080), ("+", 8081), ("-", 8080), ("+", 9090)]
    assert [binding.HostPort for binding in held.attachment.ports["80/tcp"]] == ["8081", "9090"]
    assert ports.wishes(held.wish.config, held.wish.host)[1].first == 9090
    assert kernel.reflected == ["veth1"]


def test_a_conflict_changes_nothing():
    publisher, _, exposer, held = prepared(8080)
    publisher.taken = 9090

    async def main():
        await exposer.expose(held)
        with pytest.raises(InternalError):
            await exposer.change(held, config(9090))

    asyncio.run(main())
    assert publisher.said == [("+", 8080), ("-", 8080), ("+", 8080)]
    assert [binding.HostPort for binding in held.attachment.ports["80/tcp"]] == ["8080"]
    assert held.wish.host == config(8080)


ROUTED = replace(
    NETWORK,
    id="2" * 64,
    name="r",
    bridge="br-r",
    pools=(Pool(subnet="10.8.0.0/24"),),
    options={"com.docker.network.bridge.gateway_mode_ipv4": "routed"},
)


class Filter:
    """The packet filter as what it was told."""

    def __init__(self):
        self.said = set()

    def publish(self, rules, publications, *, present):
        for rule in publications:
            (self.said.add if present else self.said.remove)(rule.said)

    def reflect(self, outside):
        pass

    def flush_flows(self, ports, ends):
        pass


def on(network, *numbers):
    table = Filter()
    publisher = Publisher(table)
    networks = {NETWORK.id: NETWORK, ROUTED.id: ROUTED}
    exposer = Exposer(publisher, Wiring(table, NetworkOptions()), networks)
    wish = Wish(container_id="c", name="box", config=ContainerConfig(), host=config(*numbers))
    endpoints = {
        "n": EndpointSettings(NetworkID=NETWORK.id, IPAddress="10.9.0.2", EndpointID="e"),
        "r": EndpointSettings(NetworkID=ROUTED.id, IPAddress="10.8.0.2", EndpointID="f"),
    }
    held = Held(wish, "box", None, Attachment(mode=Mode.OWN, endpoints=endpoints), gateways={4: network.id})
    return table, publisher, exposer, held


def shown(held):
    return [(binding.HostIp, binding.HostPort) for binding in held.attachment.ports.get("80/tcp") or ()]


def test_of_two_bindings_of_a_routed_port_one_is_taken_back():
    """The port stays open as long as one of them is there."""
    table, _, exposer, held = on(ROUTED, 8080, 8081)

    async def main():
        await exposer.expose(held)
        assert (table.said, shown(held)) == ({OPEN}, [("0.0.0.0", ""), ("0.0.0.0", "")])
        await exposer.change(held, config(8081))
        assert (table.said, shown(held)) == ({OPEN}, [("0.0.0.0", "")])
        await exposer.change(held, HostConfig())
        assert (table.said, shown(held)) == (set(), [])

    asyncio.run(main())


OPEN = "ip opened 10.8.0.2 . tcp . 80"


def test_the_number_that_was_asked_for_comes_back_with_a_network_that_translates():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    table, publisher, exposer, held = on(ROUTED, number)

    async def move(network):
        await exposer.withdraw(held, keep=True)
        held.gateways = {4: network.id} if network else {}
        await exposer.expose(held)

    async def main():
        await exposer.expose(held)
        await move(None)
        assert (table.said, shown(held)) == (set(), [])
        await move(NETWORK)
        assert table.said == {f"ip published_on 127.0.0.1 . tcp . {number} : 10.9.0.2 . 80"}
        assert shown(held) == [("127.0.0.1", str(number))]
        await move(ROUTED)
        assert (table.said, shown(held), publisher.held()) == ({OPEN}, [("0.0.0.0", "")], frozenset())
        publisher.close()

    asyncio.run(main())
