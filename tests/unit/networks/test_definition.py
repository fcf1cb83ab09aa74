"""From a request to make a network to its record."""

from ipaddress import IPv4Network

import pytest

from tare.base.errors import Conflict, Forbidden, InvalidArgument, NotFound
from tare.networks import gateways
from tare.networks.definition import define
from tare.networks.records import NetworkRecord, Pool
from tare.wire.networks import IPAM, ConfigReference, IPAMConfig, NetworkCreate

WEB = NetworkRecord(
    id="a" * 64, name="web", driver="bridge", created_at=1, bridge="br-web", pools=(Pool(subnet="10.5.0.0/16"),)
)


def make(name="x", *, subnet="", in_use=(), links=(), ip_range="", gateway="", aux=None, **body):
    if subnet or ip_range or gateway or aux:
        config = IPAMConfig(Subnet=subnet, IPRange=ip_range, Gateway=gateway, AuxiliaryAddresses=aux or {})
        body["IPAM"] = IPAM(Config=[config])
    return define(NetworkCreate(Name=name, **body), known=[WEB], in_use=list(in_use), links=links)


def test_a_free_subnet_is_chosen_and_the_first_address_is_the_gateway():
    record = make(in_use=[IPv4Network("172.17.0.0/16"), IPv4Network("172.18.5.0/24")])
    assert record.pools == (Pool(subnet="172.19.0.0/16", gateway="172.19.0.1"),)
    assert record.bridge == f"br-{record.id[:12]}"
    assert (record.driver, record.is_subnet_asked, record.owns_bridge, record.has_names) == (
        "bridge",
        False,
        True,
        True,
    )


def test_what_was_asked_for_is_kept():
    record = make(
        subnet="10.6.0.0/24",
        ip_range="10.6.0.128/25",
        aux={"a": "10.6.0.1"},
        Options={"com.docker.network.bridge.name": "mine", "com.docker.network.bridge.enable_icc": "false"},
        Labels={"k": "v"},
        Internal=True,
        links=["mine"],
    )
    [pool] = record.pools
    assert (pool.gateway, pool.ip_range, pool.auxiliary) == ("10.6.0.2", "10.6.0.128/25", {"a": "10.6.0.1"})
    assert (record.bridge, record.owns_bridge, record.icc, record.masquerade) == ("mine", False, False, True)
    assert (record.internal, record.labels, record.is_subnet_asked) == (True, {"k": "v"}, True)


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ({"name": ""}, InvalidArgument, "invalid name: "),
        ({"name": "bridge"}, Forbidden, "operation is not permitted on predefined bridge network"),
        ({"name": "web"}, Conflict, "network with name web already exists"),
        ({"Driver": "weave"}, NotFound, 'plugin "weave" not found'),
        ({"Driver": "overlay"}, Forbidden, "This node is not a swarm manager"),
        ({"Scope": "swarm"}, Forbidden, "cannot create a swarm scoped network when swarm is not active"),
        ({"Driver": "host"}, Forbidden, 'only one instance of "host" network is allowed'),
        ({"IPAM": IPAM(Driver="x")}, NotFound, "ipam driver x"),
        ({"EnableIPv4": False}, InvalidArgument, "IPv4 or IPv6 must be enabled"),
        ({"ConfigOnly": True, "Internal": True}, Forbidden, "configuration network can only contain"),
        ({"ConfigFrom": ConfigReference(Network="web")}, NotFound, 'configuration network "web" does not exist'),
        ({"Driver": "macvlan", "Options": {"macvlan_mode": "x"}}, InvalidArgument, "requested macvlan mode 'x'"),
        ({"subnet": "10.5.7.0/24"}, Forbidden, "Pool overlaps with other one on this address space"),
        ({"subnet": "10.6.0.0/33"}, InvalidArgument, "invalid CIDR address: 10.6.0.0/33"),
        ({"subnet": "10.6.0.1/24"}, InvalidArgument, "it should be 10.6.0.0/24"),
        ({"EnableIPv6": True, "subnet": "fd00::1/64"}, InvalidArgument, "it should be fd00::/64"),
        ({"EnableIPv6": True, "subnet": "fd00::/64", "gateway": "fd01::1"}, InvalidArgument, "out of range"),
        ({"subnet": "10.6.0.0/24", "gateway": "10.7.0.1"}, InvalidArgument, "Requested address is out of range"),
        ({"subnet": "10.6.0.0/24", "ip_range": "10.7.0.0/25"}, InvalidArgument, "it is not inside subnet"),
        ({"subnet": "10.6.0.0/24", "gateway": "10.6.0.9", "aux": {"a": "10.6.0.9"}}, Forbidden, "Address already"),
        ({"gateway": "10.6.0.9"}, InvalidArgument, "a subnet must be given"),
        ({"Options": {"com.docker.network.driver.mtu": "x"}}, InvalidArgument, "failed to parse"),
        ({"Options": {"com.docker.network.driver.mtu": "20"}}, InvalidArgument, "invalid MTU number"),
        ({"Options": {"com.docker.network.bridge.enable_icc": "maybe"}}, InvalidArgument, "failed to parse"),
        ({"Options": {"com.docker.network.bridge.host_binding_ipv4": "x"}}, InvalidArgument, "failed to parse"),
        ({"Options": {"com.docker.network.bridge.name": "br-web"}}, Forbidden, "networks have same bridge name"),
        ({"Options": {"com.docker.network.bridge.name": 'a"b'}}, InvalidArgument, "invalid bridge name"),
    ],
)
def test_refusals(asked, error, text):
    with pytest.raises(error, match=text.replace("(", "\\(")):
        make(**asked)


