"""What somebody else takes away comes back; what drops elsewhere is passed. All in a namespace that plays the host.

Proves `networks/watching` and `drivers/network/watch` on real links and rules; the machine's own are never touched.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Interface, ip_address
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tare.base.errors import NotFound
from tare.base.ids import random_id
from tare.drivers.network.bridge import BridgeDriver
from tare.drivers.network.netlink import Link, Route
from tare.drivers.network.netns import Namespaces, NetNamespace
from tare.drivers.network.nft import Nft
from tare.drivers.network.watch import Watch
from tare.networks import records
from tare.networks.service import NetworkOptions, Networks, Wish
from tare.store.db import Database
from tare.wire.config import ContainerConfig, HostConfig, PortBinding
from tare.wire.networks import IPAM, IPAMConfig, NetworkCreate

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
SETTINGS = NetworkOptions(bridge="br-mend", bip="10.229.0.1/24", seed="tests")
WITHIN_S = 2.0


class Host:
    """A namespace with an engine's networks in it, one container plugged in, and a second host behind a veth."""

    def __init__(
        self, namespaces: Namespaces, namespace: NetNamespace, outer: NetNamespace, networks: Networks
    ) -> None:
        self.namespaces, self.namespace, self.outer, self.networks = namespaces, namespace, outer, networks
        self.container = ""
        self.inside: NetNamespace | None = None
        self.process: asyncio.subprocess.Process | None = None

    def nft(self, commands: str) -> str:
        def work() -> str:
            nft = Nft()
            try:
                return nft.run(commands)
            finally:
                nft.close()

        return self.namespaces.run(self.namespace.fd, work)

    def link(self, name: str) -> Link | None:
        return self.namespace.netlink.link(name)

    def end(self) -> Link:
        """The host's end of the container's interface."""
        return next(link for link in self.namespace.netlink.links() if link.kind == "veth" and link.name != "up0")

    async def plug(self, network: str = "bridge") -> None:
        """A process of its own keeps the container's namespace, as its first process does."""
        self.container = random_id()
        host = HostConfig(NetworkMode=network, PortBindings={"80/tcp": [PortBinding(HostIp="127.0.0.1", HostPort="")]})
        wish = Wish(container_id=self.container, name="box", config=ContainerConfig(Hostname="box"), host=host)
        attachment = await self.networks.attach(wish)
        assert attachment.path is not None
        self.process = await asyncio.create_subprocess_exec(
            "nsenter", f"--net={attachment.path}", "sh", "-c", "echo; exec sleep 600", stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        await self.process.stdout.readline()  # it is there now
        self.inside = self.namespaces.open(f"/proc/{self.process.pid}/ns/net")
        self.networks.handed_over(self.container, self.process.pid)

    def port(self) -> str:
        bindings = self.networks.attachment_of(self.container).ports["80/tcp"]
        assert bindings is not None
        return bindings[0].HostPort

    def pings(self, address: str, *, patience_s: int = 1) -> bool:
        assert self.inside is not None
        argv = ["/usr/bin/busybox", "ping", "-c", "1", "-W", str(patience_s), address]
        done = self.namespaces.run(self.inside.fd, lambda: subprocess.run(argv, capture_output=True, check=False))
        return done.returncode == 0

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Within the two seconds that are promised: looked at again whenever the kernel tells of a change."""
        watch = self.namespaces.run(self.namespace.fd, Watch)
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for each in watch.sockets:
            loop.add_reader(each.fileno(), told.set)
        try:
            async with asyncio.timeout(WITHIN_S):
                while True:
                    told.clear()
                    watch.read()
                    if is_so():
                        return
                    await told.wait()
        finally:
            for each in watch.sockets:
                loop.remove_reader(each.fileno())
            watch.close()

    async def close(self) -> None:
        if self.inside is not None:
            self.inside.close()
        if self.process is not None:
            self.process.kill()
            await self.process.wait()
        if self.container:
            await self.networks.detach(self.container)


Run = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    namespaces = Namespaces()
    host, outer = namespaces.create(), namespaces.create()
    host.netlink.create_veth(
        "up0", master=0, peer_name="eth0", peer_namespace_fd=outer.fd, peer_mac="02:42:00:00:00:88"
    )
    host.netlink.add_address(host.netlink.link("up0").index, IPv4Interface("10.230.0.1/24"))
    uplink = outer.netlink.link("eth0").index
    outer.netlink.add_address(uplink, IPv4Interface("10.230.0.2/24"))
    outer.netlink.set_up(uplink)

    def run(work: Callable[[Host], Awaitable[None]], **options: Any) -> None:
        async def main() -> None:
            database = Database(tmp_path / "state.db", [records.SCHEMA])
            networks = Networks(
                database=database, options=replace(SETTINGS, **options), driver=BridgeDriver(home=host.path)
            )
            playing = Host(namespaces, host, outer, networks)
            try:
                await networks.start()
                await work(playing)
            finally:
                await playing.close()
                await networks.close(remove=True)
                database.close()

        asyncio.run(main())

    yield run
    outer.close()
    host.close()
    namespaces.close()


def missing(host: Host, text: str) -> bool:
    try:
        return text not in host.nft("list table ip tare-br-mend")
    except NotFound:
        return True


def words(rules: str) -> list[str]:
    """Comparable: what is in a set is listed in any order."""
    return sorted(rules.replace(",", " ").split())


def test_flushed_rules_come_back_with_what_is_published(run: Run) -> None:
    async def work(host: Host) -> None:
        await host.plug()
        await host.networks.create(
            NetworkCreate(Name="user", EnableIPv6=True, IPAM=IPAM(Config=[IPAMConfig(Subnet="10.231.9.0/24")]))
        )
        element = f"tcp . {host.port()} : 10.229.0.2 . 80"
        assert element in host.nft("list ruleset")
        before = words(host.nft("list ruleset"))
        for commands in (
            "flush ruleset",
            "delete table ip tare-br-mend",
            "flush chain ip tare-br-mend forward",
            "table ip others {\n}\nflush ruleset",
        ):
            host.nft(commands)
            await host.until(lambda: words(host.nft("list ruleset")) == before)
        assert host.pings("10.229.0.1")

    run(work)


def test_a_port_published_while_the_rules_are_gone(run: Run) -> None:
    async def work(host: Host) -> None:
        host.nft("flush ruleset")
        await host.plug()  # at once, before anything is mended
        assert f"tcp . {host.port()} : 10.229.0.2 . 80" in host.nft("list ruleset")

    run(work)


def test_other_peoples_tables_are_left_alone(run: Run) -> None:
    async def work(host: Host) -> None:
        host.nft("table ip others {\nchain c {\n}\n}\n")
        others = host.nft("list table ip others")
        host.nft("flush chain ip tare-br-mend guard")
        await host.until(lambda: not missing(host, "127.0.0.0/8 iifname @bridges drop"))
        assert host.nft("list table ip others") == others

    run(work)


@pytest.mark.parametrize("lost", ["bridge", "end", "both"])
def test_lost_links_come_back(run: Run, lost: str) -> None:
    async def work(host: Host) -> None:
        await host.plug()
        assert host.pings("10.229.0.1")
        end = host.end().name
        if lost in ("end", "both"):
            host.namespace.netlink.delete_link(end)
        if lost in ("bridge", "both"):
            host.namespace.netlink.delete_link("br-mend")

        def is_whole() -> bool:
            bridge = host.link("br-mend")
            ends = [link for link in host.namespace.netlink.links() if link.kind == "veth" and link.name != "up0"]
            return bridge is not None and [link.master for link in ends] == [bridge.index]

        await host.until(is_whole)
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "mend networks"))
        assert host.pings("10.229.0.1", patience_s=3)
        element = f"tcp . {host.port()} : 10.229.0.2 . 80"
        await host.until(lambda: not missing(host, element))
        assert host.inside is not None
        assert (
            Route(
                destination=host.inside.netlink.routes()[0].destination,
                gateway=ip_address("10.229.0.1"),
                index=host.inside.netlink.link("eth0").index,
            )
            in host.inside.netlink.routes()
        )

    run(work)


@pytest.mark.parametrize(
    "firewall",
    [
        "table ip filter {\nchain FORWARD {\ntype filter hook forward priority filter; policy drop;\n}\n}\n",
        "table inet firewalld {\nchain filter_FORWARD {\ntype filter hook forward priority 10; policy accept;\n"
        "ct state established,related accept\nreject with icmpx admin-prohibited\n}\n}\n",
    ],
)
def test_a_firewall_that_drops_by_default_is_passed(run: Run, firewall: str) -> None:
    async def work(host: Host) -> None:
        await host.plug()
        assert host.pings("10.230.0.2")
        host.nft(firewall)  # the host's administrator switches it on while we run
        await host.until(lambda: 'comment "tare-br-mend"' in host.nft("list ruleset"))
        assert host.pings("10.230.0.2")
        chain = firewall.split()[1] + " " + firewall.split()[2] + " " + firewall.split()[5]
        host.nft(f"flush chain {chain}\n" + (f"add rule {chain} drop" if "inet" in chain else ""))
        await host.until(lambda: 'comment "tare-br-mend"' in host.nft("list ruleset"))
        assert host.pings("10.230.0.2")
        host.nft(f"insert rule {chain} ip daddr 10.230.0.2 drop")  # what its owner refuses by a rule stays refused
        assert not host.pings("10.230.0.2")

    run(work)


def test_a_firewall_is_left_alone_when_that_is_asked_for(run: Run) -> None:
    async def work(host: Host) -> None:
        host.nft("table ip filter {\nchain FORWARD {\ntype filter hook forward priority filter; policy drop;\n}\n}\n")
        before = host.nft("list table ip filter")
        await host.plug()
        assert not host.pings("10.230.0.2")
        assert host.nft("list table ip filter") == before
        assert "Chain ip filter FORWARD drops forwarded packets" in host.networks.warnings()[0]

    run(work, forward_accept=False)


def test_nothing_of_ours_stays_in_other_peoples_chains(run: Run) -> None:
    found: list[str] = []

    async def work(host: Host) -> None:
        host.nft("table ip filter {\nchain FORWARD {\ntype filter hook forward priority filter; policy drop;\n}\n}\n")
        created = await host.networks.create(
            NetworkCreate(Name="user", IPAM=IPAM(Config=[IPAMConfig(Subnet="10.231.9.0/24")]))
        )
        assert f'comment "tare-{created.bridge}"' in host.nft("list table ip filter")
        await host.networks.remove("user")
        found.append(host.nft("list table ip filter"))

    run(work)
    assert "br-" not in found[0].replace("br-mend", "")


def test_sockets_are_closed_with_the_networks(run: Run) -> None:
    async def work(_: Host) -> None:
        return

    before = len(os.listdir("/proc/self/fd"))
    run(work)
    with socket.socket() as probe:
        assert probe.fileno() >= 0
    assert len(os.listdir("/proc/self/fd")) <= before + 1
