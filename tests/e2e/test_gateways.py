"""Gateway modes of bridge networks: who reaches which port, from where, and what is shown.

The engine lives in a namespace that plays a host of its own, so that its ruleset may be flushed; a second host behind a
veth has a route to all containers. Sources: moby's TestDirectRoutingOpenPorts, TestDisableNAT,
TestDirectRemoteAccessOnExposedPort. Proves `networks/gateways` and the modes of `drivers/network/nft`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from tare.drivers.network.netlink import Route
from tare.drivers.network.netns import Namespaces, NetNamespace
from tare.drivers.network.nft import Nft
from tare.testing.audit import findings, until
from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker, out

REPOSITORY = Path(__file__).resolve().parents[2]
HOST, SECOND = ("10.235.1.1", "fd5a:eb::1"), ("10.235.1.2", "fd5a:eb::2")
MODE4, MODE6 = (f"com.docker.network.bridge.gateway_mode_ipv{version}" for version in (4, 6))
PATIENCE_S, DROPPED_S = 5.0, 0.7
OWN_SYSFS = """mkdir -p {0}/cgroups
mount --rbind /sys/fs/cgroup {0}/cgroups
mount -t sysfs sysfs /sys
mount --rbind {0}/cgroups /sys/fs/cgroup
umount -l {0}/cgroups
echo ready
exec sleep infinity"""
"""/sys shows the links of the namespace it was mounted in; the engine's check of bridges reads there."""
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


