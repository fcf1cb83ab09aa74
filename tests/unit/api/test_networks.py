"""Handlers on a service without a kernel."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from tare.api import networks as api
from tare.base.errors import InvalidArgument, NotFound
from tare.networks import plan as planning
from tare.networks.records import NetworkRecord, Pool
from tare.networks.service import Member
from tare.web.message import Query, Request
from tare.wire.config import EndpointSettings

BRIDGE = NetworkRecord(
    id="b" * 64,
    name="bridge",
    driver="bridge",
    created_at=1,
    pools=(Pool(subnet="172.17.0.0/16", gateway="172.17.0.1"),),
    options={"o": "1"},
)
WEB = NetworkRecord(id="a" * 64, name="web", driver="bridge", created_at=2, labels={"k": "v"})
ENDPOINT = EndpointSettings(NetworkID=BRIDGE.id, EndpointID="e", MacAddress="m", IPAddress="172.17.0.2", IPPrefixLen=16)


class Known:
    """The looking half of the service over fixed records."""

    def list(self):
        return [BRIDGE, WEB]

    def inspect(self, name):
        return planning.resolve(name, self.list())

    def members(self, network_id):
        return [Member(container_id="c1", container_name="box", settings=ENDPOINT)] if network_id == BRIDGE.id else []


def call(handler, query="", **params):
    request = Request(method="GET", path="/", query=Query(query), headers={}, body=None, params=params)
    answer = asyncio.run(handler(SimpleNamespace(networks=Known()), request))
    return json.loads(answer.body)


def names(filters):
    return [network["Name"] for network in call(api.list_networks, "filters=" + json.dumps(filters))]


def test_inspect_has_the_containers_and_the_list_has_not():
    found = call(api.inspect_network, id="bridge")
    assert found["Containers"] == {
        "c1": {"Name": "box", "EndpointID": "e", "MacAddress": "m", "IPv4Address": "172.17.0.2/16", "IPv6Address": ""}
    }
    assert found["IPAM"]["Config"] == [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]
    assert found["Created"].startswith("1970-01-01T00:00:00")
    assert [network["Containers"] for network in call(api.list_networks)] == [{}, {}]
    with pytest.raises(NotFound, match="network foo not found"):
        call(api.inspect_network, id="foo")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["bridge", "web"]),
        ({"name": ["rid"]}, ["bridge"]),
        ({"name": {"web": True, "bridge": True}}, ["bridge", "web"]),
        ({"id": ["aaa"]}, ["web"]),
        ({"driver": ["bridge"], "type": ["custom"]}, ["web"]),
        ({"type": ["builtin"]}, ["bridge"]),
        ({"label": ["k"]}, ["web"]),
        ({"label": ["k=v", "other"]}, []),
        ({"label!": ["k"]}, ["bridge"]),
        ({"scope": ["swarm"]}, []),
        ({"dangling": ["true"]}, ["web"]),
        ({"dangling": ["0"]}, ["bridge"]),
    ],
)
def test_filters(filters, expected):
    assert names(filters) == expected


@pytest.mark.parametrize("filters", [{"foo": ["x"]}, {"type": ["x"]}, {"dangling": ["x"]}])
def test_bad_filters(filters):
    with pytest.raises(InvalidArgument):
        names(filters)
