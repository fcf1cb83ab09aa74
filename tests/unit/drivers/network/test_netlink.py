"""Reading needs no privileges: the loopback interface is everywhere."""

import ipaddress

import pytest

from tare.base.errors import TareError
from tare.drivers.network import netlink as netlink_module
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


class Recorder(Netlink):
    """Keeps what would be asked of the kernel."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def _ask(self, kind, flags, body, *, what):
        self.asked.append((kind, flags, body.hex()))
        return b""


_FIXED = "00000000000000000000000000000000"  # struct ifinfomsg: any family, no index, no flags
_ETH0 = "0900 0300 65746830 00 000000".replace(" ", "")  # IFLA_IFNAME
_LINK7 = "0800 0500 07000000".replace(" ", "")  # IFLA_LINK: the parent
_MTU = "0800 0400 dc050000".replace(" ", "")
_NS5 = "0800 1c00 05000000".replace(" ", "")  # IFLA_NET_NS_FD
_IPVLAN = "0b00 0100 6970766c616e 00 00".replace(" ", "")  # IFLA_INFO_KIND


@pytest.mark.parametrize(
    ("mode", "flag", "data"),
    [
        ("l2", "bridge", "0600 0100 0000 0000 0600 0200 0000 0000"),
        ("l3", "private", "0600 0100 0100 0000 0600 0200 0100 0000"),
        ("l3s", "vepa", "0600 0100 0200 0000 0600 0200 0200 0000"),
    ],
)
def test_ipvlan_as_the_kernel_is_asked_for_it(mode, flag, data):
    """linux/if_link.h: IFLA_IPVLAN_MODE and _FLAGS are u16, in IFLA_INFO_DATA in IFLA_LINKINFO."""
    recorder = Recorder()
    try:
        recorder.create_child(
            "eth0", kind="ipvlan", parent=7, namespace_fd=5, data=netlink_module.ipvlan_data(mode, flag), mtu=1500
        )
    finally:
        recorder.close()
    inner = "1400 0200" + data  # IFLA_INFO_DATA
    info = "2400 1200" + _IPVLAN + inner
    assert recorder.asked == [(16, 0x600, (_FIXED + _ETH0 + _LINK7 + _MTU + _NS5 + info).replace(" ", ""))]


def test_a_vlan_as_the_kernel_is_asked_for_it():
    recorder = Recorder()
    try:
        recorder.create_child("e.10", kind="vlan", parent=7, namespace_fd=-1, data=netlink_module.vlan_data(10))
    finally:
        recorder.close()
    name = "0900 0300 652e3130 00 000000"
    info = "1c00 1200" + "0900 0100 766c616e 00 000000" + "0c00 0200" + "0600 0100 0a00 0000"
    assert recorder.asked == [(16, 0x600, (_FIXED + name + _LINK7 + info).replace(" ", ""))]


def test_a_port_is_blocked_without_being_taken_down():
    recorder = Recorder()
    try:
        recorder.block(7)
        recorder.block(7, is_blocked=False)
    finally:
        recorder.close()
    head = "07000000070000000000000000000000"  # AF_BRIDGE, the link
    assert recorder.asked == [
        (19, 0, head + "0c000c80" + "0500010000000000"),  # IFLA_PROTINFO, nested: IFLA_BRPORT_STATE disabled
        (19, 0, head + "0c000c80" + "0500010003000000"),
    ]
