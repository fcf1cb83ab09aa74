"""Choosing subnets and addresses."""

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest

from tare.base.errors import Conflict, Forbidden, InvalidArgument, NotFound
from tare.networks import ipam

SUBNET = IPv4Network("10.0.0.0/29")


def test_the_first_pool_that_overlaps_nothing():
    assert ipam.choose_subnet([]) == IPv4Network("172.17.0.0/16")
    busy = [IPv4Network("172.17.5.0/24"), IPv6Network("fd00::/64"), IPv4Network("172.18.0.0/15")]
    assert ipam.choose_subnet(busy) == IPv4Network("172.20.0.0/16")
    assert ipam.choose_subnet([IPv4Network("172.16.0.0/12")]) == IPv4Network("192.168.0.0/20")
    with pytest.raises(NotFound, match="could not find an available, non-overlapping IPv4 address pool"):
        ipam.choose_subnet([IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16")])


def test_a_subnet_asked_for():
    ipam.check_subnet(SUBNET, [IPv4Network("10.0.1.0/24")])
    with pytest.raises(Conflict, match="Pool overlaps with other one on this address space"):
        ipam.check_subnet(SUBNET, [IPv4Network("10.0.0.0/8")])


def test_addresses_are_given_lowest_first_until_there_are_none():
    taken = {ipam.default_gateway(SUBNET)}
    for last in range(2, 7):
        address = ipam.allocate(SUBNET, taken=taken)
        assert address == IPv4Address(f"10.0.0.{last}")
        taken.add(address)
    with pytest.raises(Conflict, match="no available IPv4 addresses on this network's address pools: web"):
        ipam.allocate(SUBNET, taken=taken, network="web")
    taken.remove(IPv4Address("10.0.0.3"))
    assert ipam.allocate(SUBNET, taken=taken) == IPv4Address("10.0.0.3")


def test_an_address_asked_for():
    assert ipam.allocate(SUBNET, taken=(), wanted=IPv4Address("10.0.0.5")) == IPv4Address("10.0.0.5")
    with pytest.raises(Forbidden, match="Address already in use"):
        ipam.allocate(SUBNET, taken={IPv4Address("10.0.0.5")}, wanted=IPv4Address("10.0.0.5"))
    with pytest.raises(Forbidden, match="Address already in use"):
        ipam.allocate(SUBNET, taken=(), wanted=IPv4Address("10.0.0.7"))
    with pytest.raises(InvalidArgument, match=r"no configured subnet contains IP address 10\.9\.0\.1"):
        ipam.allocate(SUBNET, taken=(), wanted=IPv4Address("10.9.0.1"))


def test_a_range_bounds_the_choice():
    upper = IPv4Network("10.0.0.4/30")
    assert ipam.allocate(SUBNET, taken=(), ip_range=upper) == IPv4Address("10.0.0.4")


@pytest.mark.parametrize("text", ["x", "172.30.0.1", "172.30.0.0/16", "172.30.255.255/16", "10.0.0.1/31", "fd00::1/64"])
def test_bad_bips(text):
    with pytest.raises(InvalidArgument):
        ipam.parse_bip(text)


def test_a_good_bip():
    assert ipam.parse_bip("172.30.0.1/16").network == IPv4Network("172.30.0.0/16")


def test_pools_as_the_daemon_is_told_them():
    assert ipam.parse_pool("base=10.0.0.0/8,size=24") == (IPv4Network("10.0.0.0/8"), 24)
    assert ipam.parse_pool("size=80,base=fd00::/64")[1] == 80
    for text in ("", "10.0.0.0/8", "base=10.0.0.0,size=24", "base=10.0.0.0/24,size=16", "base=x,size=y"):
        with pytest.raises(InvalidArgument, match="invalid default address pool"):
            ipam.parse_pool(text)


def test_many_networks_cost_one_step_each():
    taken = []
    for _ in range(256):
        taken.append(ipam.choose_subnet(taken, pools=[(IPv4Network("10.8.0.0/20"), 28)]))
    assert len(set(taken)) == 256
    with pytest.raises(NotFound, match="could not find an available") as caught:
        ipam.choose_subnet(taken, pools=[(IPv4Network("10.8.0.0/20"), 28)])
    assert "--default-address-pool" in caught.value.hint
