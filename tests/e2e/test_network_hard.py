"""Networks where it is hard: what is refused, 300 of them, a thousand changes, an engine killed in the middle of one.

Proves that nothing is left behind: links, entries of the packet filter, leases, descriptors. TARE_CHURN_ROUNDS=1000 is
the long form.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network, ip_network
from pathlib import Path
from typing import Any

import pytest

from tare.drivers.network.netlink import Netlink, Route
from tare.drivers.network.netns import Namespaces
from tare.drivers.network.nft import Nft
from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker, out

REPOSITORY = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("TARE_CHURN_ROUNDS", "100"))
POOLS = ("10.240.0.0/20", "10.241.0.0/23", "10.241.2.0/25", "10.241.3.0/26")  # 256 + 32 + 8 + 4 subnets of /28
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


@pytest.fixture
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine that may be killed, with room for 300 networks."""
    pools = [word for base in POOLS for word in ("--default-address-pool", f"base={base},size=28")]
    engine = Daemon(
        scratch / "nethard", bridge="tthard0", source=REPOSITORY / "src", arguments=["--bip", "10.239.0.1/24", *pools]
    )
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


def sleeper(host: str, name: str, *options: str) -> str:
    return out(host, "run", "-d", "--stop-timeout", "0", "--name", name, *options, "busybox", "sleep", "600")


def create(engine: Daemon, name: str, subnet: str = "") -> tuple[int, str]:
    body: dict[str, Any] = {"Name": name}
    if subnet:
        body["IPAM"] = {"Config": [{"Subnet": subnet}]}
    return ask(engine, "/networks/create", body)


def ask(engine: Daemon, path: str, body: object) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"}
    status, answer = engine.request("POST", path, body=json.dumps(body).encode(), headers=headers)
    return status, answer.decode()


def holdings(engine: Daemon) -> dict[str, Any]:
    """What the machine and the engine hold for networks now."""
    nft = Nft()
    try:
        text = nft.run(f"list table ip tare-{engine.bridge}\n") + nft.run(f"list table ip6 tare-{engine.bridge}\n")
    finally:
        nft.close()
    with sqlite3.connect(f"file:{engine.data_root / 'state.db'}?mode=ro", uri=True) as records:
        leases = sorted(records.execute("SELECT network_id, hex(address) FROM network_leases"))
    records.close()
    return {
        "links": sorted(name for name in os.listdir("/sys/class/net") if _is_on(name, engine) or name == engine.bridge),
        "rules": sorted(re.findall(r"[^\s,{}=]+", text)),
        "leases": leases,
    }


def _is_on(name: str, engine: Daemon) -> bool:
    """Whether a link hangs on a bridge that this engine knows."""
    bridges = {engine.bridge} | {f"br-{entry['Id'][:12]}" for entry in engine.json("GET", "/networks")}
    try:
        master = os.readlink(f"/sys/class/net/{name}/master")
    except OSError:
        return name in bridges
    return os.path.basename(master) in bridges


