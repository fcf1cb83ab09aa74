"""What the service decides without touching the kernel; the rest is proved in tests/e2e/test_networks.py."""

import pytest

from tare.networks import texts
from tare.networks.plan import Mode
from tare.networks.service import NetworkOptions, Networks
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig


class NoKernel:
    """A driver that is never asked to do anything."""

    def forward_drops(self):
        return ["ip filter FORWARD"]


@pytest.fixture
def networks():
    return Networks(
        database=None, options=NetworkOptions(dns=("10.9.9.9",), host_gateway="10.8.8.8"), driver=NoKernel()
    )


def test_files_in_a_network_of_its_own(networks):
    host = HostConfig(ExtraHosts=["gw:host-gateway"], DnsSearch=["example.org"], DnsOptions=["ndots:2"])
    endpoints = {"bridge": EndpointSettings(IPAddress="172.17.0.2")}
    config = ContainerConfig(Hostname="box", Domainname="org")
    given = networks.file_texts(config, host, mode=Mode.OWN, endpoints=endpoints)
    assert given.hosts.endswith("10.8.8.8\tgw\n172.17.0.2\tbox.org box\n")
    assert given.resolv_conf == "nameserver 10.9.9.9\nsearch example.org\noptions ndots:2\n"
    assert given.hostname == "box\n"


def test_files_in_the_hosts_network(networks, tmp_path, monkeypatch):
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch here\n")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    monkeypatch.setattr(texts, "_HOST_RESOLVER", tmp_path / "resolv.conf")
    monkeypatch.setattr(texts, "_HOST_HOSTS", tmp_path / "hosts")
    host = HostConfig(ExtraHosts=["db:10.0.0.1"])
    given = networks.file_texts(ContainerConfig(Hostname="machine"), host, mode=Mode.HOST, endpoints={})
    assert given.resolv_conf == "nameserver 10.9.9.9\nsearch here\n"
    assert given.hosts == "127.0.0.1 localhost\n10.0.0.1\tdb\n"


def test_the_real_servers_behind_systemds_stub(networks, tmp_path, monkeypatch):
    (tmp_path / "stub").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "real").write_text("nameserver 10.7.7.7\n")
    monkeypatch.setattr(texts, "_HOST_RESOLVER", tmp_path / "stub")
    monkeypatch.setattr(texts, "_RESOLVED_RESOLVER", tmp_path / "real")
    plain = Networks(database=None, options=NetworkOptions(), driver=NoKernel())
    given = plain.file_texts(ContainerConfig(), HostConfig(), mode=Mode.OWN, endpoints={})
    assert given.resolv_conf == "nameserver 10.7.7.7\n"


def test_the_pools_of_info(networks):
    assert networks.pools()[0] == {"Base": "172.17.0.0/16", "Size": 16}


def test_it_says_what_stands_in_the_way(networks):
    assert networks.warnings() == []  # it is let through
    plain = Networks(database=None, options=NetworkOptions(forward_accept=False), driver=NoKernel())
    assert plain.warnings() == ["Chain ip filter FORWARD drops forwarded packets: its owner has to let tare0 through"]
    assert repr(networks) == "<Networks 0 networks, 0 containers, bridge tare0>"
