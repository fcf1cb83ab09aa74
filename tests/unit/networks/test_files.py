"""The texts a container finds in /etc."""

import pytest

from tare.networks import files
from tare.networks.files import Resolver, container_resolver, parse_resolver

STANDARD = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


def test_hosts_as_docker_writes_it():
    assert files.hosts(hostname="foo", domainname="bar", addresses=["172.17.0.4"]) == (
        STANDARD + "172.17.0.4\tfoo.bar foo\n"
    )
    assert files.hosts(hostname="a.b.c", addresses=["10.0.0.2"]) == STANDARD + "10.0.0.2\ta.b.c a\n"
    assert files.hosts(hostname="foo") == STANDARD
    assert files.hosts(hostname="foo", addresses=["10.0.0.2"], has_ipv6=False) == (
        "127.0.0.1\tlocalhost\n10.0.0.2\tfoo\n"
    )


def test_extra_hosts():
    text = files.hosts(
        hostname="x", extra=["db:10.0.0.1", "six=[fd00::1]", "me:host-gateway", "v6:::1"], gateway="172.17.0.1"
    )
    assert text == STANDARD + "10.0.0.1\tdb\nfd00::1\tsix\n172.17.0.1\tme\n::1\tv6\n"
    assert "me" not in files.hosts(hostname="x", extra=["me:host-gateway"]).removeprefix(STANDARD)


def test_resolver_is_read_as_libc_does():
    text = (
        "# c\n;c\nnameserver 10.0.0.1\ndomain a\nsearch b c\noptions ndots:1\noptions timeout:2\nnonsense\nnameserver\n"
    )
    parsed = parse_resolver(text)
    assert parsed == Resolver(servers=("10.0.0.1",), search=("b", "c"), options=("ndots:1", "timeout:2"))
    assert parsed.text == "nameserver 10.0.0.1\nsearch b c\noptions ndots:1 timeout:2\n"
    assert Resolver().text == ""


@pytest.mark.parametrize(
    ("servers", "ipv6", "expected"),
    [
        (("10.0.0.1", "127.0.0.1"), False, ("10.0.0.1",)),
        (("127.0.0.53", "::1"), False, ("8.8.8.8", "8.8.4.4")),
        (("fd00::1", "10.0.0.1"), False, ("10.0.0.1",)),
        (("fd00::1", "fe80::1%eth0"), True, ("fd00::1", "fe80::1%eth0")),
        ((), False, ("8.8.8.8", "8.8.4.4")),
        (("not-an-address",), False, ("8.8.8.8", "8.8.4.4")),
    ],
)
def test_servers_a_container_cannot_reach_are_dropped(servers, ipv6, expected):
    assert container_resolver(Resolver(servers=servers), ipv6=ipv6).servers == expected


def test_what_is_asked_for_replaces_the_hosts():
    host = Resolver(servers=("10.0.0.1",), search=("a",), options=("x",))
    assert container_resolver(host) == host
    assert container_resolver(host, servers=["127.0.0.1"], search=["."], options=["y"]) == Resolver(
        servers=("127.0.0.1",), options=("y",)
    )


def test_the_stub_of_systemd_is_known():
    assert files.is_local_stub(Resolver(servers=("127.0.0.53",)))
    assert not files.is_local_stub(Resolver(servers=("127.0.0.53", "10.0.0.1")))
    assert not files.is_local_stub(Resolver())
