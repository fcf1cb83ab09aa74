"""Which network has the default routes, and which of them are turned."""

import asyncio
import ipaddress
from types import SimpleNamespace

import pytest

from tare.drivers.network.netlink import Route
from tare.networks.attachment import Attachment, Wish
from tare.networks.holding import Held
from tare.networks.plan import Mode
from tare.networks.records import NetworkRecord, Pool
from tare.networks.routing import Routes
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig

ONE, TWO = (
    NetworkRecord(
        id=str(n) * 64, name=name, driver="bridge", created_at=0, bridge=f"br-{name}",
        pools=(Pool(subnet=f"10.{n}.0.0/24", gateway=f"10.{n}.0.1"),),
    )
    for n, name in ((1, "one"), (2, "two"))
)  # fmt: skip
EVERYWHERE = ipaddress.ip_network("0.0.0.0/0")


class Kernel:
    def __init__(self):
        self.said = []

    def set_gateway(self, namespace, mac, gateway, *, version, addresses, is_direct, besides):
        self.said.append((mac, str(gateway), version, sorted(addresses), is_direct))


def endpoint(network, number):
    return EndpointSettings(
        NetworkID=network.id, IPAddress=f"10.{network.id[0]}.0.{number}", MacAddress=f"02:42:00:00:00:0{number}"
    )


def prepared(*gateways):
    """A container on both networks whose default routes lead to these gateways."""
    kernel = Kernel()
    routes = Routes(kernel, {ONE.id: ONE, TWO.id: TWO})
    endpoints = {"one": endpoint(ONE, 2), "two": endpoint(TWO, 3)}
    wish = Wish(container_id="c", name="box", config=ContainerConfig(), host=HostConfig())
    held = Held(wish, "box", None, Attachment(mode=Mode.OWN, endpoints=endpoints), gateways={4: TWO.id})
    there = [Route(destination=EVERYWHERE, gateway=ipaddress.ip_address(g), index=1) for g in gateways]
    namespace = SimpleNamespace(netlink=SimpleNamespace(routes=lambda: there))
    return kernel, routes, held, namespace


def test_one_network_is_chosen_for_each_family():
    _, routes, held, _ = prepared()
    assert routes.gateways_of(held.attachment.endpoints) == {4: ONE.id}
    assert routes.gateways_of({"two": endpoint(TWO, 3)}) == {4: TWO.id}
    assert routes.gateways_of({"gone": EndpointSettings(NetworkID="9" * 64)}) == {}


def test_a_route_is_turned_to_the_network_that_was_chosen():
    kernel, routes, held, namespace = prepared()
    asyncio.run(routes.turn(held, namespace, 4))
    asyncio.run(routes.turn(held, namespace, 6))
    assert kernel.said == [("02:42:00:00:00:03", "10.2.0.1", 4, ["10.2.0.3"], False)]


@pytest.mark.parametrize(
    ("gateways", "turns"),
    [
        (["10.2.0.1"], False),  # as it should be
        ([], True),  # taken away, and not set again
        (["10.1.0.1"], True),  # still the other network's
        (["10.1.0.9"], False),  # made by the container for itself
    ],
)
def test_what_a_killed_engine_left_half_turned_is_turned(gateways, turns):
    kernel, routes, held, namespace = prepared(*gateways)
    asyncio.run(routes.check(held, namespace))
    assert bool(kernel.said) is turns
