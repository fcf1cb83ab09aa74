"""What inspect says of a network, compared with the kernel; a web server fetched from everywhere; the host's firewall.

A second "host" is a namespace behind a veth that the test makes, with a route to the first.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any

import pytest

from tare.drivers.network.netlink import Netlink
from tare.drivers.network.netns import Namespaces, NetNamespace, switch_ipv6_on
from tare.drivers.network.nft import Nft
from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker, out

REPOSITORY = Path(__file__).resolve().parents[2]
UPLINK = "ttup0"
HOST4, HOST6 = "10.237.0.1", "fd5a:ed::1"
SECOND4, SECOND6 = "10.237.0.2", "fd5a:ed::2"
WEB = "mkdir -p /tmp/w; echo hello >/tmp/w/index.html; httpd -p 80 -h /tmp/w; echo ready; exec sleep 600"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


@pytest.fixture
def second() -> Iterator[NetNamespace]:
    """Another host on the same link: it knows this one's addresses and nothing else."""
    namespaces = Namespaces()
    namespace = namespaces.create()
    netlink = Netlink()
    netlink.create_veth(
        UPLINK, master=0, peer_name="eth0", peer_namespace_fd=namespace.fd, peer_mac="02:42:00:00:00:62"
    )
    here, there = netlink.link(UPLINK), namespace.netlink.link("eth0")
    assert here is not None
    assert there is not None
    switch_ipv6_on(UPLINK)
    namespaces.enable_ipv6(namespace.fd, "eth0")
    namespace.netlink.set_up(there.index)
    for each in (IPv4Interface(f"{HOST4}/24"), IPv6Interface(f"{HOST6}/64")):
        netlink.add_address(here.index, each)
    for each in (IPv4Interface(f"{SECOND4}/24"), IPv6Interface(f"{SECOND6}/64")):
        namespace.netlink.add_address(there.index, each)
    yield namespace
    netlink.delete_link(UPLINK)
    netlink.close()
    namespace.close()
    namespaces.close()


def web(host: str, name: str, *options: str) -> None:
    out(host, "run", "-d", "--stop-timeout", "0", "--name", name, *options, "busybox", "sh", "-c", WEB)
    with subprocess.Popen(["docker", "-H", host, "logs", "-f", name], stdout=subprocess.PIPE, text=True) as told:
        assert told.stdout is not None
        assert "ready" in (told.stdout.readline() or docker(host, "logs", name).stderr)
        told.kill()


def fetched(argv: list[str], address: str, port: int) -> bool:
    """Whether nc, run by argv, gets the page; it ends when the server does, or after two seconds."""
    script = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {address} {port}"
    done = subprocess.run([*argv, "sh", "-c", script], capture_output=True, text=True, check=False)
    return "hello" in done.stdout


def entered(namespace: NetNamespace) -> list[str]:
    return ["nsenter", f"--net={namespace.path}"]


def test_a_web_server_from_the_host_another_host_and_a_neighbour(engine_host: str, second: NetNamespace) -> None:
    out(engine_host, "network", "create", "--ipv6", "dual")
    web(engine_host, "server", "--network", "dual", "-p", "80")
    out(
        engine_host,
        "run",
        "-d",
        "--stop-timeout",
        "0",
        "--name",
        "near",
        "--network",
        "dual",
        "busybox",
        "sleep",
        "600",
    )
    port = int(out(engine_host, "port", "server", "80").splitlines()[0].rpartition(":")[2])
    for address in ("127.0.0.1", "::1", HOST4, HOST6):
        assert fetched([], address, port), address
    for address in (HOST4, HOST6):
        assert fetched(entered(second), address, port), address
    near = ["docker", "-H", engine_host, "exec", "near"]
    mine = json.loads(out(engine_host, "inspect", "-f", "{{json .NetworkSettings.Networks}}", "server"))["dual"]
    for address in (mine["IPAddress"], mine["GlobalIPv6Address"]):
        assert fetched(near, address, 80), address
        assert not fetched(entered(second), address, 80), address
    for address in (mine["Gateway"], mine["IPv6Gateway"]):
        assert fetched(near, address, port), address


def kernel(host: str, name: str) -> dict[str, Any]:
    """A container's only interface and its routes, as the kernel says."""
    pid = out(host, "inspect", "-f", "{{.State.Pid}}", name)

    def ip(*argv: str) -> Any:
        argv = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-j", *argv)
        return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout or "[]")

    [link] = [link for link in ip("addr") if link["ifname"] != "lo"]
    routes = [*ip("route"), *ip("-6", "route")]
    return {
        "name": link["ifname"],
        "mac": link["address"],
        "mtu": link["mtu"],
        "addresses": sorted(
            f"{entry['local']}/{entry['prefixlen']}" for entry in link["addr_info"] if entry["scope"] == "global"
        ),
        "gateways": sorted(route["gateway"] for route in routes if route["dst"] == "default" and "gateway" in route),
        "subnets": sorted(r["dst"] for r in routes if r["dst"] not in ("default",) and not r["dst"].startswith("fe80")),
    }


