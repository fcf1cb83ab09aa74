"""The pure part; plugging is proved in tests/e2e/test_network.py."""

from ipaddress import IPv4Address

from tare.drivers.network import bridge


def test_mac_is_made_from_the_address():
    assert bridge.mac_for(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
