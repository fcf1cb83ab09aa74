"""From an endpoint to the interface it is given."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tare.base.errors import InvalidArgument
from tare.networks import interfaces, plugging
from tare.networks.plan import EndpointPlan
from tare.networks.records import NetworkRecord, Pool
from tare.wire.config import EndpointIPAM, EndpointSettings

POOLS = (Pool(subnet="10.9.0.0/24", gateway="10.9.0.1"), Pool(subnet="fd09::/64", gateway="fd09::1"))


def network(driver="bridge", **more):
    return NetworkRecord(id="1" * 64, name="n", driver=driver, created_at=0, pools=POOLS, **more)


def made(record, gateways=(4, 6)):
    fields = plugging.addresses(record, IPv4Address("10.9.0.2"), IPv6Address("fd09::2"))
    settings = EndpointSettings(MacAddress="02:42:00:00:00:01", **fields)
    return settings, plugging.plug(record, settings, gateways=gateways, mtu=1400, reflects=True)


def test_both_families_on_a_bridge():
    settings, plug = made(network(bridge="br-n"))
    assert (settings.Gateway, settings.IPv6Gateway, settings.GlobalIPv6PrefixLen) == ("10.9.0.1", "fd09::1", 64)
    assert [str(address) for address in plug.addresses] == ["10.9.0.2/24", "fd09::2/64"]
    assert [str(gateway) for gateway in plug.gateways] == ["10.9.0.1", "fd09::1"]
    assert (plug.bridge, plug.mtu, plug.reflects, plug.child) == ("br-n", 1400, True, None)


def test_an_internal_network_has_no_gateway():
    settings, plug = made(network(bridge="br-n", internal=True), gateways=())
    assert (settings.Gateway, settings.IPv6Gateway, plug.gateways) == ("", "", ())


def test_layer_three_routes_by_the_link():
    settings, plug = made(network("ipvlan", parent="eth0", options={"ipvlan_mode": "l3"}))
    assert (settings.Gateway, plug.gateways, plug.direct) == ("", (), (4, 6))
    assert (plug.child.kind, plug.child.parent, plug.mtu, plug.reflects) == ("ipvlan", "eth0", 0, False)


def test_link_local_addresses_come_after_the_networks_own():
    settings = EndpointSettings(
        IPAddress="10.9.0.2",
        IPPrefixLen=24,
        MacAddress="02:42:00:00:00:01",
        IPAMConfig=EndpointIPAM(LinkLocalIPs=["169.254.1.2", "fe80::7"]),
    )
    plug = plugging.plug(network(bridge="b"), settings, gateways=(4,), mtu=1500, reflects=False)
    assert [str(address) for address in plug.addresses] == ["10.9.0.2/24", "169.254.1.2/16", "fe80::7/64"]
    with pytest.raises(InvalidArgument, match="nonsense"):
        plugging.link_local(EndpointSettings(IPAMConfig=EndpointIPAM(LinkLocalIPs=["nonsense"])))


def test_names_and_settings_of_the_interface_that_are_asked_for():
    options = {interfaces.NAME: "web0", interfaces.SYSCTLS: "net.ipv4.conf.IFNAME.forwarding=1"}
    settings = EndpointSettings(IPAddress="10.9.0.2", IPPrefixLen=24, DriverOpts=options)
    plug = plugging.plug(network(bridge="b"), settings, gateways=(4,), mtu=1500, reflects=False, interface="eth0")
    assert (plug.interface, plug.is_named) == ("web0", True)
    assert plug.sysctls == (("net/ipv4/conf/IFNAME/forwarding", "1"),)


def test_the_address_of_a_link():
    def given(driver, mac=None):
        return EndpointPlan(network=network(driver), settings=EndpointSettings(), interface="eth0", mac=mac)

    assert plugging.mac(given("bridge"), IPv4Address("10.9.0.2")) == "02:42:0a:09:00:02"
    assert plugging.mac(given("bridge", "02:00:00:00:00:01"), IPv4Address("10.9.0.2")) == "02:00:00:00:00:01"
    assert plugging.mac(given("macvlan"), None).startswith("02:42:")
    assert plugging.mac(given("ipvlan"), IPv4Address("10.9.0.2")) == ""
