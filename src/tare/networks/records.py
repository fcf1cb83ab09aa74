"""What is stored about networks: their definitions (durable) and the leases of addresses (as long as the machine runs).

The primary key of `network_leases` is what keeps two containers from one address.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeVar

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
PARENT = "parent"
MACVLAN_MODE, IPVLAN_MODE, IPVLAN_FLAG = "macvlan_mode", "ipvlan_mode", "ipvlan_flag"
ON_LINKS = frozenset({"bridge", "macvlan", "ipvlan"})

Address = TypeVar("Address", IPv4Address, IPv6Address)
TRUE_TEXTS = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE_TEXTS = frozenset({"0", "f", "F", "false", "FALSE", "False"})


# Each start reads the subnets of all networks: they are parsed once.
_network4 = functools.lru_cache(maxsize=4096)(IPv4Network)
_network6 = functools.lru_cache(maxsize=4096)(IPv6Network)


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """One subnet of a network, in the texts Docker shows."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = {}


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network. `driver` is bridge, macvlan, ipvlan, host or null; `bridge` the name of its bridge, "" without one.

    `parent`: the host's link below a macvlan or ipvlan. `owns_bridge`: the bridge, or the parent, is ours to delete.
    """

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
    ipam_options: dict[str, str] | None = None  # as sent: none and an empty table are told apart
    is_subnet_asked: bool = False
    owns_bridge: bool = True
    ipv4: bool = True
    ipv6: bool = False
    parent: str = ""
    config_only: bool = False
    config_from: str = ""

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
        return self.has_links and not self.is_predefined

    @property
    def has_links(self) -> bool:
        """Whether its containers get an interface."""
        return self.driver in ON_LINKS and not self.config_only

    @property
    def is_predefined(self) -> bool:
        """bridge, host and none cannot be removed."""
        return self.name in PREDEFINED

    def pool(self, version: int) -> Pool | None:
        """The first subnet of a family (4, 6)."""
        return next((pool for pool in self.pools if (":" in pool.subnet) is (version == 6)), None)

    @property
    def subnet(self) -> IPv4Network | None:
        """The first IPv4 subnet."""
        pool = self.pool(4)
        return _network4(pool.subnet) if pool is not None else None

    @property
    def subnet6(self) -> IPv6Network | None:
        """The first IPv6 subnet."""
        pool = self.pool(6)
        return _network6(pool.subnet) if pool is not None else None

    @property
    def gateway(self) -> IPv4Address | None:
        """The gateway of the first IPv4 subnet."""
        pool = self.pool(4)
        return IPv4Address(pool.gateway) if pool is not None and pool.gateway else None

    @property
    def gateway6(self) -> IPv6Address | None:
        """The gateway of the first IPv6 subnet."""
        pool = self.pool(6)
        return IPv6Address(pool.gateway) if pool is not None and pool.gateway else None


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
    kind: type[Address],
    choose: Callable[[set[Address]], Address],
) -> Address:
    """Take an address: `choose` gets those of its kind that are leased and names one.

    The container's own old lease of that kind is given up first.
    """
    size = 4 if kind is IPv4Address else 16
    connection.execute(
        "DELETE FROM network_leases WHERE network_id = ? AND container_id = ? AND length(address) = ?",
        (network_id, container_id, size),
    )
    rows = connection.execute(
        "SELECT address FROM network_leases WHERE network_id = ? AND length(address) = ?", (network_id, size)
    ).fetchall()
    address = choose({kind(row[0]) for row in rows})
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


def replace_leases(connection: sqlite3.Connection, leases: list[tuple[str, IPv4Address | IPv6Address, str]]) -> None:
    """After a restart: exactly these leases (network id, address, container id) hold. The first claim of two wins."""
    connection.execute("DELETE FROM network_leases")
    connection.executemany(
        "INSERT OR IGNORE INTO network_leases (network_id, address, container_id) "
        "SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM networks WHERE id = ?1)",
        [(network_id, address.packed, container_id) for network_id, address, container_id in leases],
    )


def leases(connection: sqlite3.Connection, network_id: str) -> dict[str, list[IPv4Address | IPv6Address]]:
    """Container id to its addresses, IPv4 first."""
    rows = connection.execute(
        "SELECT container_id, address FROM network_leases WHERE network_id = ? ORDER BY length(address)", (network_id,)
    ).fetchall()
    found: dict[str, list[IPv4Address | IPv6Address]] = {}
    for container_id, packed in rows:
        found.setdefault(container_id, []).append(ip_address(packed))
    return found


def lease_on(
    connection: sqlite3.Connection,
    *,
    network: NetworkRecord,
    container_id: str,
    wanted: IPv4Address | None = None,
    wanted6: IPv6Address | None = None,
    has_ipv6: bool = True,
) -> tuple[IPv4Address | None, IPv6Address | None]:
    """Lease `wanted`, or the lowest free address, in each family the network has. Raises Conflict, InvalidArgument.

    has_ipv6: else the container has none.
    """
    address = address6 = None
    if (pool := network.pool(4)) is not None:
        address = _lease_in(connection, network, pool, container_id, wanted, IPv4Address, IPv4Network)
    if has_ipv6 and (pool := network.pool(6)) is not None:
        address6 = _lease_in(connection, network, pool, container_id, wanted6, IPv6Address, IPv6Network)
    return address, address6


def _lease_in(
    connection: sqlite3.Connection,
    network: NetworkRecord,
    pool: Pool,
    container_id: str,
    wanted: Address | None,
    kind: type[Address],
    network_kind: type[IPv4Network] | type[IPv6Network],
) -> Address:
    reserved = {kind(text) for text in (pool.gateway, *pool.auxiliary.values()) if text}

    def choose(leased: set[Address]) -> Address:
        found = ipam.allocate(
            network_kind(pool.subnet),
            taken=leased | reserved,
            wanted=wanted,
            ip_range=network_kind(pool.ip_range) if pool.ip_range else None,
            network=network.name,
        )
        return kind(found)

    return lease(connection, network_id=network.id, container_id=container_id, kind=kind, choose=choose)
