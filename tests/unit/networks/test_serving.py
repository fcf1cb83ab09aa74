"""Who gets names, and whom the server asks what it does not know."""

import asyncio
import socket

import pytest

from tare.networks import texts
from tare.networks.attachment import Attachment, Wish
from tare.networks.directory import Directory
from tare.networks.holding import Held
from tare.networks.plan import Mode
from tare.networks.records import NetworkRecord
from tare.networks.serving import Names
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig

DEFAULT, OWN = (
    NetworkRecord(id=str(n) * 64, name=name, driver="bridge", created_at=0, bridge=f"br-{n}")
    for n, name in ((1, "bridge"), (2, "own"))
)


class Kernel:
    def name_sockets(self, namespace, *, is_new):
        assert (namespace, is_new) == ("ns", True)
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
        for each in (udp, tcp):
            each.setblocking(False)
            each.bind(("127.0.0.1", 0))
        tcp.listen(1)
        return udp, tcp


def names(*dns):
    return Names(Kernel(), Directory(lambda _: []), {DEFAULT.id: DEFAULT, OWN.id: OWN}, dns=dns)


def held(*, gateways, dns=()):
    wish = Wish(container_id="c", name="box", config=ContainerConfig(), host=HostConfig(Dns=list(dns)))
    return Held(wish, "box", None, Attachment(mode=Mode.OWN), gateways=gateways)


def test_networks_that_users_make_have_names():
    assert names().are_wanted({"own": EndpointSettings(NetworkID=OWN.id)})
    assert not names().are_wanted({"bridge": EndpointSettings(NetworkID=DEFAULT.id)})
    assert not names().are_wanted({"gone": EndpointSettings(NetworkID="9" * 64)})


@pytest.mark.parametrize(
    ("gateways", "asked", "engine", "servers"),
    [
        ({}, ["10.1.1.1"], ["10.2.2.2"], ()),
        ({4: OWN.id}, ["10.1.1.1"], ["10.2.2.2"], ("10.1.1.1",)),
        ({4: OWN.id}, [], ["10.2.2.2"], ("10.2.2.2",)),
        ({4: OWN.id}, [], [], ("10.3.3.3",)),
    ],
)
def test_whom_to_ask(gateways, asked, engine, servers, monkeypatch):
    monkeypatch.setattr(texts, "host_servers", lambda: ("10.3.3.3",))
    assert tuple(names(*engine).servers_for(held(gateways=gateways, dns=asked))) == servers


def test_a_server_is_open_until_the_container_lets_go_of_it():
    async def main():
        container = held(gateways={})
        await names().open(container, "ns", is_new=True)
        assert container.names is not None
        container.names.close()

    asyncio.run(main())
