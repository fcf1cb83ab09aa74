"""IPv6 and dual stack through the stock docker command line: addresses, names, published ports, the way out.

Proves `networks/relay`, `networks/plugging` and `networks/wiring` on a real engine.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Interface, IPv6Network, ip_address
from pathlib import Path
from typing import Any

import pytest

from tare.drivers.network.bridge import BridgeDriver, Plug
from tare.drivers.network.netns import Namespaces
from tare.drivers.network.nft import BridgeRules
from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker, out

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
    pytest.mark.skipif(not os.path.isdir("/proc/sys/net/ipv6"), reason="this kernel has no IPv6"),
]
SUBNET = "fd5a:7::/64"
WEB = "mkdir -p /tmp/w; echo hello > /tmp/w/index.html; exec busybox httpd -f -p 80 -h /tmp/w"
READY = "until wget -qO- http://127.0.0.1/; do :; done"


def sleeper(host: str, name: str, *options: str) -> str:
    return out(host, "run", "-d", "--stop-timeout", "0", "--name", name, *options, "busybox", "sleep", "600")


def web(host: str, name: str, *options: str) -> None:
    out(host, "run", "-d", "--stop-timeout", "0", "--name", name, *options, "busybox", "sh", "-c", WEB)
    assert "hello" in docker(host, "exec", name, "sh", "-c", READY, timeout=20).stdout


def endpoint(host: str, container: str, name: str) -> dict[str, Any]:
    text = out(host, "inspect", "-f", "{{json .NetworkSettings.Networks}}", container)
    found: dict[str, Any] = json.loads(text)[name]
    return found


def reaches(host: str, name: str, address: str) -> bool:
    return docker(host, "exec", name, "ping", "-6", "-c", "1", "-W", "2", address).returncode == 0


def page(address: str, port: int) -> bytes:
    """What the host gets, with the container's view of the connection left to the container."""
    with socket.create_connection((address, port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    return answer


def published(host: str, name: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(out(host, "inspect", "-f", "{{json .NetworkSettings.Ports}}", name))[
        "80/tcp"
    ]
    return found


@pytest.fixture
def dual(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine whose default bridge has both families."""
    engine = Daemon(
        scratch / "sixown", bridge="ttsix0", source=REPOSITORY / "src",
        arguments=["--ipv6", "--fixed-cidr-v6", "fd5a:6::/64"],
    )  # fmt: skip
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


def test_addresses_names_and_neighbours(engine_host: str) -> None:
    out(
        engine_host, "network", "create", "--ipv6", "--subnet", "10.224.0.0/24", "--subnet", SUBNET,
        "--gateway", "fd5a:7::ff", "--ip-range", "fd5a:7:0:0:8000::/66", "two",
    )  # fmt: skip
    [found] = json.loads(out(engine_host, "network", "inspect", "two"))
    assert found["EnableIPv6"] is True
    config = {"Subnet": SUBNET, "Gateway": "fd5a:7::ff", "IPRange": "fd5a:7:0:0:8000::/66"}
    assert found["IPAM"]["Config"][1] == config
    identity = sleeper(engine_host, "aa", "--network", "two", "--hostname", "ah")
    sleeper(
        engine_host, "bb", "--network", "two", "--ip", "10.224.0.77", "--ip6", "fd5a:7::77", "--network-alias", "bee"
    )
    first, second = endpoint(engine_host, "aa", "two"), endpoint(engine_host, "bb", "two")
    assert first["IPv6Gateway"] == "fd5a:7::ff"
    assert first["GlobalIPv6PrefixLen"] == 64
    assert (second["IPAddress"], second["GlobalIPv6Address"]) == ("10.224.0.77", "fd5a:7::77")
    member = json.loads(out(engine_host, "network", "inspect", "two"))[0]["Containers"][identity]
    assert member["IPv6Address"] == f"{first['GlobalIPv6Address']}/64"
    assert f"{first['GlobalIPv6Address']}\tah" in out(engine_host, "exec", "aa", "cat", "/etc/hosts")
    assert reaches(engine_host, "aa", "fd5a:7::77")
    assert reaches(engine_host, "aa", "fd5a:7::ff")
    looked = out(engine_host, "exec", "aa", "nslookup", "-type=aaaa", "bee", "127.0.0.11")
    assert "fd5a:7::77" in looked
    back = out(engine_host, "exec", "aa", "nslookup", "fd5a:7::77", "127.0.0.11")
    assert "bb.two" in back
    taken = docker(engine_host, "run", "--network", "two", "--ip6", "fd5a:7::77", "busybox", "true")
    assert "Address already in use" in taken.stderr
    outside = docker(engine_host, "run", "--network", "two", "--ip6", "fd5b::1", "busybox", "true")
    assert "no configured subnet contains IP address fd5b::1" in outside.stderr


def test_connected_while_it_runs_and_cut_off(engine_host: str) -> None:
    out(engine_host, "network", "create", "four")
    out(engine_host, "network", "create", "--ipv6", "six")
    sleeper(engine_host, "box", "--network", "four")
    sleeper(engine_host, "other", "--network", "six")
    address = endpoint(engine_host, "other", "six")["GlobalIPv6Address"]
    assert ip_address(address).is_private
    assert not reaches(engine_host, "box", address)
    out(engine_host, "network", "connect", "six", "box")
    assert reaches(engine_host, "box", address)
    assert "default via" in out(engine_host, "exec", "box", "ip", "-6", "route")
    assert "inet6 fe80" not in out(engine_host, "exec", "box", "ip", "addr", "show", "eth0")
    out(engine_host, "network", "disconnect", "six", "box")
    assert "default via" not in out(engine_host, "exec", "box", "ip", "-6", "route")
    out(engine_host, "restart", "-t", "0", "other")
    assert endpoint(engine_host, "other", "six")["GlobalIPv6Address"] == address


def test_only_ipv6(engine_host: str) -> None:
    out(engine_host, "network", "create", "--ipv4=false", "--ipv6", "--subnet", SUBNET, "only")
    sleeper(engine_host, "box", "--network", "only")
    mine = endpoint(engine_host, "box", "only")
    assert (mine["IPAddress"], mine["GlobalIPv6Address"]) == ("", "fd5a:7::2")
    assert reaches(engine_host, "box", "fd5a:7::1")
    web(engine_host, "server", "--network", "only", "-p", "80")
    ports = published(engine_host, "server")
    assert [entry["HostIp"] for entry in ports] == ["0.0.0.0", "::"]
    assert b"hello" in page("127.0.0.1", int(ports[0]["HostPort"]))
    assert b"hello" in page("fd5a:7::1", int(ports[0]["HostPort"]))


def test_published_by_every_address_of_both_families(engine_host: str) -> None:
    out(engine_host, "network", "create", "--ipv6", "--subnet", SUBNET, "dual")
    web(engine_host, "server", "--network", "dual", "-p", "80", "-p", "[::1]::80")
    sleeper(engine_host, "neighbour", "--network", "dual")
    entries = published(engine_host, "server")
    assert sorted(entry["HostIp"] for entry in entries) == ["0.0.0.0", "::", "::1"]
    everywhere = int(next(entry["HostPort"] for entry in entries if entry["HostIp"] == "::"))
    assert everywhere == int(next(entry["HostPort"] for entry in entries if entry["HostIp"] == "0.0.0.0"))
    for address in ("127.0.0.1", "::1", "fd5a:7::1"):
        assert b"hello" in page(address, everywhere), address
    alone = int(next(entry["HostPort"] for entry in entries if entry["HostIp"] == "::1"))
    assert b"hello" in page("::1", alone)
    with pytest.raises(OSError, match="refused"):
        page("fd5a:7::1", alone)
    script = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 fd5a:7::1 {everywhere}"
    for who in ("neighbour", "server"):
        assert "hello" in docker(engine_host, "exec", who, "sh", "-c", script).stdout, who
    assert f"[::]:{everywhere}" in out(engine_host, "port", "server", "80")
    taken = docker(engine_host, "run", "-p", f"[::]:{everywhere}:80", "busybox", "true")
    assert f"Bind for [::]:{everywhere} failed: port is already allocated" in taken.stderr
    out(engine_host, "rm", "-f", "server")
    for address in ("127.0.0.1", "::1", "fd5a:7::1"):
        with pytest.raises(OSError, match="refused"):
            page(address, everywhere)


def test_datagrams_reach_a_container_without_ipv6(engine_host: str) -> None:
    sleeper(engine_host, "echo", "-p", "7/udp")
    ports = json.loads(out(engine_host, "inspect", "-f", "{{json .NetworkSettings.Ports}}", "echo"))["7/udp"]
    namespaces = Namespaces()
    inside = namespaces.open(f"/proc/{out(engine_host, 'inspect', '-f', '{{.State.Pid}}', 'echo')}/ns/net")
    server = namespaces.run(inside.fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        server.bind(("0.0.0.0", 7))
        client.connect(("::1", int(ports[1]["HostPort"])))
        for each in (server, client):
            each.settimeout(5)
        client.send(b"ping")
        data, sender = server.recvfrom(100)
        server.sendto(data.upper(), sender)
        assert client.recv(100) == b"PING"
    finally:
        server.close()
        client.close()
        inside.close()
        namespaces.close()


def test_the_default_bridge_with_both_families(dual: Daemon) -> None:
    sleeper(dual.host, "box", "-p", "80")
    mine = endpoint(dual.host, "box", "bridge")
    assert (mine["GlobalIPv6Address"], mine["IPv6Gateway"]) == ("fd5a:6::2", "fd5a:6::1")
    assert reaches(dual.host, "box", "fd5a:6::1")
    dual.kill()
    dual.start()
    assert endpoint(dual.host, "box", "bridge") == mine
    sleeper(dual.host, "next")
    assert endpoint(dual.host, "next", "bridge")["GlobalIPv6Address"] == "fd5a:6::3"


def test_the_way_out_is_translated() -> None:
    """container -> bridge -> "host" -> an outer namespace that knows no route back: only NAT lets it answer."""
    namespaces = Namespaces()
    host, outer = namespaces.create(), namespaces.create()
    driver = BridgeDriver(home=host.path)
    try:
        driver.ensure_bridge("br-six", IPv6Interface("fd5a:8::1/64"))
        driver.enable_forwarding(ipv6=True)
        driver.apply_rules(
            BridgeRules(bridge="br-six", subnet=IPv4Network("10.225.0.0/24"), subnet6=IPv6Network("fd5a:8::/64"))
        )
        host.netlink.create_veth(
            "up0", master=0, peer_name="eth0", peer_namespace_fd=outer.fd, peer_mac="02:42:00:00:00:99"
        )
        namespaces.enable_ipv6(host.fd, "up0")
        namespaces.enable_ipv6(outer.fd, "eth0")
        host.netlink.add_address(host.netlink.link("up0").index, IPv6Interface("fd5a:9::1/64"))
        outer.netlink.add_address(outer.netlink.link("eth0").index, IPv6Interface("fd5a:9::2/64"))
        outer.netlink.set_up(outer.netlink.link("eth0").index)
        inside = driver.namespace()
        plug = Plug(
            bridge="br-six",
            interface="eth0",
            mac="02:42:00:00:00:98",
            addresses=(IPv6Interface("fd5a:8::2/64"),),
            gateways=(ip_address("fd5a:8::1"),),
        )
        driver.plug(inside, plug)
        command = ["/usr/bin/busybox", "ping", "-6", "-c", "1", "-W", "3", "fd5a:9::2"]
        done = namespaces.run(inside.fd, lambda: subprocess.run(command, capture_output=True, check=False))
        assert done.returncode == 0, done.stdout
        inside.close()
    finally:
        driver.close()
        outer.close()
        host.close()
        namespaces.close()
