"""The service over a real bridge in a namespace that plays the host."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from tare.base.errors import Conflict, NotFound
from tare.base.ids import random_id
from tare.drivers.network.bridge import BridgeDriver
from tare.drivers.network.netns import Namespaces
from tare.drivers.network.nft import Nft
from tare.networks import records
from tare.networks.plan import Mode
from tare.networks.service import NetworkOptions, Networks, RunningContainer, Wish
from tare.store.db import Database
from tare.wire.config import ContainerConfig, HostConfig

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
SETTINGS = NetworkOptions(bridge="br-test1", bip="10.214.0.1/29")


@pytest.fixture
def host():
    namespaces = Namespaces()
    namespace = namespaces.create()
    yield namespaces, namespace
    namespace.close()
    namespaces.close()


@pytest.fixture
def use(host, tmp_path):
    """Run a coroutine function with a started service; the database stays for the next."""

    def use(work, settings=SETTINGS, **close):
        async def main():
            database = Database(tmp_path / "state.db", [records.SCHEMA])
            news = []
            networks = Networks(
                database=database, options=settings, publish=news.append, driver=BridgeDriver(home=host[1].path)
            )
            try:
                await networks.start()
                return await work(networks, news)
            finally:
                await networks.close(**close)
                database.close()

        return asyncio.run(main())

    return use


def wish(mode="bridge", name="box", **more):
    config, host = ContainerConfig(Hostname="box"), HostConfig(NetworkMode=mode)
    return Wish(container_id=random_id(), name=name, config=config, host=host, **more)


async def attach(networks, mode="bridge", **more):
    asked = wish(mode, **more)
    return asked.container_id, await networks.attach(asked)


def links(host):
    return {link.name for link in host[1].netlink.links()}


def test_a_container_is_plugged_in_and_out(use, host):
    async def work(networks, news):
        identity, attachment = await attach(networks)
        endpoint = attachment.endpoints["bridge"]
        assert (endpoint.IPAddress, endpoint.IPPrefixLen, endpoint.Gateway) == ("10.214.0.2", 29, "10.214.0.1")
        assert endpoint.MacAddress == "02:42:0a:d6:00:02"
        fd = os.open(attachment.path, os.O_RDONLY)
        command = ["/usr/bin/busybox", "ping", "-c", "1", "-W", "1", "10.214.0.1"]
        reached = host[0].run(fd, lambda: subprocess.run(command, capture_output=True).returncode)
        os.close(fd)
        assert reached == 0
        [member] = networks.members(endpoint.NetworkID)
        assert (member.container_id, member.container_name) == (identity, "box")
        networks.renamed(identity, "other")
        assert networks.members(endpoint.NetworkID)[0].container_name == "other"
        texts = attachment.files
        assert texts.hosts.endswith("10.214.0.2\tbox\n")
        assert texts.resolv_conf.startswith("nameserver ")
        assert texts.hostname == "box\n"
        await networks.detach(identity)
        await networks.detach(identity)
        assert networks.members(endpoint.NetworkID) == []
        with pytest.raises(NotFound):
            networks.attachment_of(identity)
        return [(item.action, item.attributes["name"]) for item in news]

    assert use(work) == [("connect", "bridge"), ("disconnect", "bridge")]


def test_modes_without_a_link(use):
    async def work(networks, _):
        _, own = await attach(networks, "none")
        _, hosts = await attach(networks, "host")
        assert own.path is not None
        assert (hosts.mode, hosts.path) == (Mode.HOST, None)
        assert list(own.endpoints) == ["none"]
        assert list(hosts.endpoints) == ["host"]

    use(work)


def test_addresses_run_out_and_failures_leave_nothing(use, host):
    async def work(networks, _):
        got = [await attach(networks) for _ in range(5)]
        before = links(host)
        with pytest.raises(Conflict, match="no available IPv4 addresses"):
            await attach(networks)
        assert links(host) == before
        await networks.detach(got[2][0])
        _, again = await attach(networks)
        assert again.endpoints["bridge"].IPAddress == got[2][1].endpoints["bridge"].IPAddress

    use(work)


def test_many_at_once_get_different_addresses(use):
    async def work(networks, _):
        got = await asyncio.gather(*(attach(networks) for _ in range(5)))
        assert len({attachment.endpoints["bridge"].IPAddress for _, attachment in got}) == 5

    use(work)


def test_ids_survive_a_restart_and_running_containers_keep_their_address(use):
    asked = wish()

    async def first(networks, _):
        attachment = await networks.attach(asked)
        return [n.id for n in networks.list()], attachment.endpoints

    async def second(networks, _):
        await networks.restore([RunningContainer(wish=asked, pid=os.getpid(), endpoints=endpoints)])
        _, attachment = await attach(networks)
        assert attachment.endpoints["bridge"].IPAddress == "10.214.0.3"
        restored = networks.attachment_of(asked.container_id)
        assert restored.path == f"/proc/{os.getpid()}/ns/net"
        assert restored.files.hosts.endswith("10.214.0.2\tbox\n")
        await networks.detach(asked.container_id)
        return [n.id for n in networks.list()]

    ids, endpoints = use(first)
    assert use(second) == ids
    assert len(ids) == 3


def test_another_containers_network_is_joined(use):
    async def work(networks, _):
        with pytest.raises(Conflict, match="cannot join network of a non running container: x"):
            await attach(networks, "container:x", joined="x")
        first, owner = await attach(networks)
        _, joined = await attach(networks, "container:first", joined=first)
        assert (joined.mode, joined.path, joined.files) == (Mode.JOINED, owner.path, owner.files)
        assert joined.endpoints == {}
        networks.handed_over(first, os.getpid())
        networks.handed_over(first, os.getpid())
        _, later = await attach(networks, "container:first", joined=first)
        assert later.path == f"/proc/{os.getpid()}/ns/net"
        with pytest.raises(FileNotFoundError):
            os.stat(owner.path)
        await networks.detach(first)
        assert networks.members(networks.inspect("bridge").id) == []

    use(work)


def test_a_cancelled_attach_leaves_nothing(use, host):
    async def work(networks, _):
        before = set(asyncio.all_tasks())
        task = asyncio.ensure_future(attach(networks))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while rest := set(asyncio.all_tasks()) - before:
            await asyncio.wait(rest)
        assert networks.members(networks.inspect("bridge").id) == []
        _, attachment = await attach(networks)
        assert attachment.endpoints["bridge"].IPAddress == "10.214.0.2"

    use(work)


def test_closing_with_remove_leaves_the_host_as_it_was(use, host):
    before = links(host)

    async def work(networks, _):
        nft = host[0].run(host[1].fd, Nft)
        assert nft.tables() == {"tare-br-test1"}
        nft.close()
        assert host[0].run(host[1].fd, Path("/proc/sys/net/ipv4/ip_forward").read_text) == "1\n"

    use(work, remove=True)
    assert links(host) == before
    nft = host[0].run(host[1].fd, Nft)
    assert nft.tables() == set()
    nft.close()


def test_without_bip_a_free_subnet_is_found_and_kept(use, host):
    async def work(networks, _):
        return networks.inspect("bridge").pools[0].subnet

    settings = NetworkOptions(bridge="br-test1")
    subnet = use(work, settings, remove=True)
    assert subnet == use(work, settings) == "172.17.0.0/16"


def test_without_a_default_bridge(use):
    async def work(networks, _):
        assert [n.name for n in networks.list()] == ["host", "none"]
        with pytest.raises(NotFound, match="network bridge not found"):
            networks.plan(ContainerConfig(), HostConfig())

    use(work, NetworkOptions(bridge="none"))
