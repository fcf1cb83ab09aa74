"""From PortBindings to what is published, and back."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.networks.ports import (
    PortWish,
    Published,
    again,
    bindings,
    edited,
    host_ips,
    less,
    owners,
    published_of,
    wishes,
)
from tare.wire.config import ContainerConfig, Empty, HostConfig, PortBinding


def wanted(given, *, exposed=(), everything=False):
    config = ContainerConfig(ExposedPorts={name: Empty() for name in exposed})
    return wishes(config, HostConfig(PortBindings=given, PublishAllPorts=everything))


def test_fixed_ones_come_before_ranges_and_ephemeral_ones():
    found = wanted(
        {
            "80/tcp": [PortBinding(HostPort="")],
            "53/udp": [PortBinding(HostIp="127.0.0.1", HostPort="5353")],
            "90": [PortBinding(HostPort="9000-9010")],
        }
    )
    assert found == [
        PortWish(protocol="udp", port=53, host_ip=IPv4Address("127.0.0.1"), first=5353, last=5353),
        PortWish(protocol="tcp", port=90, first=9000, last=9010),
        PortWish(protocol="tcp", port=80),
    ]


def test_an_empty_list_and_publish_all_mean_any_port():
    assert [wish.name for wish in wanted({"80/tcp": []}, exposed=["80/tcp", "81/udp"])] == ["80/tcp"]
    found = wanted({"80/tcp": [PortBinding(HostPort="8080")]}, exposed=["80/tcp", "81/udp"], everything=True)
    assert [(wish.name, wish.first) for wish in found] == [("80/tcp", 8080), ("81/udp", 0)]


@pytest.mark.parametrize(
    "given",
    [
        {"x/tcp": []},
        {"0/tcp": []},
        {"65536/tcp": []},
        {"80/icmp": []},
        {"80/tcp": [PortBinding(HostPort="70000")]},
        {"80/tcp": [PortBinding(HostPort="90-80")]},
        {"80/tcp": [PortBinding(HostIp="nowhere")]},
    ],
)
def test_refusals(given):
    with pytest.raises(InvalidArgument):
        wanted(given)


def test_there_and_back():
    published = [
        Published(protocol="tcp", port=80, host_ip=IPv4Address("0.0.0.0"), host_port=8080),
        Published(protocol="tcp", port=80, host_ip=IPv4Address("127.0.0.1"), host_port=8081),
        Published(protocol="udp", port=53, host_ip=IPv4Address("0.0.0.0"), host_port=53),
    ]
    shown = bindings(published)
    assert shown["80/tcp"] == [
        PortBinding(HostIp="0.0.0.0", HostPort="8080"),
        PortBinding(HostIp="127.0.0.1", HostPort="8081"),
    ]
    assert sorted(published_of(shown), key=lambda entry: entry.host_port) == sorted(
        published, key=lambda entry: entry.host_port
    )


def test_both_families_where_nobody_says_which():
    wish = PortWish(protocol="tcp", port=80)
    assert [str(ip) for ip in host_ips(wish, "0.0.0.0")] == ["0.0.0.0", "::"]
    assert [str(ip) for ip in host_ips(wish, "127.0.0.1")] == ["127.0.0.1"]
    one = PortWish(protocol="tcp", port=80, host_ip=IPv6Address("::1"))
    assert [str(ip) for ip in host_ips(one, "0.0.0.0")] == ["::1"]


def test_whose_a_published_port_is():
    given = wanted({"80/tcp": [PortBinding(HostPort=""), PortBinding(HostPort="8080")]})
    published = [
        Published(protocol="tcp", port=80, host_ip=ip, host_port=number)
        for number in (32768, 8080)
        for ip in (IPv4Address("0.0.0.0"), IPv6Address("::"))
    ]
    found = owners(given, published, "0.0.0.0")
    assert [(wish.first, [entry.host_port for entry in mine]) for wish, mine in found] == [
        (8080, [8080, 8080]),
        (0, [32768, 32768]),
    ]


def open_at(ip, port=80):
    return Published(protocol="tcp", port=port, host_ip=ip_address(ip), host_port=0)


def at(ip, number):
    return Published(protocol="tcp", port=80, host_ip=ip_address(ip), host_port=number)


@pytest.mark.parametrize(
    "published",
    [[at("0.0.0.0", 8080), open_at("::")], [open_at("0.0.0.0"), at("::", 8080)], [open_at("0.0.0.0"), open_at("::")]],
)
def test_what_is_open_without_the_host_is_shown_as_docker_does(published):
    """Source: moby's TestDisableNAT."""
    shown = bindings(published)
    assert shown == {"80/tcp": [PortBinding(HostIp=str(e.host_ip), HostPort=str(e.host_port or "")) for e in published]}
    assert published_of(shown) == published


