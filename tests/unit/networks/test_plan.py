"""From NetworkMode and endpoints to a plan."""

import pytest

from tare.base.errors import InvalidArgument, NotFound
from tare.networks import plan as planning
from tare.networks.plan import Mode
from tare.networks.records import NetworkRecord, Pool
from tare.wire.config import ContainerConfig, EndpointIPAM, EndpointSettings, HostConfig

FOUR = Pool(subnet="10.0.0.0/24", gateway="10.0.0.1")
SIX = Pool(subnet="fd00::/64", gateway="fd00::1")
BRIDGE = NetworkRecord(id="ab" + "0" * 62, name="bridge", driver="bridge", created_at=1, pools=(FOUR,))
HOST = NetworkRecord(id="b" * 64, name="host", driver="host", created_at=1)
NONE = NetworkRecord(id="c" * 64, name="none", driver="null", created_at=1)
WEB = NetworkRecord(
    id="ab" + "1" * 62, name="web", driver="bridge", created_at=2, is_subnet_asked=True, pools=(FOUR, SIX)
)
APP = NetworkRecord(id="d" * 64, name="app", driver="bridge", created_at=2, pools=(FOUR,))
ALL = [BRIDGE, HOST, NONE, WEB, APP]


def plan(mode="", endpoints=None, **config):
    return planning.plan(ContainerConfig(**config), HostConfig(NetworkMode=mode), endpoints or {}, networks=ALL)


def test_by_id_then_name_then_prefix():
    assert planning.resolve(WEB.id, ALL) is WEB
    assert planning.resolve("web", ALL) is WEB
    assert planning.resolve("ab1", ALL) is WEB
    with pytest.raises(InvalidArgument, match="network ab is ambiguous"):
        planning.resolve("ab", ALL)
    for name in ("foo", ""):
        with pytest.raises(NotFound, match=f"network {name} not found"):
            planning.resolve(name, ALL)


@pytest.mark.parametrize("mode", ["", "default", "bridge", BRIDGE.id])
def test_the_default_bridge(mode):
    found = plan(mode)
    assert found.mode is Mode.OWN
    [endpoint] = found.endpoints
    assert (endpoint.network, endpoint.interface, endpoint.gateways) == (BRIDGE, "eth0", (4,))


def test_host_none_joined_and_disabled():
    assert plan("host").mode is Mode.HOST
    assert plan("host").endpoints[0].interface == ""
    assert plan("none").mode is Mode.OWN
    assert [e.interface for e in plan("none").endpoints] == [""]
    assert plan("container:web1").joined == "web1"
    assert plan("bridge", NetworkDisabled=True) == planning.NetworkPlan(mode=Mode.OWN)


def test_several_networks_and_who_carries_the_default_route():
    asked = {"web": EndpointSettings(Aliases=["w"]), "app": None}
    found = plan("web", asked)
    assert [(e.network.name, e.interface, e.gateways) for e in found.endpoints] == [
        ("web", "eth0", (6,)),
        ("app", "eth1", (4,)),
    ]
    preferred = plan("web", asked | {"web": EndpointSettings(GwPriority=1)})
    assert [e.gateways for e in preferred.endpoints] == [(4, 6), ()]


def test_addresses_asked_for():
    settings = EndpointSettings(IPAMConfig=EndpointIPAM(IPv4Address="10.0.0.9"), MacAddress="02-42-AA-00-00-01")
    [endpoint] = plan("web", {"web": settings}).endpoints
    assert (str(endpoint.address), endpoint.mac) == ("10.0.0.9", "02:42:aa:00:00:01")
    six = EndpointSettings(IPAMConfig=EndpointIPAM(IPv6Address="fd00::9"))
    assert str(plan("web", {"web": six}).endpoints[0].address6) == "fd00::9"
    assert plan("ns:/run/netns/x").joined == "/run/netns/x"
    assert plan("bridge", MacAddress="02:00:00:00:00:05").endpoints[0].mac == "02:00:00:00:00:05"


@pytest.mark.parametrize(
    ("mode", "endpoints", "config", "message"),
    [
        ("foo", {}, {}, "network foo not found"),
        ("web", {"foo": None}, {}, "network foo not found"),
        ("host", {"none": None}, {}, "Container cannot be connected to network endpoints: host, none"),
        (
            "bridge",
            {"bridge": EndpointSettings(IPAMConfig=EndpointIPAM(IPv4Address="172.17.0.9"))},
            {},
            "user specified IP address is supported on user defined networks only",
        ),
        (
            "host",
            {"host": EndpointSettings(IPAMConfig=EndpointIPAM(IPv4Address="1.2.3.4"))},
            {},
            "user specified IP address is supported on user defined networks only",
        ),
        ("bridge", {"default": EndpointSettings(Aliases=["x"])}, {}, "network-scoped alias is supported only"),
        ("web", {"web": EndpointSettings(IPAMConfig=EndpointIPAM(IPv4Address="x"))}, {}, "invalid IPv4 address: x"),
        (
            "app",
            {"app": EndpointSettings(IPAMConfig=EndpointIPAM(IPv4Address="10.0.0.9"))},
            {},
            "only when connecting to networks with user configured subnets",
        ),
        ("web", {"web": EndpointSettings(IPAMConfig=EndpointIPAM(IPv6Address="x"))}, {}, "invalid IPv6 address: x"),
        ("bridge", {}, {"MacAddress": "foo"}, "foo is not a valid mac address"),
        ("bridge", {}, {"MacAddress": "01:00:00:00:00:00"}, "group address"),
    ],
)
def test_refusals(mode, endpoints, config, message):
    with pytest.raises((InvalidArgument, NotFound), match=message):
        plan(mode, endpoints, **config)
