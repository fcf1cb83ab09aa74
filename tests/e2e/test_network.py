"""Namespaces, bridges and rules in the kernel. A namespace plays the host: the machine's network is not used."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.containers import spec
from tare.drivers.network.bridge import BridgeDriver, Plug, mac_for
from tare.drivers.network.netns import Namespaces
from tare.drivers.network.nft import BridgeRules, Nft, Publication
from tare.testing import bundles as util

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
BRIDGE = "br-test0"
GATEWAY = IPv4Interface("10.213.0.1/24")
RULES = BridgeRules(bridge=BRIDGE, subnet=IPv4Network("10.213.0.0/24"))


@pytest.fixture
def host():
    """The namespace that plays the host."""
    namespaces = Namespaces()
    namespace = namespaces.create()
    yield namespaces, namespace
    namespace.close()
    namespaces.close()


@pytest.fixture
def driver(host):
    driver = BridgeDriver(home=host[1].path)
    driver.ensure_bridge(BRIDGE, GATEWAY)
    yield driver
    driver.close()


def endpoint(driver, last, **changes):
    address = IPv4Address(f"10.213.0.{last}")
    plug = {
        "bridge": BRIDGE,
        "interface": "eth0",
        "mac": mac_for(address),
        "addresses": (IPv4Interface(f"{address}/24"),),
        "gateways": (GATEWAY.ip,),
    }
    namespace = driver.namespace()
    driver.plug(namespace, Plug(**(plug | changes)))
    return namespace


def ping(namespaces, source, address):
    """One echo from inside a namespace, answered or refused by the kernel within a second."""
    command = ["/usr/bin/busybox", "ping", "-c", "1", "-W", "1", address]
    return namespaces.run(source.fd, lambda: subprocess.run(command, capture_output=True).returncode == 0)


def test_a_namespace_has_loopback_and_our_sysctls_and_threads_stay_home():
    before = os.readlink("/proc/self/ns/net")
    namespaces = Namespaces()
    namespace = namespaces.create()
    try:
        links = namespace.netlink.links()
        assert [link.name for link in links if link.is_up] == ["lo"]
        for name, value in (("ip_unprivileged_port_start", "0"), ("ping_group_range", "0\t2147483647")):
            read = namespaces.run(namespace.fd, Path("/proc/sys/net/ipv4", name).read_text)
            assert read.strip() == value
        assert namespaces.run(namespace.fd, lambda: os.readlink("/proc/thread-self/ns/net")) != before
        for thread in threading.enumerate():
            assert os.readlink(f"/proc/self/task/{thread.native_id}/ns/net") == before
    finally:
        namespace.close()
        namespaces.close()


def test_an_error_inside_leaves_the_thread_at_home(host):
    namespaces, namespace = host
    with pytest.raises(ZeroDivisionError):
        namespaces.run(namespace.fd, lambda: 1 // 0)
    assert namespaces._thread.submit(os.readlink, "/proc/thread-self/ns/net").result() == os.readlink(
        "/proc/self/ns/net"
    )


def test_two_containers_talk_over_the_bridge(driver, host):
    first, second = endpoint(driver, 2), endpoint(driver, 3)
    try:
        assert ping(host[0], first, "10.213.0.3")
        assert ping(host[0], second, "10.213.0.1")
        [eth0] = [link for link in first.netlink.links() if link.name == "eth0"]
        assert eth0.is_running  # the first packet is not lost
        assert (eth0.mac, eth0.mtu, eth0.is_up) == ("02:42:0a:d5:00:02", 1500, True)
        assert any(str(r.gateway) == "10.213.0.1" and not r.destination.prefixlen for r in first.netlink.routes())
    finally:
        first.close()
        second.close()


def test_isolated_ports_do_not_talk_to_each_other_but_to_the_gateway(driver, host):
    first, second = endpoint(driver, 2, isolated=True), endpoint(driver, 3, isolated=True)
    try:
        assert not ping(host[0], first, "10.213.0.3")
        assert ping(host[0], first, "10.213.0.1")
    finally:
        first.close()
        second.close()


def test_a_second_link_of_that_name_is_refused_and_leaves_nothing(driver, host):
    first = endpoint(driver, 2)
    try:
        before = {link.name for link in host[1].netlink.links()}
        with pytest.raises(Conflict):
            driver.plug(
                first, Plug(bridge=BRIDGE, interface="eth0", mac=mac_for(IPv4Address("10.213.0.9")), addresses=())
            )
        with pytest.raises(Conflict):  # the address is there already: the new pair goes
            driver.plug(
                first,
                Plug(
                    bridge=BRIDGE,
                    interface="eth1",
                    mac=mac_for(IPv4Address("10.213.0.9")),
                    addresses=(IPv4Interface("10.213.0.9/24"), IPv4Interface("10.213.0.9/24")),
                ),
            )
        assert {link.name for link in host[1].netlink.links()} == before
    finally:
        first.close()


def test_links_say_whose_they_are_and_those_of_others_keep_their_alias(driver, host):
    netlink, bridge = host[1].netlink, "br-marked"
    driver.ensure_bridge(bridge, IPv4Interface("10.214.0.1/24"), mark="tare one")
    assert driver.marked("tare one") == {bridge: 0}
    driver.ensure_bridge(bridge, IPv4Interface("10.214.0.1/24"), mark="tare two")  # another engine took it over
    assert (driver.marked("tare one"), driver.marked("tare two")) == ({}, {bridge: 0})
    netlink.set_alias(netlink.link(bridge).index, "the office")
    driver.ensure_bridge(bridge, IPv4Interface("10.214.0.1/24"), mark="tare two")
    assert netlink.link(bridge).alias == "the office"
    driver.ensure_bridge(bridge, IPv4Interface("10.214.0.1/24"), mark="tare two", is_ours=True)
    assert driver.marked("tare two") == {bridge: 0}
    driver.remove_bridge(bridge)


def test_the_bridge_is_adopted_and_removed(driver, host):
    driver.ensure_bridge(BRIDGE, GATEWAY)
    assert driver.bridge_address(BRIDGE) == GATEWAY
    assert GATEWAY.network in driver.networks_in_use()
    assert GATEWAY.network not in driver.networks_in_use(besides=BRIDGE)
    with pytest.raises(InvalidArgument, match="lo exists and is not a bridge"):
        driver.ensure_bridge("lo", GATEWAY)
    driver.apply_rules(RULES)
    driver.remove_bridge(BRIDGE)
    driver.remove_bridge(BRIDGE)
    assert driver.bridge_address(BRIDGE) is None


def test_rules_are_there_and_those_of_others_untouched(driver, host):
    namespaces, namespace = host
    nft = namespaces.run(namespace.fd, Nft)
    try:
        nft.run("table ip others {\nchain f {\ntype filter hook forward priority 0; policy drop;\n}\n}\n")
        others = nft.run("list table ip others")
        driver.apply_rules(RULES)
        driver.apply_rules(RULES)
        ours = nft.run(f"list table ip {RULES.table}")
        assert nft.run(f"get element ip {RULES.table} outbound {{ 10.213.0.7 }}")
        assert ours.count("masquerade") == 3  # outward, neighbours by a published port, the host by its loopback
        port = Publication(protocol="tcp", host_port=8080, address=IPv4Address("10.213.0.2"), port=80)
        local = Publication(
            protocol="tcp", host_port=81, address=IPv4Address("10.213.0.2"), port=80, host_ip=IPv4Address("127.0.0.1")
        )
        nft.publish(RULES, [port, local], present=True)
        assert "tcp . 8080 : 10.213.0.2 . 80" in nft.run(f"list map ip {RULES.table} published")
        nft.publish(RULES, [port, local], present=False)
        with pytest.raises(NotFound):
            nft.publish(RULES, [port], present=False)
        assert nft.tables() == {RULES.table}
        assert driver.forward_drops() == ["ip others f"]
        nft.remove(BRIDGE)
        nft.remove(BRIDGE)
        assert nft.tables() == set()
        assert nft.run("list table ip others") == others
    finally:
        nft.close()


def test_without_iptables_there_are_no_rules(host):
    namespaces, namespace = host
    driver = BridgeDriver(home=namespace.path, rules=False)
    nft = namespaces.run(namespace.fd, Nft)
    try:
        driver.ensure_bridge(BRIDGE, GATEWAY)
        driver.apply_rules(RULES)
        assert nft.run("list ruleset") == ""
        assert driver.forward_drops() == []
        driver.remove_bridge(BRIDGE)
    finally:
        nft.close()
        driver.close()


def test_masquerading_and_forwarding_to_the_outside(driver, host):
    """container -> bridge -> "host" -> an outer namespace that knows no route back: only NAT lets it answer."""
    namespaces, namespace = host
    driver.apply_rules(RULES)
    driver.enable_forwarding()
    outer = namespaces.create()
    inner = endpoint(driver, 2)
    try:
        namespace.netlink.create_bridge("uplink", mac="02:42:00:00:00:01")
        uplink = namespace.netlink.link("uplink").index
        namespace.netlink.add_address(uplink, IPv4Interface("192.0.2.1/24"))
        namespace.netlink.create_veth(
            "up0", master=uplink, peer_name="eth0", peer_namespace_fd=outer.fd, peer_mac="02:42:00:00:00:02"
        )
        eth0 = outer.netlink.link("eth0").index
        outer.netlink.add_address(eth0, IPv4Interface("192.0.2.2/24"))
        outer.netlink.set_up(eth0)
        assert ping(namespaces, inner, "192.0.2.2")
        nft = namespaces.run(namespace.fd, Nft)
        nft.remove(BRIDGE)
        nft.close()
        assert not ping(namespaces, inner, "192.0.2.2")
    finally:
        inner.close()
        outer.close()


@pytest.mark.skipif(shutil.which("crun") is None, reason="needs crun")
@pytest.mark.parametrize("runtime", [name for name in ("crun", "runc") if shutil.which(name)])
def test_a_container_runs_in_a_namespace_handed_in(driver, host, tmp_path, runtime):
    namespace = endpoint(driver, 2)
    try:
        rootfs = util.make_rootfs(tmp_path / "fs")
        script = "busybox ip -o addr; ping -c 1 -W 1 10.213.0.1 >/dev/null && echo reached"
        given = util.spec_input(
            rootfs,
            ["/bin/sh", "-c", script],
            namespaces=spec.Namespaces(network=namespace.path),
            runtime=runtime,
        )
        done = util.run(given, tmp_path / "bundle", runtime=runtime)
        assert done.returncode == 0, done.stderr
        assert b"10.213.0.2/24" in done.stdout
        assert b"reached" in done.stdout
    finally:
        namespace.close()
