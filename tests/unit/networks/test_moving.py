"""Networks that travel: what is kept of them and what is given up."""

from __future__ import annotations

import ipaddress

import pytest

from tare.networks.moving import definition_of, fitted, taken, without_subnets
from tare.networks.records import NetworkRecord, Pool
from tare.wire.config import EndpointIPAM, EndpointSettings

NETWORK = NetworkRecord(
    id="a" * 64,
    name="front",
    driver="bridge",
    created_at=1,
    pools=(
        Pool(subnet="10.7.0.0/24", gateway="10.7.0.1", ip_range="10.7.0.128/25", auxiliary={"printer": "10.7.0.9"}),
    ),
    internal=True,
    options={"x": "y"},
    labels={"l": "1"},
)


def test_the_definition_says_everything_but_ids() -> None:
    body = definition_of(NETWORK)
    assert body.IPAM is not None
    (config,) = body.IPAM.Config
    assert (config.Subnet, config.Gateway, config.IPRange) == ("10.7.0.0/24", "10.7.0.1", "10.7.0.128/25")
    assert config.AuxiliaryAddresses == {"printer": "10.7.0.9"}
    assert (body.Name, body.Internal, body.Options, body.Labels) == ("front", True, {"x": "y"}, {"l": "1"})


@pytest.mark.parametrize(
    ("in_use", "expected"),
    [
        ([], []),
        (["10.7.1.0/24"], []),
        (["10.0.0.0/8"], ["10.7.0.0/24"]),
        (["10.7.0.5/32"], ["10.7.0.0/24"]),
        (["fd00::/8"], []),
    ],
)
def test_which_subnets_are_taken(in_use: list[str], expected: list[str]) -> None:
    assert taken(definition_of(NETWORK), [ipaddress.ip_network(text) for text in in_use]) == expected


def test_without_subnets_the_rest_stays() -> None:
    body = without_subnets(definition_of(NETWORK))
    assert body.IPAM is not None
    assert body.IPAM.Config == []
    assert body.Labels == {"l": "1"}


def test_an_address_stays_where_it_fits() -> None:
    fits = EndpointSettings(IPAMConfig=EndpointIPAM(IPv4Address="10.7.0.7"), Aliases=["www"])
    assert fitted(fits, NETWORK) == (fits, [])
    strange = EndpointSettings(IPAMConfig=EndpointIPAM(IPv4Address="10.8.0.7", IPv6Address="fd00::7"), Aliases=["www"])
    assert fitted(strange, NETWORK) == (EndpointSettings(Aliases=["www"]), ["10.8.0.7", "fd00::7"])
    half = EndpointSettings(IPAMConfig=EndpointIPAM(IPv4Address="10.7.0.7", IPv6Address="nonsense"))
    settings, lost = fitted(half, NETWORK)
    assert settings.IPAMConfig == EndpointIPAM(IPv4Address="10.7.0.7")
    assert lost == ["nonsense"]