class Site:
    """Two hosts: one with the engine, a second that knows the way to its containers. Networks are numbered."""

    def __init__(self, directory: Path) -> None:
        self.namespaces = Namespaces()
        self.host, self.second = self.namespaces.create(), self.namespaces.create()
        self.host.netlink.create_veth(
            "up0", master=0, peer_name="eth0", peer_namespace_fd=self.second.fd, peer_mac="02:42:00:00:00:91"
        )
        for namespace, name, addresses in ((self.host, "up0", HOST), (self.second, "eth0", SECOND)):
            link = namespace.netlink.link(name)
            assert link is not None
            self.namespaces.enable_ipv6(namespace.fd, name)
            namespace.netlink.set_up(link.index)
            namespace.netlink.add_address(link.index, IPv4Interface(f"{addresses[0]}/24"))
            namespace.netlink.add_address(link.index, IPv6Interface(f"{addresses[1]}/64"))
        for destination, gateway in (("10.234.0.0/16", HOST[0]), ("fd5a:ea::/32", HOST[1])):
            route = Route(destination=ip_network(destination), gateway=ip_address(gateway))
            self.second.netlink.add_route(route)
        self.holder = subprocess.Popen(
            ["nsenter", f"--net={self.host.path}", "unshare", "--mount", "sh", "-ec", OWN_SYSFS.format(directory)],
            stdout=subprocess.PIPE,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"ready\n"
        self.arguments: list[str] = ["--bip", "10.235.2.1/24", "--default-address-pool", "base=10.234.0.0/16,size=24"]
        self.engine = Daemon(
            directory, bridge="br-gate", source=REPOSITORY / "src", arguments=self.arguments,
            prefix=["nsenter", f"--net={self.host.path}", f"--mount=/proc/{self.holder.pid}/ns/mnt"],
        )  # fmt: skip
        self.opened = contextlib.ExitStack()

    def again(self, *arguments: str) -> None:
        """The engine is killed, and started with more arguments. Containers go on."""
        self.engine.kill()
        self.engine._arguments = [*self.arguments, *arguments]
        self.engine.start()

    def close(self) -> None:
        self.opened.close()
        self.holder.kill()
        self.holder.communicate()
        self.host.close()
        self.second.close()
        self.namespaces.close()

    # --- the engine

    def out(self, *argv: str) -> str:
        return out(self.engine.host, *argv)

    def network(self, name: str, number: int, *options: str) -> None:
        """Of both families."""
        subnets = ["--subnet", f"10.234.{number}.0/24", "--ipv6", "--subnet", f"fd5a:ea:{number}::/64"]
        self.out("network", "create", *subnets, *options, name)

    def run(self, name: str, network: str, *options: str) -> NetNamespace:
        self.out(
            "run", "-d", "--stop-timeout", "0", "--name", name, "--network", network, *options, "busybox",
            "sleep", "600",
        )  # fmt: skip
        return self.inside(name)

    def inside(self, name: str) -> NetNamespace:
        pid = self.out("inspect", "-f", "{{.State.Pid}}", name)
        found = self.namespaces.open(f"/proc/{pid}/ns/net")
        self.opened.callback(found.close)
        return found

    def addresses(self, name: str, network: str) -> tuple[str, str]:
        found = json.loads(self.out("inspect", "-f", "{{json .NetworkSettings.Networks}}", name))[network]
        return found["IPAddress"], found["GlobalIPv6Address"]

    def ports(self, name: str) -> Any:
        return json.loads(self.out("inspect", "-f", "{{json .NetworkSettings.Ports}}", name))

    def tare(self, *argv: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tare.cli", "-H", self.engine.host, *argv],
            capture_output=True,
            text=True,
            timeout=30,
            env={"PYTHONPATH": str(REPOSITORY / "src"), "PATH": "/usr/bin:/bin"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def nft(self, commands: str) -> str:
        def work() -> str:
            nft = Nft()
            try:
                return nft.run(commands)
            finally:
                nft.close()

        return self.namespaces.run(self.host.fd, work)

    # --- packets

    def made(self, namespace: NetNamespace, family: int, kind: int) -> socket.socket:
        made = self.namespaces.run(namespace.fd, lambda: socket.socket(family, kind))
        self.opened.callback(made.close)
        return made

    def listen(self, namespace: NetNamespace, *ports: int, kind: int = socket.SOCK_STREAM) -> list[socket.socket]:
        """Sockets of both families in a namespace: what connects to them is taken by the kernel."""
        made = []
        for port in ports:
            each = self.made(namespace, socket.AF_INET6, kind)
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            each.settimeout(PATIENCE_S)
            each.bind(("::", port))
            if kind == socket.SOCK_STREAM:
                each.listen(64)
            made.append(each)
        return made

    def client(self, namespace: NetNamespace, address: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
        return self.made(namespace, socket.AF_INET6 if ":" in address else socket.AF_INET, kind)

    def reached(self, namespace: NetNamespace, address: str, ports: Sequence[int]) -> list[int]:
        """Those ports that a connection opens; all are tried at once, so that one wait is enough for those that drop."""
        clients = []
        for port in ports:
            client = self.client(namespace, address)
            client.setblocking(False)
            client.connect_ex((address, port))
            clients.append(client)
        found = []
        for client, port in zip(clients, ports, strict=True):
            client.settimeout(DROPPED_S)
            try:
                client.connect((address, port))
                found.append(port)
            except (TimeoutError, BlockingIOError):
                pass
            except OSError as error:
                if error.errno == 106:  # it is connected: EISCONN
                    found.append(port)
            client.close()
        return found

    def pings(self, namespace: NetNamespace, address: str) -> bool:
        argv = ["nsenter", f"--net={namespace.path}", "busybox", "ping", "-c", "1", "-W", "1", address]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def datagram(self, sender: socket.socket, to: tuple[str, int], receiver: socket.socket, *, wait_s: float) -> bool:
        """Whether it arrives; it is answered then, so that there is a flow of both directions."""
        receiver.settimeout(wait_s)
        sender.settimeout(PATIENCE_S)
        sender.sendto(b"hello", to)
        try:
            receiver.sendto(b"answer", receiver.recvfrom(100)[1])
        except TimeoutError:
            return False
        return sender.recv(100) == b"answer"


@pytest.fixture(scope="module")
def hosts(scratch: Path, rootfs_tar: bytes) -> Iterator[Site]:
    site = Site(scratch / "gate")
    try:
        site.engine.start()
        try:
            site.engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]', "ENV PATH=/usr/bin:/bin"])
            yield site
        finally:
            site.engine.destroy()
    finally:
        site.close()


@pytest.fixture
def site(hosts: Site) -> Iterator[Site]:
    """Nothing is there; what is made goes, and the engine finds nothing wrong with it before and after that."""
    yield hosts
    hosts.opened.close()  # a namespace that is held keeps its interfaces
    found = findings(hosts.engine, quick=True)
    hosts.engine.clear()
    assert (found, findings(hosts.engine, quick=True)) == ([], [])
    assert not [
        line
        for line in hosts.nft("list ruleset").splitlines()
        if "elements" in line and ("10.234." in line or "fd5a:ea" in line)
    ]


def modes(mode4: str, mode6: str = "") -> list[str]:
    return [word for key, mode in ((MODE4, mode4), (MODE6, mode6 or mode4)) for word in ("-o", f"{key}={mode}")]


@pytest.mark.parametrize(
    ("mode", "outside", "beside", "is_pinged"),
    [("nat", [], [], (False, False)), ("nat-unprotected", [80, 81], [], (True, False)),
     ("routed", [80], [80], (True, True))],
)  # fmt: skip
def test_who_reaches_which_port(
    site: Site, mode: str, outside: list[int], beside: list[int], is_pinged: tuple[bool, bool]
) -> None:
    """80 is published, 81 is not; from another host, from a container of another network, and from the host."""
    site.network("here", 1, *modes(mode))
    site.network("there", 2)
    site.network("closed", 3, "--internal")
    server = site.run("server", "here", "-p", "8080:80")
    near, apart, shut = site.run("near", "here"), site.run("apart", "there"), site.run("shut", "closed")
    site.listen(server, 80, 81)
    for address in site.addresses("server", "here"):
        assert site.reached(near, address, [80, 81]) == [80, 81], address
        assert site.reached(site.host, address, [80, 81]) == [80, 81], address
        assert site.reached(site.second, address, [80, 81]) == outside, address
        assert site.reached(apart, address, [80, 81]) == beside, address
        assert (site.pings(site.second, address), site.pings(apart, address)) == is_pinged, address
        give_way(shut, address)
        assert site.reached(shut, address, [80, 81]) == []  # though it gave itself a way
    for address in HOST:
        wanted = [] if mode == "routed" else [8080]
        assert site.reached(site.second, address, [8080]) == wanted, address
    for address in site.addresses("apart", "there"):
        assert site.reached(server, address, [80]) == []  # the network beside has the mode it has
        assert not site.pings(server, address)
    assert "tare-br-gate" in site.nft("list ruleset")


def give_way(namespace: NetNamespace, address: str) -> None:
    """A default route by the bridge's address that an internal network does not hand out."""
    gateway = "fd5a:ea:3::1" if ":" in address else "10.234.3.1"
    destination = "::/0" if ":" in address else "0.0.0.0/0"
    namespace.netlink.add_route(Route(destination=ip_network(destination), gateway=ip_address(gateway)))


def test_the_engines_own_sockets_stay_closed_to_a_routed_network(site: Site) -> None:
    site.network("here", 1, *modes("routed"))
    server = site.run("server", "here", "-p", "80")
    site.again("-H", "tcp://0.0.0.0:2375", "--tls=false", "--insecure-tcp")
    try:
        assert site.reached(site.second, HOST[0], [2375]) == [2375]
        for address in (HOST[0], "10.234.1.1"):
            assert site.reached(server, address, [2375]) == []
    finally:
        site.again()


@pytest.mark.parametrize(
    ("mode4", "mode6", "number4", "number6"),
    [("nat", "nat", "8080", "8080"), ("nat", "routed", "8080", ""), ("routed", "nat", "", "8080"),
     ("routed", "nat-unprotected", "", "8080"), ("routed", "routed", "", "")],
)  # fmt: skip
def test_what_is_shown(site: Site, mode4: str, mode6: str, number4: str, number6: str) -> None:
    site.network("here", 1, *modes(mode4, mode6))
    server = site.run("server", "here", "-p", "8080:80")
    site.listen(server, 80)
    assert site.ports("server") == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": number4}, {"HostIp": "::", "HostPort": number6}]
    }
    lines = [f"80/tcp -> 0.0.0.0:{number4}", f"80/tcp -> [::]:{number6}"]
    assert site.out("port", "server").splitlines() == lines
    assert site.tare("port", "server").splitlines() == lines
    [listed] = site.engine.json("GET", "/containers/json")
    shown = {port["IP"]: port.get("PublicPort", 0) for port in listed["Ports"]}
    assert shown == {"0.0.0.0": int(number4 or 0), "::": int(number6 or 0)}
    options = json.loads(site.out("network", "inspect", "-f", "{{json .Options}}", "here"))
    assert options == {MODE4: mode4, MODE6: mode6}
    for address, number in zip(HOST, (number4, number6), strict=True):
        assert bool(site.reached(site.second, address, [8080])) is bool(number), address
    free = [number4, number6].count("")
    if free == 2:
        site.listen(site.host, 8080)  # nothing of the engine's has it
    answers = site.listen(site.second, 99, kind=socket.SOCK_DGRAM)[0]
    for address, mode, own, host in zip(
        SECOND, (mode4, mode6), site.addresses("server", "here"), HOST, strict=True
    ):  # who comes there
        sender = site.client(server, address, socket.SOCK_DGRAM)
        sender.sendto(b"hello", (address, 99))
        seen = answers.recvfrom(100)[1][0].removeprefix("::ffff:")
        assert seen == (own if mode == "routed" else host)


def test_addresses_and_numbers_of_the_host_mean_nothing_to_a_routed_network(site: Site) -> None:
    site.network("here", 1, *modes("routed"), "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1")
    options = [
        "-p",
        "80",
        "-p",
        f"{HOST[0]}:8081:81",
        "-p",
        "[fd99::1]:8082:82",
        "-p",
        "90/sctp",
        "-p",
        "127.0.0.1::53/udp",
    ]
    server = site.run("server", "here", *options)
    site.listen(server, 80, 81, 82)
    any4, any6 = {"HostIp": "0.0.0.0", "HostPort": ""}, {"HostIp": "::", "HostPort": ""}
    assert site.ports("server") == {
        "80/tcp": [any4], "81/tcp": [any4], "82/tcp": [any6], "90/sctp": [any4], "53/udp": [any4]
    }  # fmt: skip
    ip4, ip6 = site.addresses("server", "here")
    assert site.reached(site.second, ip4, [80, 81, 82]) == [80, 81]
    assert site.reached(site.second, ip6, [80, 81, 82]) == [82]
    [udp] = site.listen(server, 53, kind=socket.SOCK_DGRAM)
    sender = site.client(site.second, ip4, socket.SOCK_DGRAM)
    assert site.datagram(sender, (ip4, 53), udp, wait_s=PATIENCE_S)
    assert f"{ip4} . sctp . 90" in site.nft("list ruleset")
    site.out("network", "create", "--subnet", "10.234.4.0/24", "-o", f"{MODE4}=routed", "four")
    site.run("lone", "four", "-p", "8080:80")
    assert site.ports("lone") == {"80/tcp": [any4]}  # nothing is carried from [::]:8080 to an address that is routed


def test_refusals_in_mobys_words(site: Site) -> None:
    for options, text in (
        ([f"{MODE4}=sideways"], "unknown gateway mode sideways"),
        ([f"{MODE6}=isolated"], "gateway mode 'isolated' can only be used for an internal network"),
    ):
        argv = [word for option in options for word in ("-o", option)]
        refused = docker(site.engine.host, "network", "create", *argv, "no")
        assert (refused.returncode, text in refused.stderr) == (1, True), refused.stderr
    site.network("inner", 1, "--internal", *modes("routed"))
    server = site.run("server", "inner", "-p", "8080:80")
    site.listen(server, 80)
    assert site.ports("server") in ({}, {"80/tcp": None}, {"80/tcp": []})
    for address in site.addresses("server", "inner"):  # internal is internal
        assert (site.reached(site.second, address, [80]), site.pings(site.second, address)) == ([], False)


def test_ports_change_while_it_runs(site: Site) -> None:
    site.network("here", 1, *modes("routed"))
    server = site.run("server", "here", "-p", "8080:80")
    site.listen(server, 80, 81)
    ip4, ip6 = site.addresses("server", "here")
    assert site.tare("port", "add", "server", "9090:81", "8081:80").splitlines() == [
        "80/tcp -> 0.0.0.0:", "80/tcp -> 0.0.0.0:", "80/tcp -> [::]:", "80/tcp -> [::]:",
        "81/tcp -> 0.0.0.0:", "81/tcp -> [::]:",
    ]  # fmt: skip
    assert site.reached(site.second, ip6, [80, 81]) == [80, 81]
    assert findings(site.engine, quick=True) == []
    site.tare("port", "rm", "server", "8080:80")
    assert site.reached(site.second, ip4, [80, 81]) == [80, 81]  # 8081:80 is still there
    site.tare("port", "rm", "server", "80")
    assert site.reached(site.second, ip4, [80, 81]) == [81]
    assert site.ports("server") == {
        "80/tcp": None,  # -p exposed it
        "81/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}, {"HostIp": "::", "HostPort": ""}],
    }
    site.out("restart", "-t", "0", "server")
    site.listen(site.inside("server"), 80, 81)
    assert site.reached(site.second, site.addresses("server", "here")[0], [80, 81]) == [81]


def test_udp_flows_end_with_their_port(site: Site) -> None:
    """A client that never pauses would else go on reaching the port, and who has the address next."""
    site.network("here", 1, *modes("routed"))
    server = site.run("server", "here", "-p", "53/udp")
    [udp, other] = site.listen(server, 53, 54, kind=socket.SOCK_DGRAM)
    for address in site.addresses("server", "here"):
        sender = site.client(site.second, address, socket.SOCK_DGRAM)
        assert site.datagram(sender, (address, 53), udp, wait_s=PATIENCE_S)
        assert not site.datagram(sender, (address, 54), other, wait_s=DROPPED_S)
        site.tare("port", "rm", "server", "53/udp")
        assert not site.datagram(sender, (address, 53), udp, wait_s=DROPPED_S)
        site.tare("port", "add", "server", "53/udp")
        assert site.datagram(sender, (address, 53), udp, wait_s=PATIENCE_S)


def test_ports_follow_the_networks_of_a_running_container(site: Site) -> None:
    """The number that was asked for counts again as soon as a network translates."""
    site.network("here", 1, *modes("routed"))
    site.network("there", 2)
    server = site.run("server", "here", "-p", "8080:80")
    site.listen(server, 80)
    ip4, ip6 = site.addresses("server", "here")
    site.out("network", "disconnect", "here", "server")
    assert site.reached(site.second, ip4, [80]) == []
    site.out("network", "connect", "there", "server")
    both = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]}
    assert site.ports("server") == both
    for address in HOST:
        assert site.reached(site.second, address, [8080]) == [8080]
    for address in (ip4, ip6, *site.addresses("server", "there")):
        assert site.reached(site.second, address, [80]) == []
    site.out("network", "connect", "here", "server")  # by its name it carries the default route now
    assert site.ports("server")["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": ""}
    for address in site.addresses("server", "here"):
        assert site.reached(site.second, address, [80]) == [80]
    assert site.reached(site.second, HOST[0], [8080]) == []
    site.out("network", "disconnect", "here", "server")
    assert site.ports("server") == both


