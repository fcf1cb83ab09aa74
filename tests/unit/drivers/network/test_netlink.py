"""Reading needs no privileges: the loopback interface is everywhere."""

import ipaddress

import pytest

from tare.base.errors import TareError
from tare.drivers.network.netlink import Netlink


@pytest.fixture
def netlink():
    netlink = Netlink()
    yield netlink
    netlink.close()


def test_links_are_read(netlink):
    assert any(link.name == "lo" and link.index == 1 for link in netlink.links())
    assert netlink.link("lo").mac == "00:00:00:00:00:00"
    assert netlink.link("no-such-link") is None


def test_addresses_and_routes_are_parsed(netlink):
    for address in netlink.addresses():
        assert address.interface.version in (4, 6)
    for route in netlink.routes():
        assert isinstance(route.destination, ipaddress.IPv4Network | ipaddress.IPv6Network)


def test_an_error_of_the_kernel_is_one_of_ours_and_the_socket_goes_on(netlink):
    with pytest.raises(TareError):
        netlink.set_up(2**30)
    assert netlink.link("lo") is not None


def test_deleting_what_is_not_there(netlink):
    netlink.delete_link("no-such-link")
