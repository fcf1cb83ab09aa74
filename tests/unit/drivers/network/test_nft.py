"""Rules as text; the kernel's opinion of them is asked in tests/e2e."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from msgspec.structs import replace

from tare.base.errors import InvalidArgument
from tare.drivers.network import nft
from tare.drivers.network.nft import BridgeRules, Entry, Opening, Publication

RULES = BridgeRules(bridge="br0", subnet=IPv4Network("10.1.0.0/24"))


def test_the_tables_are_replaced_in_one_transaction():
    text = nft.ruleset((RULES, ()))
    assert text.startswith("table ip tare-br0\ndelete table ip tare-br0\ntable ip tare-br0 {\n")
    assert text.count("{") == text.count("}")
    assert [line for line in text.splitlines() if line.startswith("add element")] == [
        'add element ip tare-br0 bridges { "br0" }',
        'add element ip tare-br0 within { "br0" . "br0" : accept }',
        'add element ip tare-br0 homes { 10.1.0.0/24 . "br0" }',
        "add element ip tare-br0 outbound { 10.1.0.0/24 }",
        'add element ip6 tare-br0 bridges { "br0" }',
        'add element ip6 tare-br0 within { "br0" . "br0" : accept }',
        'add element ip6 tare-br0 closed { "br0" }',
    ]


def test_the_rules_are_the_same_for_any_number_of_bridges():
    more = [replace(RULES, bridge=f"br{number}", engine="br0") for number in range(1, 50)]
    one, many = nft.ruleset((RULES, ())), nft.ruleset((RULES, ()), *((rules, ()) for rules in more))
    assert {line for line in many.splitlines() if not line.startswith("add element")} == {
        line for line in one.splitlines() if not line.startswith("add element")
    }


def test_switches():
    rules = BridgeRules(bridge="br0", subnet=RULES.subnet, masquerade=False, icc=False, internal=True)
    said = {(entry.version, entry.name, entry.verdict) for entry in nft.entries(rules)}
    assert {("within", "drop"), ("closed", "")} <= {(name, verdict) for _, name, verdict in said}
    assert (4, "outbound", "") not in said
    shown = {(entry.version, entry.name) for entry in nft.entries(replace(rules, internal=False))}
    assert (4, "closed") not in shown
    assert (4, "outbound") not in shown


def told(**fields):
    rules = replace(RULES, subnet6=IPv6Network("fd01::/64"), **fields)
    return {entry.said for entry in nft.entries(rules) if entry.name in ("outbound", "routed", "unprotected")}


def test_modes_of_a_family():
    both = {"ip outbound 10.1.0.0/24", "ip6 outbound fd01::/64"}
    assert told() == told(direct=True) == told(mode="isolated", mode6="isolated") == both
    assert told(mode="routed") == {"ip routed br0", "ip6 outbound fd01::/64"}  # nothing is translated
    assert told(mode6="nat-unprotected") == both | {"ip6 unprotected br0"}
    assert told(mode="routed", mode6="nat-unprotected", internal=True) == set()
    assert "ip6 routed br0" not in {entry.said for entry in nft.entries(replace(RULES, mode6="routed"))}  # no subnet


@pytest.mark.parametrize(("family", "messages"), [("ip", "icmp"), ("ip6", "ipv6-icmp")])
def test_how_packets_come_in(family, messages):
    """In this order: what another bridge of ours may reach stands before the drop of its packets."""
    text = nft.ruleset((RULES, ()))
    table = text[text.rindex(f"table {family} tare-br0 {{") :]
    chain = table[table.index("chain forward") : table.index("}", table.index("chain forward"))]
    assert [line.strip() for line in chain.splitlines()[2:-1]] == [
        "iifname . oifname vmap @within",
        "iifname @closed drop",
        "oifname != @bridges accept",
        "ct state established,related accept",
        "ct status dnat accept",
        f"oifname @routed meta l4proto {messages} accept",
        f"oifname @routed {family} daddr . meta l4proto . th dport @opened accept",
        "iifname @bridges drop",
        "oifname @unprotected accept",
        f"{family} daddr . meta l4proto . th dport @opened accept",
        "drop",
    ]


def test_an_open_port_is_one_element():
    opening = Opening(protocol="sctp", address=IPv6Address("fd01::2"), port=9)
    assert opening.said == "ip6 opened fd01::2 . sctp . 9"
    command = "element ip6 tare-br0 opened { fd01::2 . sctp . 9 }\n"
    assert nft.publish_command(RULES, opening, present=True) == f"add {command}"
    assert nft.publish_command(RULES, opening, present=False) == f"delete {command}"
    assert nft.removal("tare-br0", opening.said) == f"delete {command}"


def test_an_entry_as_the_kernel_stores_it():
    [bridge] = Entry(version=4, name="bridges", key=("br0",)).elements("t")
    assert bridge.key == b"br0" + bytes(13)
    first, behind = Entry(version=4, name="outbound", key=(IPv4Network("10.1.0.0/24"),)).elements("t")
    assert (first.key, first.is_end) == (bytes([10, 1, 0, 0]), False)
    assert (behind.key, behind.is_end) == (bytes([10, 1, 1, 0]), True)
    [top] = Entry(version=4, name="outbound", key=(IPv4Network("255.255.255.0/24"),)).elements("t")
    assert top.key == bytes([255, 255, 255, 0])  # nothing is behind it
    [home] = Entry(version=4, name="homes", key=(IPv4Network("10.1.0.0/24"), "br0")).elements("t")
    assert home.key == bytes([10, 1, 0, 0]) + b"br0" + bytes(13)
    assert home.end == bytes([10, 1, 0, 255]) + b"br0" + bytes(13)


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
        nft.ruleset((BridgeRules(bridge=name, subnet=RULES.subnet), ()))


@pytest.mark.parametrize(
    ("said", "command", "bridge"),
    [
        ("ip bridges br-x", 'ip tare-e bridges { "br-x" }', "br-x"),
        ("ip6 closed br-x", 'ip6 tare-e closed { "br-x" }', "br-x"),
        ("ip within br-x . br-x : accept", 'ip tare-e within { "br-x" . "br-x" : accept }', "br-x"),
        ("ip homes 10.0.0.0/24 . br-x", 'ip tare-e homes { 10.0.0.0/24 . "br-x" }', "br-x"),
        ("ip routed br-x", 'ip tare-e routed { "br-x" }', "br-x"),
        ("ip6 unprotected br-x", 'ip6 tare-e unprotected { "br-x" }', "br-x"),
        ("ip outbound 10.0.0.0/24", "ip tare-e outbound { 10.0.0.0/24 }", ""),
        ("ip6 published tcp . 1 : fd00::2 . 80", "ip6 tare-e published { tcp . 1 : fd00::2 . 80 }", ""),
    ],
)
def test_what_is_said_can_be_taken_away(said, command, bridge):
    assert nft.removal("tare-e", said) == f"delete element {command}\n"
    assert nft.bridge_of(said) == bridge


def test_names_in_what_is_said_are_checked():
    with pytest.raises(InvalidArgument):
        nft.removal("tare-e", 'ip bridges x"}; flush ruleset; #')


def test_elements_have_one_wording_whoever_names_them():
    """What nft's JSON says (libnftables-json(5)) and what is wanted are compared as text."""
    wanted = {entry.said for entry in nft.entries(RULES)}
    assert "ip within br0 . br0 : accept" in wanted
    assert "ip homes 10.1.0.0/24 . br0" in wanted
    one = Publication(protocol="tcp", host_port=80, address=IPv4Address("10.1.0.2"), port=8080)
    assert one.said == "ip published tcp . 80 : 10.1.0.2 . 8080"
    on = replace(one, host_ip=IPv4Address("127.0.0.1"))
    assert on.said == "ip published_on 127.0.0.1 . tcp . 80 : 10.1.0.2 . 8080"
    assert Entry(version=4, name="outbound", key=(IPv4Network("10.0.0.1/32"),)).said == "ip outbound 10.0.0.1"