def test_rules_outlive_the_engine_and_come_back_when_they_are_flushed(site: Site) -> None:
    site.network("here", 1, *modes("routed"))
    site.network("open", 2, *modes("nat-unprotected"))
    servers = [site.run("one", "here", "-p", "80"), site.run("two", "open")]
    for server in servers:
        site.listen(server, 80, 81)
    wanted = {"one": [80], "two": [80, 81]}

    def holds() -> bool:
        return all(
            site.reached(site.second, address, [80, 81]) == wanted[name]
            for name, network in (("one", "here"), ("two", "open"))
            for address in site.addresses(name, network)
        )

    assert holds()
    before = words(site.nft("list ruleset"))
    site.engine.kill()
    for address in (f"10.234.{number}.2" for number in (1, 2)):
        assert 80 in site.reached(site.second, address, [80, 81])  # nobody is needed for that
    site.nft("flush ruleset")
    site.engine.start()
    assert holds()
    assert words(site.nft("list ruleset")) == before
    assert findings(site.engine, quick=True) == []
    for commands in ("flush ruleset", "flush set ip tare-br-gate opened\nflush chain ip tare-br-gate forward"):
        site.nft(commands)
        until("rules are back", lambda: words(site.nft("list ruleset")) == before, patience_s=2)
        assert holds()