def within(engine: Daemon, wanted: dict[str, Any], patience_s: float = 5.0) -> None:
    """The kernel tells of links that go: looked at again with each news, for a time."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as news:
        news.bind((0, 1))
        deadline = time.monotonic() + patience_s
        while (found := holdings(engine)) != wanted:
            assert time.monotonic() < deadline, (found, wanted)
            select.select([news], [], [], 0.1)


def inside(host: str, name: str) -> dict[str, str]:
    """The interfaces of a running container, by name, with their macs, as the kernel has them."""
    pid = out(host, "inspect", "-f", "{{.State.Pid}}", name)
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-j", "link"], capture_output=True, text=True, check=True
    )
    return {link["ifname"]: link["address"] for link in json.loads(done.stdout) if link["ifname"] != "lo"}


def endpoints(host: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out(host, "inspect", "-f", "{{json .NetworkSettings.Networks}}", name))
    return found


def test_statuses_and_texts_are_dockers(own: Daemon) -> None:
    """Each measured with dockerd 20.10, but for disconnecting twice (there 500, since API 1.44 a client's mistake)."""
    assert create(own, "one", "10.238.0.0/24")[0] == 201
    status, text = create(own, "two", "10.238.0.128/25")
    assert (status, "Pool overlaps with other one on this address space" in text) == (403, True)
    sleeper(own.host, "box", "--network", "one", "--ip", "10.238.0.9")
    other = own.json("POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "9"]}, expect=201)["Id"]
    asked = {"Container": other, "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.238.0.9"}}}
    assert ask(own, "/networks/one/connect", asked)[0] == 200  # it does not run yet
    status, text = ask(own, f"/containers/{other}/start", None)
    assert (status, "Address already in use" in text) == (403, True)
    status, text = own.request("DELETE", "/networks/one")[0], own.request("DELETE", "/networks/one")[1].decode()
    assert (status, "has active endpoints" in text) == (403, True)
    assert ask(own, "/networks/one/disconnect", {"Container": "box"})[0] == 200
    status, text = ask(own, "/networks/one/disconnect", {"Container": "box"})
    assert (status, "is not connected to the network one" in text) == (403, True)
    status, text = ask(own, "/networks/nowhere/disconnect", {"Container": "box"})
    assert (status, "network nowhere not found" in text) == (404, True)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        done = docker(own.host, "run", "--rm", "-p", f"{port}:80", "busybox", "true")
        assert done.returncode == 125
        assert f"failed to bind host port for 0.0.0.0:{port}" in done.stderr
        assert "address already in use" in done.stderr


def test_subnets_that_the_host_routes_are_not_chosen(own: Daemon) -> None:
    """As with Docker, they are taken when somebody asks for one by name."""
    with Guest("tthardp0", "10.240.0.5/28") as netlink:
        link = netlink.link("tthardp0")
        assert link is not None
        netlink.add_route(Route(destination=ip_network("10.240.0.16/28"), index=link.index))
        out(own.host, "network", "create", "chosen")
        [config] = json.loads(out(own.host, "network", "inspect", "chosen"))[0]["IPAM"]["Config"]
        assert config["Subnet"] == "10.240.0.32/28"
        assert create(own, "named", "10.240.0.16/28")[0] == 201


class Guest:
    """A link of the host's own with an address, up as long as the block runs."""

    def __init__(self, name: str, address: str) -> None:
        self._name, self._address = name, address

    def __enter__(self) -> Netlink:
        self._namespaces = Namespaces()
        self._namespace = self._namespaces.create()
        self._netlink = Netlink()
        self._netlink.create_veth(
            self._name, master=0, peer_name="eth0", peer_namespace_fd=self._namespace.fd, peer_mac="02:42:00:00:00:61"
        )
        link, peer = self._netlink.link(self._name), self._namespace.netlink.link("eth0")
        assert link is not None
        assert peer is not None
        self._namespace.netlink.set_up(peer.index)
        self._netlink.add_address(link.index, IPv4Interface(self._address))
        return self._netlink

    def __exit__(self, *_: object) -> None:
        self._netlink.delete_link(self._name)
        self._netlink.close()
        self._namespace.close()
        self._namespaces.close()


def test_three_hundred_networks_and_not_one_more(own: Daemon) -> None:
    before = holdings(own)
    started = time.monotonic()
    for number in range(300):
        assert create(own, f"n{number}")[0] == 201
    assert time.monotonic() - started < 30
    status, text = create(own, "n300")
    assert (status, "could not find an available, non-overlapping IPv4 address pool" in text) == (404, True)
    assert "--default-address-pool" in text
    subnets = [
        IPv4Network(entry["IPAM"]["Config"][0]["Subnet"])
        for entry in own.json("GET", "/networks")
        if entry["Name"].startswith("n") and entry["Name"] != "none"
    ]
    assert len(set(subnets)) == 300
    sleeper(own.host, "last", "--network", "n299")
    assert "0% packet loss" in out(own.host, "run", "--rm", "--network", "n299", "busybox", "ping", "-c1", "last")
    out(own.host, "rm", "-f", "last")
    assert len(json.loads(own.request("POST", "/networks/prune")[1])["NetworksDeleted"]) == 300
    within(own, before)
    assert create(own, "again")[0] == 201


