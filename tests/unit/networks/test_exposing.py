"""Ports of a container that runs: what stays, what goes, what comes."""

import asyncio

import pytest

from tare.base.errors import InternalError
from tare.networks import ports
from tare.networks.attachment import Attachment, NetworkOptions, Wish
from tare.networks.exposing import Exposer
from tare.networks.holding import Held
from tare.networks.plan import Mode
from tare.networks.ports import Published, host_ips
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

    async def publish(self, wishes, *, place, default_ip, who):
        for wish in wishes:
            if wish.first == self.taken:
                raise InternalError("port is already allocated")
            self.said.append(("+", wish.first))
        return tuple(
            Published(protocol=w.protocol, port=w.port, host_ip=ip, host_port=w.first or 32768)
            for w in wishes
            for ip in host_ips(w, default_ip)
        )

    async def withdraw(self, published, *, place):
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
