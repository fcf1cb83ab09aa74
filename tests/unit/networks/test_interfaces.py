"""Names and settings of a container's interfaces."""

from itertools import islice

import pytest

from tare.base.errors import InvalidArgument
from tare.networks import interfaces
from tare.wire.config import EndpointSettings, HostConfig


def with_options(**options):
    return EndpointSettings(DriverOpts=options)


def test_a_name_of_their_own():
    assert interfaces.asked_name(EndpointSettings()) == ""
    assert interfaces.asked_name(with_options(**{interfaces.NAME: "wg.0"})) == "wg.0"


@pytest.mark.parametrize("name", ["a/b", "..", "sixteen-letters-", "a b", "lo", "a:1", "all", "eth%d"])
def test_names_the_kernel_refuses(name):
    with pytest.raises(InvalidArgument, match="invalid interface name"):
        interfaces.asked_name(with_options(**{interfaces.NAME: name}))


def test_the_others_get_what_is_left():
    assert interfaces.names(["", "", ""]) == ["eth0", "eth1", "eth2"]
    assert interfaces.names(["eth1", "", "web", ""]) == ["eth1", "eth0", "web", "eth2"]
    assert list(islice(interfaces.free_names(["eth0", "lo", "eth2"]), 2)) == ["eth1", "eth3"]
    with pytest.raises(InvalidArgument, match='error renaming interface to "web": file exists'):
        interfaces.names(["web", "web"])


@pytest.mark.parametrize(("value", "expected"), [("1", False), ("0", True)])
def test_ipv6_may_be_switched_off(value, expected):
    assert interfaces.has_ipv6(HostConfig())
    assert interfaces.has_ipv6(HostConfig(Sysctls={"net.ipv6.conf.all.disable_ipv6": value})) is expected


def test_settings_of_the_kernel():
    asked = with_options(**{interfaces.SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.mtu=1300"})
    assert interfaces.sysctls(asked) == (
        ("net/ipv4/conf/IFNAME/log_martians", "1"),
        ("net/ipv6/conf/IFNAME/mtu", "1300"),
    )
    assert interfaces.sysctls(EndpointSettings()) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("net.ipv4.conf.eth0.log_martians=1", "unrecognised network interface sysctl"),
        ("kernel.x.conf.IFNAME.y=1", "unrecognised network interface sysctl"),
        ("net.ipv4.conf.IFNAME.../../x=1", "unrecognised network interface sysctl"),
        ("net.ipv4.conf.IFNAME.log_martians", "to have format name=value"),
    ],
)
def test_settings_that_are_refused(text, says):
    with pytest.raises(InvalidArgument, match=says):
        interfaces.sysctls(with_options(**{interfaces.SYSCTLS: text}))
