"""The kernel's side of networks: from a record to the bridge, the parent link and the rules it stands for."""

from __future__ import annotations

import hashlib
import ipaddress
import logging

import msgspec

from tare.base import clock
from tare.base.errors import InvalidArgument
from tare.base.ids import random_id
from tare.drivers.network.bridge import MARK, BridgeDriver
from tare.drivers.network.nft import BridgeRules
from tare.networks import gateways, ipam, parents, records
from tare.networks.attachment import NetworkOptions
from tare.networks.records import NetworkRecord, Pool

log = logging.getLogger(__name__)


class Wiring:
    """Makes and removes what networks are made of. Blocking calls, for a thread, unless said otherwise.

    engine: what the packet filter's tables are named after. mark: the alias of the links that this engine has made.
    """

    def __init__(self, driver: BridgeDriver, options: NetworkOptions) -> None:
        self.driver = driver
        self._options = options
        bridge = options.bridge
        self.mark = f"{MARK}{options.seed}"
        self.engine = bridge if bridge != "none" else f"x{hashlib.sha256(options.seed.encode()).hexdigest()[:12]}"

    @property
    def mtu(self) -> int:
        """The size of packets, in bytes, where a network says nothing. Does not block."""
        return self._options.mtu

    def rules(self, record: NetworkRecord) -> BridgeRules:
        """The rules of a network's bridge. Does not block."""
        return BridgeRules(
            bridge=record.bridge,
            engine=self.engine,
            subnet=record.subnet,
            subnet6=record.subnet6,
            masquerade=record.masquerade,
            masquerade6=record.masquerade,
            icc=record.icc,
            internal=record.internal,
            mode=gateways.mode_of(record.options, 4),
            mode6=gateways.mode_of(record.options, 6),
            direct=self._options.allow_direct_routing,
            listeners=self._options.listeners,
        )

    def make(self, record: NetworkRecord) -> None:
        """The link of a network, made or adopted as it is, without rules."""
        if record.config_only:
            return
        if record.driver != "bridge":
            self._make_parent(record)
            return
        mtu = record.mtu or self._options.mtu
        is_ours = record.owns_bridge and not record.is_predefined  # the default one may be the administrator's
        self.driver.ensure_bridge(
            record.bridge,
            *gateways.of_bridge(record),
            mtu=mtu,
            mark=self.mark,
            is_ours=is_ours,
            has_ipv6=not gateways.is_isolated(record.options, 6),
        )
        if self._options.ip_forward:
            self.driver.enable_forwarding()
            if record.subnet6 is not None:
                self.driver.enable_forwarding(ipv6=True)

    def _make_parent(self, record: NetworkRecord) -> None:
        if record.parent.startswith(parents.DUMMY):
            self.driver.ensure_dummy(record.parent, mark=self.mark)
        elif (vlan := parents.vlan(record.parent)) is not None:
            self.driver.ensure_vlan(record.parent, *vlan, mark=self.mark)
        else:
            self.driver.check_link(record.parent)

    def remove(self, record: NetworkRecord, *, keeps_parent: bool = False) -> None:
        """Take it away. Idempotent. keeps_parent: another network lives on it."""
        if record.bridge:
            self.driver.remove_bridge(record.bridge, rules=self.rules(record), keeps_link=not record.owns_bridge)
        elif record.parent and record.owns_bridge and not keeps_parent:
            self.driver.remove_link(record.parent)

    def accept_forwarding(self, bridges: list[str]) -> None:
        """Let our bridges pass other people's forward chains, if we may."""
        if self._options.forward_accept:
            self.driver.accept_forwarding(bridges)

    # --- the default network

    def default_network(self, old: NetworkRecord | None) -> NetworkRecord:
        """The record of the default network, of what the options, the bridge and the last time say; not made yet."""
        options = self._options
        address = self._default_address(old)
        pools = [Pool(subnet=str(address.network), gateway=str(address.ip))]
        if options.ipv6:
            pools.append(self._default_pool6(old))
        base = old or new_record("bridge", "bridge")
        return msgspec.structs.replace(
            base,
            bridge=options.bridge,
            pools=tuple(pools),
            ipv6=options.ipv6,
            options={
                "com.docker.network.bridge.default_bridge": "true",
                records.ICC: str(options.icc).lower(),
                records.MASQUERADE: str(options.ip_masq).lower(),
                records.HOST_BINDING: "0.0.0.0",
                records.BRIDGE_NAME: options.bridge,
                records.MTU: str(options.mtu),
            },
        )

    def _default_address(self, old: NetworkRecord | None) -> ipaddress.IPv4Interface:
        """--bip, else what the bridge has, else what it had last time if still free, else the first free pool."""
        options = self._options
        if options.bip:
            return ipam.parse_bip(options.bip)
        present = self.driver.bridge_address(options.bridge)
        if present is not None:
            return present
        in_use = self.driver.networks_in_use(besides=options.bridge)
        if old is not None and old.subnet is not None and old.gateway is not None:
            subnet = old.subnet
            if not any(isinstance(n, ipaddress.IPv4Network) and subnet.overlaps(n) for n in in_use):
                return ipaddress.IPv4Interface(f"{old.gateway}/{subnet.prefixlen}")
        subnet = ipam.choose_subnet(in_use, pools=options.pools)
        return ipaddress.IPv4Interface(f"{ipam.default_gateway(subnet)}/{subnet.prefixlen}")

    def _default_pool6(self, old: NetworkRecord | None) -> Pool:
        """--fixed-cidr-v6, else what it had last time, else a part of our own prefix."""
        text = self._options.fixed_cidr_v6
        if text:
            try:
                subnet = ipaddress.IPv6Network(text)
            except ValueError:
                raise InvalidArgument(f"invalid value for --fixed-cidr-v6: {text}") from None
            return Pool(subnet=str(subnet), gateway=str(ipam.default_gateway(subnet)))
        if old is not None and (pool := old.pool(6)) is not None:
            return pool
        in_use = self.driver.networks_in_use(besides=self._options.bridge)
        subnet = ipam.choose_subnet6(in_use, prefix=ipam.local_prefix(self._options.seed), pools=self._options.pools)
        return Pool(subnet=str(subnet), gateway=str(ipam.default_gateway(subnet)))


def new_record(name: str, driver: str) -> NetworkRecord:
    """One of the predefined networks."""
    return NetworkRecord(id=random_id(), name=name, driver=driver, created_at=clock.now())
