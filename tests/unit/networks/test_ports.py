"""From PortBindings to what is published, and back."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.networks.ports import PortWish, Published, bindings, edited, host_ips, owners, published_of, wishes
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