def words(rules: str) -> list[str]:
    """Comparable: what is in a set is listed in any order."""
    return sorted(rules.replace(",", " ").split())


def test_a_missing_opening_is_found_and_a_stray_one_removed(site: Site) -> None:
    site.network("here", 1, *modes("routed"))
    site.run("server", "here", "-p", "80")
    ip4 = site.addresses("server", "here")[0]
    site.nft(f"delete element ip tare-br-gate opened {{ {ip4} . tcp . 80 }}")
    assert [line.split()[0] for line in findings(site.engine, quick=True, patience_s=0)] == ["published-missing"]
    site.nft(f"add element ip tare-br-gate opened {{ {ip4} . tcp . 80, {ip4} . tcp . 4444 }}")
    assert [line.split()[0] for line in findings(site.engine, quick=True, patience_s=0)] == ["published-orphan"]
    status, _ = site.engine.request("POST", "/tare/v1/check?quick=1&fix=1")
    assert status == 200
    assert "4444" not in site.nft("list ruleset")


def test_direct_routing_and_options_for_all_networks(site: Site) -> None:
    """Of a container that runs, too; the option's end closes what it opened."""
    site.network("here", 1)
    site.network("there", 2)
    server, apart = site.run("server", "here", "-p", "8080:80"), site.run("apart", "there")
    site.listen(server, 80, 81)
    ips = site.addresses("server", "here")

    def direct() -> list[list[int]]:
        return [site.reached(site.second, address, [80, 81]) for address in ips]

    assert direct() == [[], []]
    site.again("--allow-direct-routing", "--ip-forward-no-drop", "--default-network-opt", f"bridge={MODE4}=routed")
    try:
        assert direct() == [[80], [80]]
        assert [site.reached(apart, address, [80, 81]) for address in ips] == [[], []]  # another network of ours
        assert not site.pings(site.second, ips[0])
        assert site.reached(site.second, HOST[0], [8080]) == [8080]
        site.network("late", 3)
        site.network("told", 4, "-o", f"{MODE4}=nat")
        shown = [
            json.loads(site.out("network", "inspect", "-f", "{{json .Options}}", name)) for name in ("late", "told")
        ]
        assert shown == [{MODE4: "routed"}, {MODE4: "nat"}]
        site.listen(site.run("lately", "late", "-p", "8081:80"), 80)
        assert site.ports("lately")["80/tcp"] == [
            {"HostIp": "0.0.0.0", "HostPort": ""},
            {"HostIp": "::", "HostPort": "8081"},
        ]
        assert findings(site.engine, quick=True) == []
    finally:
        site.again()
    assert direct() == [[], []]
    assert site.reached(site.second, site.addresses("lately", "late")[0], [80]) == [80]  # its network is what it was


def test_without_rules_nothing_need_be_opened(site: Site) -> None:
    site.again("--iptables=false")
    try:
        site.nft("flush ruleset")
        site.network("here", 1, *modes("routed"))
        server = site.run("server", "here", "-p", "8080:80")
        site.listen(server, 80, 81)
        assert site.ports("server")["80/tcp"] == [{"HostIp": ip, "HostPort": ""} for ip in ("0.0.0.0", "::")]
        assert site.reached(site.second, site.addresses("server", "here")[0], [80, 81]) == [80, 81]
        site.tare("port", "rm", "server", "80")
        assert site.nft("list ruleset") == ""
        assert findings(site.engine, quick=True) == []
        site.engine.clear()
    finally:
        site.again()