@pytest.mark.parametrize(
    ("options", "mtu"),
    [
        (["--subnet", "10.236.1.0/24", "-o", "com.docker.network.driver.mtu=1400"], 1400),
        (["--subnet", "10.236.1.0/24", "--internal"], 1500),
        (["--subnet", "10.236.1.0/24", "--ipv6", "--subnet", "fd5a:ec::/64"], 1500),
        (["-d", "macvlan", "-o", f"parent={UPLINK}", "--subnet", "10.236.1.0/24", "--gateway", "10.236.1.9"], 1500),
    ],
    ids=["bridge", "internal", "dual", "macvlan"],
)
def test_inspect_says_what_the_kernel_has(engine_host: str, second: NetNamespace, options: list[str], mtu: int) -> None:
    out(engine_host, "network", "create", *options, "seen")
    identity = out(
        engine_host, "run", "-d", "--stop-timeout", "0", "--name", "box", "--network", "seen", "busybox", "sleep", "600"
    )
    [network] = json.loads(out(engine_host, "network", "inspect", "seen"))
    mine = json.loads(out(engine_host, "inspect", "-f", "{{json .NetworkSettings.Networks}}", "box"))["seen"]
    found = kernel(engine_host, "box")
    addresses = [f"{mine['IPAddress']}/{mine['IPPrefixLen']}"]
    if mine["GlobalIPv6Address"]:
        addresses.append(f"{mine['GlobalIPv6Address']}/{mine['GlobalIPv6PrefixLen']}")
    assert found == {
        "name": "eth0",
        "mac": mine["MacAddress"],
        "mtu": mtu,
        "addresses": sorted(addresses),
        "gateways": sorted(gateway for gateway in (mine["Gateway"], mine["IPv6Gateway"]) if gateway),
        "subnets": sorted(config["Subnet"] for config in network["IPAM"]["Config"]),
    }
    member = network["Containers"][identity]
    assert [member["IPv4Address"], member["IPv6Address"]] == [addresses[0], *(addresses[1:] or [""])]
    assert member["MacAddress"] == found["mac"]
    assert bool(found["gateways"]) is not network["Internal"]
    if network["Driver"] == "bridge":
        netlink = Netlink()
        try:
            bridge = netlink.link(f"br-{network['Id'][:12]}")
            assert bridge is not None
            here = {str(a.interface) for a in netlink.addresses() if a.index == bridge.index}
            assert {f"{c['Gateway']}/{c['Subnet'].partition('/')[2]}" for c in network["IPAM"]["Config"]} <= here
            subnets = {str(route.destination) for route in netlink.routes() if route.index == bridge.index}
            assert {c["Subnet"] for c in network["IPAM"]["Config"]} <= subnets
        finally:
            netlink.close()


@pytest.fixture
def relaying(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine that is told to leave published ports to the host's firewall."""
    engine = Daemon(
        scratch / "relay", bridge="ttrelay0", source=REPOSITORY / "src", arguments=["--publish-by", "relay"]
    )
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


def test_the_hosts_firewall_blocks_a_published_port_when_the_engine_is_told_so(
    relaying: Daemon, second: NetNamespace
) -> None:
    web(relaying.host, "server", "-p", "80")
    port = int(out(relaying.host, "port", "server", "80").splitlines()[0].rpartition(":")[2])
    for address in (HOST4, HOST6):
        assert fetched(entered(second), address, port), address
    nft = Nft()
    try:
        nft.run(
            "table inet ttfirewall {\nchain input {\ntype filter hook input priority 0; policy accept;\n"
            f'iifname "{UPLINK}" tcp dport {port} reject\n}}\n}}\n'
        )
        for address in (HOST4, HOST6):
            assert not fetched(entered(second), address, port), address
        assert fetched([], "127.0.0.1", port)  # the rule is about the other host
    finally:
        nft.run("table inet ttfirewall\ndelete table inet ttfirewall\n")
        nft.close()
    assert fetched(entered(second), HOST4, port)
    relaying.kill()
    relaying.start()
    assert fetched(entered(second), HOST4, port)  # carried again by the new engine
    assert "sctp is not carried" in docker(relaying.host, "run", "--rm", "-p", "80/sctp", "busybox", "true").stderr


def test_translated_ports_are_judged_in_the_forward_chain(engine_host: str, second: NetNamespace) -> None:
    """Without being told so: an input rule does not see them, a rule of the owner's at the forward hook does."""
    web(engine_host, "server", "-p", "80")
    port = int(out(engine_host, "port", "server", "80").splitlines()[0].rpartition(":")[2])
    nft = Nft()
    try:
        nft.run(
            "table inet ttfirewall {\nchain mine {\ntype filter hook forward priority -10; policy accept;\n"
            f'iifname "{UPLINK}" meta l4proto tcp ct original proto-dst {port} reject\n}}\n}}\n'
        )
        assert not fetched(entered(second), HOST4, port)
        assert fetched([], "127.0.0.1", port)
    finally:
        nft.run("table inet ttfirewall\ndelete table inet ttfirewall\n")
        nft.close()
    assert fetched(entered(second), HOST4, port)
