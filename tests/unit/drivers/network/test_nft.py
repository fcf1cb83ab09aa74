"""Rules as text; the kernel's opinion of them is asked in tests/e2e."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from tare.base.errors import InvalidArgument
from tare.drivers.network import nft
from tare.drivers.network.nft import BridgeRules, Publication

RULES = BridgeRules(bridge="br0", subnet=IPv4Network("10.1.0.0/24"))


def test_the_table_is_replaced_in_one_transaction():
    text = nft.ruleset(RULES)
    assert text.startswith("table ip tare-br0\ndelete table ip tare-br0\ntable ip tare-br0 {\n")
    assert 'ip saddr 10.1.0.0/24 oifname != "br0" masquerade' in text
    assert 'iifname "br0" oifname "br0" accept' in text
    assert text.count("{") == text.count("}")


def test_switches():
    text = nft.ruleset(BridgeRules(bridge="br0", subnet=RULES.subnet, masquerade=False, icc=False, internal=True))
    assert 'oifname != "br0" masquerade' not in text
    assert 'iifname "br0" oifname "br0" drop' in text
    assert 'iifname "br0" drop' in text


def test_names_are_led_to_the_ports_of_our_server():
    text = nft.names_ruleset("127.0.0.11", udp_port=4001, tcp_port=4002, replaces=True)
    assert "delete table ip tare-names\n" in text
    again = nft.names_ruleset("127.0.0.11", udp_port=4001, tcp_port=4002, replaces=False)
    assert text.endswith(again)
    assert "delete" not in again
    assert "ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:4001\n" in text
    assert "ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:4002\n" in text


def test_a_port_is_one_element():
    everywhere = Publication(protocol="tcp", host_port=80, address=IPv4Address("10.1.0.2"), port=8080)
    one = Publication(
        protocol="udp", host_port=53, address=IPv4Address("10.1.0.2"), port=53, host_ip=IPv4Address("127.0.0.1")
    )
    assert nft.publish_command(RULES, everywhere, present=True) == (
        "add element ip tare-br0 published { tcp . 80 : 10.1.0.2 . 8080 }\n"
    )
    assert nft.publish_command(RULES, one, present=False) == (
        "delete element ip tare-br0 published_on { 127.0.0.1 . udp . 53 : 10.1.0.2 . 53 }\n"
    )


@pytest.mark.parametrize("name", ["", "a b", 'x"', "-x", "../x", "a" * 16, "x;y"])
def test_names_that_could_mean_something_else_are_refused(name):
    with pytest.raises(InvalidArgument):
        nft.ruleset(BridgeRules(bridge=name, subnet=RULES.subnet))
