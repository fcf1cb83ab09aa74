"""macvlan, networks made of another's settings, and somebody else's network namespace, through the stock command line.

Proves `networks/parents` on a real engine, whose "outside" is a namespace behind a veth.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface

import pytest

from tare.drivers.network.netlink import Netlink
from tare.drivers.network.netns import Namespaces, NetNamespace
from tare.testing.stockclient import docker, out

PARENT = "ttmv0"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


@pytest.fixture
def outer() -> Iterator[tuple[Namespaces, NetNamespace]]:
    """A second host, 10.232.0.1 and fd5a:f::1, behind the link that is the parent."""
    namespaces = Namespaces()
    namespace = namespaces.create()
    netlink = Netlink()
    netlink.create_veth(
        PARENT, master=0, peer_name="eth0", peer_namespace_fd=namespace.fd, peer_mac="02:42:00:00:00:66"
    )
    link = namespace.netlink.link("eth0")
    assert link is not None
    namespaces.enable_ipv6(namespace.fd, "eth0")
    namespace.netlink.add_address(link.index, IPv4Interface("10.232.0.1/24"))
    namespace.netlink.add_address(link.index, IPv6Interface("fd5a:f::1/64"))
    namespace.netlink.set_up(link.index)
    yield namespaces, namespace
    netlink.delete_link(PARENT)
    netlink.close()
    namespace.close()
    namespaces.close()


def reaches(host: str, name: str, address: str, patience_s: int = 3) -> bool:
    return docker(host, "exec", name, "ping", "-c", "1", "-W", str(patience_s), address).returncode == 0


def refused(host: str, *argv: str) -> str:
    done = docker(host, *argv)
    assert done.returncode != 0, done.stdout
    return done.stderr


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_macvlan(engine_host: str, outer: tuple[Namespaces, NetNamespace], mode: str) -> None:
    out(
        engine_host, "network", "create", "-d", "macvlan", "-o", f"parent={PARENT}", "-o", f"macvlan_mode={mode}",
        "--ipv6", "--subnet", "10.232.0.0/24", "--subnet", "fd5a:f::/64", "lan",
    )  # fmt: skip
    out(
        engine_host, "run", "-d", "--stop-timeout", "0", "--name", "first", "--network", "lan", "--ip", "10.232.0.9",
        "busybox", "sleep", "600",
    )  # fmt: skip
    assert reaches(engine_host, "first", "10.232.0.1")
    assert reaches(engine_host, "first", "fd5a:f::1")
    assert "via 10.232.0.1" in out(engine_host, "exec", "first", "ip", "route")
    [found] = json.loads(out(engine_host, "network", "inspect", "lan"))
    assert (found["Driver"], found["Options"]["parent"]) == ("macvlan", PARENT)
    if mode != "passthru":
        out(
            engine_host, "run", "-d", "--stop-timeout", "0", "--name", "second", "--network", "lan", "busybox",
            "sleep", "600",
        )  # fmt: skip
        seen = reaches(engine_host, "second", "10.232.0.9", 3 if mode == "bridge" else 1)
        assert seen is (mode == "bridge")
        looked = out(engine_host, "exec", "second", "nslookup", "-type=a", "first", "127.0.0.11")
        assert "10.232.0.9" in looked
    else:
        other = refused(
            engine_host,
            "network",
            "create",
            "-d",
            "macvlan",
            "-o",
            f"parent={PARENT}",
            "--subnet",
            "10.233.0.0/24",
            "x",
        )
        assert f"already using parent interface {PARENT}" in other
    out(engine_host, "network", "disconnect", "lan", "first")
    assert "eth0" not in out(engine_host, "exec", "first", "ip", "link")
    out(engine_host, "network", "connect", "lan", "first")
    assert reaches(engine_host, "first", "10.232.0.1")
    out(engine_host, "rm", "-f", *out(engine_host, "ps", "-q").split())
    out(engine_host, "network", "rm", "lan")
    assert PARENT in os.listdir("/sys/class/net")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-d", "macvlan", "-o", "parent=ttnone0", "x"], "the parent interface ttnone0 is not there"),
        (["-d", "macvlan", "-o", "parent=lo", "x"], "loopback interface is not a valid macvlan parent link"),
        (["-d", "macvlan", "-o", "parent=ttnone0.10", "x"], "the parent interface ttnone0 is not there"),
        (["-d", "ipvlan", "-o", "parent=lo", "-o", "ipvlan_mode=l9", "x"], "requested ipvlan mode 'l9' is not valid"),
    ],
)
def test_refusals_leave_nothing(engine_host: str, argv: list[str], text: str) -> None:
    assert text in refused(engine_host, "network", "create", *argv)
    assert "x" not in out(engine_host, "network", "ls", "--format", "{{.Name}}").splitlines()


def test_a_vlan_is_made_or_the_kernel_has_none(engine_host: str, outer: tuple[Namespaces, NetNamespace]) -> None:
    argv = ["-d", "macvlan", "-o", f"parent={PARENT}.10", "--subnet", "10.232.0.0/24", "tagged"]
    done = docker(engine_host, "network", "create", *argv)
    if done.returncode != 0:
        assert "this kernel has no vlan links" in done.stderr
        assert "tagged" not in out(engine_host, "network", "ls", "--format", "{{.Name}}").splitlines()
        pytest.skip("this kernel has no VLANs")
    assert f"{PARENT}.10" in os.listdir("/sys/class/net")
    out(engine_host, "network", "rm", "tagged")
    assert f"{PARENT}.10" not in os.listdir("/sys/class/net")


def test_sctp_is_published_or_the_kernel_has_none(engine_host: str) -> None:
    done = docker(engine_host, "run", "--rm", "-p", "127.0.0.1::80/sctp", "busybox", "true")
    if done.returncode != 0:
        assert "the kernel has no sctp" in done.stderr
        assert out(engine_host, "ps", "-aq", "--filter", "status=running") == ""
        pytest.skip("this kernel has no SCTP")


def test_ipvlan_works_or_says_that_the_kernel_has_none(
    engine_host: str, outer: tuple[Namespaces, NetNamespace]
) -> None:
    out(
        engine_host, "network", "create", "-d", "ipvlan", "-o", f"parent={PARENT}", "--subnet", "10.232.0.0/24", "lan",
    )  # fmt: skip
    done = docker(engine_host, "run", "--rm", "--network", "lan", "busybox", "ping", "-c", "1", "-W", "3", "10.232.0.1")
    if done.returncode != 0:
        assert "cannot make ipvlan eth0: operation not supported: this kernel has no ipvlan links" in done.stderr
        assert out(engine_host, "ps", "-aq") == ""
        pytest.skip("this kernel has no ipvlan")


def test_networks_made_of_anothers_settings(engine_host: str) -> None:
    out(engine_host, "network", "create", "--config-only", "--subnet", "10.234.0.0/24", "--label", "a=b", "settings")
    [template] = json.loads(out(engine_host, "network", "inspect", "settings"))
    assert (template["ConfigOnly"], template["Driver"]) == (True, "null")
    assert template["IPAM"]["Config"] == [{"Subnet": "10.234.0.0/24"}]
    assert "configuration-only network" in refused(engine_host, "run", "--network", "settings", "busybox", "true")
    out(engine_host, "network", "create", "--config-from", "settings", "real")
    [real] = json.loads(out(engine_host, "network", "inspect", "real"))
    assert (real["ConfigFrom"], real["Labels"]) == ({"Network": "settings"}, {"a": "b"})
    out(engine_host, "run", "--rm", "--network", "real", "busybox", "ping", "-c", "1", "10.234.0.1")
    assert 'configuration network "settings" is in use' in refused(engine_host, "network", "rm", "settings")
    out(engine_host, "network", "rm", "real")
    out(engine_host, "network", "rm", "settings")


def test_a_namespace_somebody_else_made(engine_host: str, outer: tuple[Namespaces, NetNamespace]) -> None:
    keeper = subprocess.Popen(
        ["nsenter", f"--net={outer[1].path}", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE
    )
    try:
        assert keeper.stdout is not None
        keeper.stdout.readline()
        path = f"/proc/{keeper.pid}/ns/net"
        out(
            engine_host, "run", "-d", "--stop-timeout", "0", "--name", "guest", "--network", f"ns:{path}", "busybox",
            "sleep", "600",
        )  # fmt: skip
        assert "10.232.0.1/24" in out(engine_host, "exec", "guest", "ip", "addr")
        assert json.loads(out(engine_host, "inspect", "guest"))[0]["NetworkSettings"]["Networks"] == {}
        assert "cannot be connected to any other network" in refused(
            engine_host, "network", "connect", "bridge", "guest"
        )
        out(engine_host, "rm", "-f", "guest")
        assert outer[1].netlink.link("eth0") is not None
    finally:
        keeper.kill()
        keeper.communicate()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--network", "ns:/nonexistent"], "no network namespace at /nonexistent"),
        (["--network", "ns:/etc/passwd"], "/etc/passwd is no network namespace"),
        (["--network", "ns:/proc/self/ns/mnt"], "is a namespace, but not one of networks"),
        (["--network", "ns:relative"], "needs an absolute path"),
        (["--network", "ns:/proc/1/ns/net", "-p", "80"], "port publishing and the network mode"),
        (["--network", "ns:/proc/1/ns/net", "--sysctl", "net.ipv4.ip_forward=0"], "not allowed"),
    ],
)
def test_what_is_no_namespace_for_a_container(engine_host: str, options: list[str], text: str) -> None:
    assert text in refused(engine_host, "run", "--rm", *options, "busybox", "true")