def test_connecting_and_disconnecting_leaves_nothing(own: Daemon) -> None:
    create(own, "one", "10.238.1.0/24")
    sleeper(own.host, "box", "-p", "127.0.0.1::80")
    for word in ("connect", "disconnect"):  # what is made once is made now
        assert ask(own, f"/networks/one/{word}", {"Container": "box"})[0] == 200
    before = holdings(own)
    descriptors = len(os.listdir(f"/proc/{own.pid}/fd"))
    for _ in range(ROUNDS):
        for word in ("connect", "disconnect"):
            status, text = ask(own, f"/networks/one/{word}", {"Container": "box"})
            assert status == 200, text
    within(own, before)
    deadline = time.monotonic() + 5  # interfaces are deleted after the answer
    while (now := len(os.listdir(f"/proc/{own.pid}/fd"))) > descriptors + 1:
        assert time.monotonic() < deadline, f"{now} descriptors, {descriptors} before"
        assert own.request("GET", "/_ping")[0] == 200
    assert sorted(inside(own.host, "box")) == ["eth0"]
    assert ask(own, "/networks/one/connect", {"Container": "box"})[0] == 200
    assert docker(own.host, "exec", "box", "ping", "-c", "1", "-W", "2", "10.238.1.1").returncode == 0


@pytest.mark.parametrize("word", ["connect", "disconnect"])
def test_an_engine_killed_in_the_middle_mends_itself(own: Daemon, word: str) -> None:
    create(own, "aaa", "10.238.2.0/24")  # sorts first: it takes the default route with it
    sleeper(own.host, "box", "-p", "127.0.0.1::80")
    for wait_ms in (0, 1, 2, 4, 8):
        if (word == "disconnect") is ("aaa" not in endpoints(own.host, "box")):
            opposite = "connect" if word == "disconnect" else "disconnect"
            assert ask(own, f"/networks/aaa/{opposite}", {"Container": "box"})[0] == 200
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(own.socket))
            body = json.dumps({"Container": "box"})
            connection.sendall(
                f"POST /networks/aaa/{word} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            select.select([connection], [], [], wait_ms / 1000)  # until it answers, or this long
            own.kill()
        own.start()
        plugged = endpoints(own.host, "box")
        assert sorted(e["MacAddress"] for e in plugged.values()) == sorted(inside(own.host, "box").values()), (
            own.log.read_text()
        )
        assert len(holdings(own)["leases"]) == len(plugged)
        for endpoint in plugged.values():
            assert docker(own.host, "exec", "box", "ping", "-c1", "-W2", endpoint["Gateway"]).returncode == 0
        gateway = plugged[min(plugged)]["Gateway"]
        assert f"default via {gateway} " in out(own.host, "exec", "box", "ip", "route")


def test_a_name_server_that_is_silent_or_flooded_harms_nobody_else(own: Daemon) -> None:
    """A question to the outside is answered with a failure in the end; names of containers at once, all the time."""
    create(own, "net", "10.238.3.0/24")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.77", 53))
        sleeper(own.host, "flooder", "--network", "net", "--dns", "127.0.0.77")
        sleeper(own.host, "calm", "--network", "net", "--dns", "127.0.0.77")
        pid = int(out(own.host, "inspect", "-f", "{{.State.Pid}}", "flooder"))
        namespaces = Namespaces()
        namespace = namespaces.open(f"/proc/{pid}/ns/net")
        try:
            asker = namespaces.run(namespace.fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with asker:
                asker.settimeout(30)
                asker.connect(("127.0.0.11", 53))
                asker.send(question(0, "www.example.org"))
                for number in range(1, 5000):
                    asker.send(question(number, "www.example.org"))
                started = time.monotonic()
                assert "10.238.3.2" in out(own.host, "exec", "calm", "nslookup", "-type=a", "flooder", "127.0.0.11")
                assert own.request("GET", "/_ping")[0] == 200
                assert time.monotonic() - started < 5
                answer = asker.recv(512)
                assert answer[3] & 0xF == 2  # SERVFAIL: too many are under way, or nobody answered
        finally:
            namespace.close()
            namespaces.close()


def question(number: int, name: str) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return number.to_bytes(2, "big") + b"\x01\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"