@pytest.mark.parametrize(
    ("asked", "gateway"),
    [
        ({"subnet": "10.6.0.0/31"}, "10.6.0.0"),
        ({"subnet": "10.6.0.0/31", "gateway": "10.6.0.1"}, "10.6.0.1"),
        ({"subnet": "10.6.0.7/32"}, "10.6.0.7"),
        ({"subnet": "10.6.0.0/31", "Driver": "macvlan"}, ""),
        ({"subnet": "10.6.0.0/24", "Driver": "macvlan", "Options": {"parent": "eth0"}}, "10.6.0.1"),
        ({"subnet": "10.6.0.0/24", "Driver": "macvlan", "gateway": "10.6.0.9"}, "10.6.0.9"),
        ({"subnet": "10.6.0.0/31", "Internal": True, "Options": {gateways.INHIBIT: "true"}}, ""),
        ({"subnet": "10.6.0.0/24", "Options": {gateways.INHIBIT: "true"}}, "10.6.0.1"),
        ({"subnet": "10.6.0.0/31", "Internal": True, "Options": {gateways.MODES[4]: "isolated"}}, ""),
        ({"Internal": True, "Options": {gateways.MODES[4]: "isolated"}}, ""),
    ],
)
def test_links_between_two_and_networks_without_a_gateway(asked, gateway):
    [pool] = make(**asked).pools
    assert pool.gateway == gateway


def test_two_subnets_are_one_too_many():
    configs = [IPAMConfig(Subnet="10.6.0.0/24"), IPAMConfig(Subnet="10.7.0.0/24")]
    with pytest.raises(InvalidArgument, match="multiple subnets"):
        make(IPAM=IPAM(Config=configs))


def test_two_families_and_what_is_said_of_one_that_is_not_wanted():
    both = [IPAMConfig(Subnet="10.6.0.0/24"), IPAMConfig(Subnet="fd06::/64", IPRange="fd06::8000:0:0:0/65")]
    found = make(EnableIPv6=True, IPAM=IPAM(Config=both))
    assert [(pool.subnet, pool.gateway) for pool in found.pools] == [
        ("10.6.0.0/24", "10.6.0.1"),
        ("fd06::/64", "fd06::1"),
    ]
    assert [pool.subnet for pool in make(IPAM=IPAM(Config=both)).pools] == ["10.6.0.0/24"]
    only = make(EnableIPv4=False, EnableIPv6=True)
    assert [pool.subnet.startswith("fd") for pool in only.pools] == [True]
    assert only.subnet is None


def test_settings_of_another_network():
    template = make(name="settings", ConfigOnly=True, IPAM=IPAM(Config=[IPAMConfig(Subnet="10.6.0.0/24")]))
    assert (template.driver, template.pools[0].gateway, template.bridge) == ("null", "", "")
    body = NetworkCreate(Name="real", ConfigFrom=ConfigReference(Network="settings"))
    found = define(body, known=[template], in_use=[])
    assert (found.pools[0].subnet, found.pools[0].gateway, found.config_from) == ("10.6.0.0/24", "10.6.0.1", "settings")
    own = NetworkCreate(Name="real", Options={"a": "b"}, ConfigFrom=ConfigReference(Network="settings"))
    with pytest.raises(Forbidden, match="user specified configurations are not supported"):
        define(own, known=[template], in_use=[])


MODE = "com.docker.network.bridge.gateway_mode_ipv4"
V4, V6 = "com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"
DEFAULTS = {"bridge": {MODE: "routed", V6: "true"}, "macvlan": {"macvlan_mode": "private"}}


def made_with(defaults=DEFAULTS, known=(), **body):
    record = define(NetworkCreate(Name="x", **body), known=known, in_use=[], default_options=defaults)
    return record.options, record.ipv4, record.ipv6


def test_the_engines_options_are_for_networks_that_say_nothing():
    assert made_with() == ({MODE: "routed", V6: "true"}, True, True)
    assert made_with(Options={MODE: "nat", "a": "b"}, EnableIPv6=False) == ({MODE: "nat", "a": "b"}, True, False)
    assert made_with(Driver="macvlan")[0] == {"macvlan_mode": "private"}
    assert made_with({}, Options={V4: "false", V6: "1"}) == ({V4: "false", V6: "1"}, False, True)
    assert made_with({}, Options={V6: "1"}, EnableIPv6=False) == ({}, True, False)
    with pytest.raises(InvalidArgument, match=f'driver-opt "{V6}" is not a valid bool'):
        made_with({}, Options={V6: "maybe"})
    with pytest.raises(InvalidArgument, match="unknown gateway mode sideways"):
        made_with({"bridge": {MODE: "sideways"}})


def test_what_comes_from_another_network_is_that_networks():
    source = define(NetworkCreate(Name="conf", ConfigOnly=True), known=[], in_use=[])
    assert made_with(known=[source], ConfigFrom=ConfigReference(Network="conf")) == ({}, True, False)