def test_each_wish_has_its_own_of_what_is_open():
    given = wanted({"80/tcp": [PortBinding(HostPort="8080"), PortBinding(HostIp="127.0.0.1", HostPort="8081")]})
    published = [open_at("0.0.0.0"), at("::", 8080), open_at("0.0.0.0")]
    first, second = owners(given, published, "0.0.0.0")
    assert first[1] == [at("::", 8080), open_at("0.0.0.0")]
    assert second[1] == [open_at("0.0.0.0")]
    assert less(published, first[1]) == [open_at("0.0.0.0")]


def test_on_another_network_numbers_stay_and_wishes_are_whole():
    given = wanted({"80/tcp": [PortBinding(HostPort="")], "81/tcp": [PortBinding(HostPort="8081")]})
    both = [at("0.0.0.0", 32768), at("::", 32768), open_at("0.0.0.0", 81), open_at("::", 81)]
    assert [(w.port, str(w.host_ip), w.first) for w in again(given, both, "")] == [
        (80, "0.0.0.0", 32768),
        (80, "::", 32768),
        (81, "None", 8081),
    ]
    mixed = [at("0.0.0.0", 32768), open_at("::")]
    assert [(w.port, w.host_ip, w.first) for w in again(given[1:], mixed, "")] == [(80, None, 32768)]


def test_what_has_no_number_pins_nothing():
    shown = {"80/tcp": [PortBinding(HostIp="0.0.0.0", HostPort="32768"), PortBinding(HostIp="::", HostPort="")]}
    found = edited(
        {"80": [PortBinding(), PortBinding()]}, add={}, remove={"80": [PortBinding(HostPort="32768")]}, published=shown
    )
    assert found == {"80/tcp": [PortBinding()]}


def test_bindings_are_edited():
    asked = {"80": [PortBinding(HostPort="8080"), PortBinding(HostIp="127.0.0.1")], "53/udp": []}
    shown = {"80/tcp": [PortBinding(HostIp="127.0.0.1", HostPort="32768")]}
    found = edited(
        asked,
        add={"81": [PortBinding(HostPort="9")]},
        remove={"80/tcp": [PortBinding(HostPort="32768")], "53/udp": []},
        published=shown,
    )
    assert found == {"80/tcp": [PortBinding(HostPort="8080")], "81/tcp": [PortBinding(HostPort="9")]}
    with pytest.raises(NotFound, match="port 90/tcp is not published"):
        edited(asked, add={}, remove={"90": []}, published=shown)
    with pytest.raises(NotFound, match="port 80/tcp is not published at 9999"):
        edited(asked, add={}, remove={"80": [PortBinding(HostPort="9999")]}, published=shown)
    with pytest.raises(Conflict, match="is published at 8080 already"):
        edited(asked, add={"80": [PortBinding(HostPort="8080")]}, remove={}, published=shown)


def test_of_two_ephemeral_ones_the_other_keeps_its_number():
    shown = {"80/tcp": [PortBinding(HostIp="0.0.0.0", HostPort=number) for number in ("32768", "32769")]}
    found = edited(
        {"80": [PortBinding(), PortBinding()]}, add={}, remove={"80": [PortBinding(HostPort="32768")]}, published=shown
    )
    assert found == {"80/tcp": [PortBinding(HostPort="32769")]}
