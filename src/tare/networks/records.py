"""What is stored about networks: their definitions (durable) and the leases of addresses (as long as the machine runs).

The primary key of `network_leases` is what keeps two containers from one address.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

import msgspec

from tare.base.errors import Conflict
from tare.networks import ipam

SCHEMA = """
CREATE TABLE IF NOT EXISTS networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    document BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS network_leases (
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    address BLOB NOT NULL,
    container_id TEXT NOT NULL,
    PRIMARY KEY (network_id, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS network_leases_by_container ON network_leases (container_id);
"""


BRIDGE_NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
MTU = "com.docker.network.driver.mtu"
TRUE_TEXTS = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE_TEXTS = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """One subnet of a network, in the texts Docker shows."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = {}


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network. `driver` is bridge, host or null; `bridge` the name of its link, "" without one."""

    id: str
    name: str
    driver: str
    created_at: int
    bridge: str = ""
    pools: tuple[Pool, ...] = ()
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    ipam_options: dict[str, str] = {}
    is_subnet_asked: bool = False
    owns_bridge: bool = True

    def is_on(self, option: str, *, default: bool = True) -> bool:
        """A boolean option of the driver, as Go's strconv.ParseBool reads it."""
        text = self.options.get(option)
        return default if text is None else text in TRUE_TEXTS

    @property
    def icc(self) -> bool:
        """Whether its containers may talk to each other."""
        return self.is_on(ICC)

    @property
    def masquerade(self) -> bool:
        """Whether its containers appear outside under the host's address."""
        return self.is_on(MASQUERADE)

    @property
    def mtu(self) -> int:
        """The size of the largest packet, in bytes; 0: what the engine uses."""
        return int(self.options.get(MTU) or 0)

    @property
    def host_binding(self) -> str:
        """The host's address at which ports are published where none is asked for."""
        return self.options.get(HOST_BINDING) or "0.0.0.0"

    @property
    def has_names(self) -> bool:
        """Whether the name server knows its containers: on networks made by users only (W84)."""
        return self.driver == "bridge" and not self.is_predefined

    @property
    def is_predefined(self) -> bool:
        """bridge, host and none cannot be removed."""
        return self.name in PREDEFINED

    @property
    def subnet(self) -> IPv4Network | None:
        """The first IPv4 subnet."""
        return IPv4Network(self.pools[0].subnet) if self.pools else None

    @property
    def gateway(self) -> IPv4Address | None:
        """The gateway of the first subnet."""
        return IPv4Address(self.pools[0].gateway) if self.pools and self.pools[0].gateway else None


PREDEFINED = frozenset({"bridge", "host", "none"})


def load(connection: sqlite3.Connection) -> list[NetworkRecord]:
    """Every network, oldest first."""
    rows = connection.execute("SELECT document FROM networks").fetchall()
    records = [msgspec.json.decode(row[0], type=NetworkRecord) for row in rows]
    return sorted(records, key=lambda record: (record.created_at, record.name))


def save(connection: sqlite3.Connection, record: NetworkRecord) -> None:
    """Insert or replace by id. Raises Conflict when another network has the name."""
    try:
        connection.execute(
            "INSERT INTO networks (id, name, document) VALUES (?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name, document = excluded.document",
            (record.id, record.name, msgspec.json.encode(record)),
        )
    except sqlite3.IntegrityError:
        raise Conflict(f"network with name {record.name} already exists") from None


def lease(
    connection: sqlite3.Connection,
    *,
    network_id: str,
    container_id: str,
    choose: Callable[[set[IPv4Address]], IPv4Address],
) -> IPv4Address:
    """Take an address: `choose` gets those leased and names one. The container's own old lease is given up first."""
    connection.execute(
        "DELETE FROM network_leases WHERE network_id = ? AND container_id = ?", (network_id, container_id)
    )
    rows = connection.execute("SELECT address FROM network_leases WHERE network_id = ?", (network_id,)).fetchall()
    address = choose({IPv4Address(row[0]) for row in rows})
    connection.execute(
        "INSERT INTO network_leases (network_id, address, container_id) VALUES (?, ?, ?)",
        (network_id, address.packed, container_id),
    )
    return address


def release(connection: sqlite3.Connection, container_id: str) -> None:
    """Give up every address of a container. Idempotent."""
    connection.execute("DELETE FROM network_leases WHERE container_id = ?", (container_id,))


def release_one(connection: sqlite3.Connection, *, network_id: str, container_id: str) -> None:
    """Give up a container's address on one network. Idempotent."""
    connection.execute(
        "DELETE FROM network_leases WHERE network_id = ? AND container_id = ?", (network_id, container_id)
    )


def delete(connection: sqlite3.Connection, network_id: str) -> None:
    """Forget a network and its leases. Idempotent."""
    connection.execute("DELETE FROM network_leases WHERE network_id = ?", (network_id,))
    connection.execute("DELETE FROM networks WHERE id = ?", (network_id,))


def replace_leases(connection: sqlite3.Connection, leases: list[tuple[str, IPv4Address, str]]) -> None:
    """After a restart: exactly these leases (network id, address, container id) hold. The first claim of two wins."""
    connection.execute("DELETE FROM network_leases")
    connection.executemany(
        "INSERT OR IGNORE INTO network_leases (network_id, address, container_id) "
        "SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM networks WHERE id = ?1)",
        [(network_id, address.packed, container_id) for network_id, address, container_id in leases],
    )


def leases(connection: sqlite3.Connection, network_id: str) -> dict[str, IPv4Address]:
    """Container id to address."""
    rows = connection.execute(
        "SELECT container_id, address FROM network_leases WHERE network_id = ?", (network_id,)
    ).fetchall()
    return {row[0]: IPv4Address(row[1]) for row in rows}


def lease_on(
    connection: sqlite3.Connection,
    *,
    network: NetworkRecord,
    container_id: str,
    wanted: IPv4Address | None,
) -> IPv4Address:
    """Lease `wanted`, or the lowest free address of the network. Raises Conflict, InvalidArgument."""
    subnet, pool = network.subnet, network.pools[0]
    assert subnet is not None
    reserved = {IPv4Address(text) for text in (pool.gateway, *pool.auxiliary.values()) if text}
    return lease(
        connection,
        network_id=network.id,
        container_id=container_id,
        choose=lambda leased: ipam.allocate(
            subnet,
            taken=leased | reserved,
            wanted=wanted,
            ip_range=IPv4Network(pool.ip_range) if pool.ip_range else None,
            network=network.name,
        ),
    )
