"""Definitions and leases in a real database."""

import sqlite3
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from tare.base.errors import Conflict, Forbidden
from tare.networks import ipam, records
from tare.networks.records import NetworkRecord, Pool

NETWORK = NetworkRecord(
    id="n" * 64, name="web", driver="bridge", created_at=2, pools=(Pool(subnet="10.0.0.0/29", gateway="10.0.0.1"),)
)


@pytest.fixture
def connection():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys=ON")
    connection.executescript(records.SCHEMA)
    records.save(connection, NETWORK)
    yield connection
    connection.close()


def lease(connection, container, network=NETWORK.id):
    return records.lease(
        connection,
        network_id=network,
        container_id=container,
        kind=IPv4Address,
        choose=lambda taken: ipam.allocate(IPv4Network("10.0.0.0/29"), taken=taken),
    )


def test_definitions_are_kept_whole_and_renewed_by_id(connection):
    assert records.load(connection) == [NETWORK]
    assert (NETWORK.subnet, NETWORK.gateway) == (IPv4Network("10.0.0.0/29"), IPv4Address("10.0.0.1"))
    older = NetworkRecord(id="o" * 64, name="bridge", driver="bridge", created_at=1)
    records.save(connection, older)
    records.save(connection, NetworkRecord(id=NETWORK.id, name="web2", driver="bridge", created_at=2))
    assert [network.name for network in records.load(connection)] == ["bridge", "web2"]
    with pytest.raises(Conflict, match="network with name bridge already exists"):
        records.save(connection, NetworkRecord(id="p" * 64, name="bridge", driver="bridge", created_at=3))


def test_leases_are_unique_given_up_and_given_again(connection):
    first, second = lease(connection, "a"), lease(connection, "b")
    assert (str(first), str(second)) == ("10.0.0.1", "10.0.0.2")
    assert lease(connection, "a") == first
    records.release(connection, "a")
    records.release(connection, "a")
    assert records.leases(connection, NETWORK.id) == {"b": [second]}
    assert lease(connection, "c") == first


def test_two_containers_cannot_have_one_address(connection):
    lease(connection, "a")
    with pytest.raises(sqlite3.IntegrityError):
        records.lease(
            connection,
            network_id=NETWORK.id,
            container_id="b",
            kind=IPv4Address,
            choose=lambda taken: IPv4Address("10.0.0.1"),
        )


def test_after_a_restart_only_what_runs_holds_anything(connection):
    lease(connection, "gone")
    claims = [(NETWORK.id, "10.0.0.5", "a"), (NETWORK.id, "10.0.0.5", "b"), ("unknown", "10.0.0.6", "c")]
    records.replace_leases(connection, [(n, IPv4Address(address), c) for n, address, c in claims])
    assert records.leases(connection, NETWORK.id) == {"a": [IPv4Address("10.0.0.5")]}


def test_a_lease_in_each_family(connection):
    both = NetworkRecord(
        id="m" * 64,
        name="dual",
        driver="bridge",
        created_at=2,
        pools=(Pool(subnet="10.1.0.0/29", gateway="10.1.0.1"), Pool(subnet="fd00::/64", gateway="fd00::1")),
    )
    records.save(connection, both)
    assert [str(a) for a in records.lease_on(connection, network=both, container_id="a")] == ["10.1.0.2", "fd00::2"]
    found = records.lease_on(connection, network=both, container_id="b", wanted6=IPv6Address("fd00::9"))
    assert [str(address) for address in found] == ["10.1.0.3", "fd00::9"]
    with pytest.raises(Forbidden, match="Address already in use"):
        records.lease_on(connection, network=both, container_id="c", wanted6=IPv6Address("fd00::9"))
