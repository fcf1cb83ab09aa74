"""Publishing ports: the host's numbers held, the packet filter told; both or neither.

What the packet filter cannot translate (::1, and a family the container has no address of) a `Relay` carries. On a
routed network nothing is held: the packet filter opens the port at the container's own address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from ipaddress import IPv6Address

from msgspec import Struct, field

from tare.aio import failpoints
from tare.aio.threads import in_thread
from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound, TareError, Unavailable
from tare.drivers.network.bridge import BridgeDriver
from tare.drivers.network.nft import NAT, ROUTED, BridgeRules, Opening, PortRule, Publication
from tare.drivers.network.ports import PortHolder
from tare.networks.ports import ANY, IPAddress, PortWish, Published, host_ips, opened_at
from tare.networks.relay import Relay, Target

log = logging.getLogger(__name__)

_LOOPBACK6 = IPv6Address("::1")
_EPHEMERAL_TRIES = 32


class Place(Struct, frozen=True):
    """Where a container's ports go: for each family (4, 6) the rules of the bridge and its address there."""

    by_version: Mapping[int, tuple[BridgeRules, IPAddress]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.by_version)

    def is_routed(self, version: int) -> bool:
        """Whether the host has no part in what is published in a family."""
        return version in self.by_version and self.by_version[version][0].mode_of(version) == ROUTED

    def carried_to(self, version: int) -> IPAddress | None:
        """The address that what comes by a family is carried to: of the same family, else of another.

        None: nothing is carried to an address on a routed network.
        """
        able = {known: address for known, (_, address) in self.by_version.items() if not self.is_routed(known)}
        return able.get(version) or (able[min(able)] if able else None)


class Publisher:
    """What this engine publishes at the host's addresses. All methods belong to the event loop's thread."""

    def __init__(self, driver: BridgeDriver, *, is_relayed: bool = False, is_filtered: bool = True) -> None:
        """is_relayed: nothing is translated, all is carried by hand: the host's firewall sees packets to the host.

        is_filtered: else there are no rules of ours, and no port need be opened.
        """
        self._driver = driver
        self._is_relayed = is_relayed
        self._is_filtered = is_filtered
        self._holder = PortHolder()
        self._relays: dict[tuple[str, IPAddress, int], Relay] = {}
        self._known: dict[str, BridgeRules] = {}  # by bridge, whose rules the kernel should have
        self._mapped: dict[str, dict[PortRule, None]] = {}  # by bridge, what it should have published
        self._lock = asyncio.Lock()  # rules are made and filled one after the other

    def close(self) -> None:
        """Let go of the host's ports; the rules stay, and with them what is published."""
        for relay in self._relays.values():
            relay.close()
        self._relays.clear()
        self._holder.close()

    async def publish(
        self,
        wishes: Sequence[PortWish],
        *,
        place: Place,
        default_ip: str,
        who: str,
        besides: Sequence[Published] = (),
    ) -> tuple[Published, ...]:
        """Hold and map every port, or none. who: `NAME (ENDPOINT)` for the message.

        besides: what the container has published already. On a routed network the host's address and number are left
        out of account, as Docker does: another network of the container may have use for them.
        Raises InternalError in the words in which Docker's clients know a port that is taken.
        """
        held: list[Published] = []
        is_mapped = False
        try:
            for wish in wishes:
                opened, ips = sides(wish, default_ip, place)
                held += opened
                if not ips and (opened or place.carried_to(4) is None):
                    log.info("%s of %s is not published at the host: its network is routed", wish.name, who)
                    continue
                if self._is_relayed and wish.protocol == "sctp":
                    raise InvalidArgument(
                        f"{wish.name} cannot be published with --publish-by relay: sctp is not carried"
                    )
                number = self._hold(wish, ips)
                held += [
                    Published(protocol=wish.protocol, port=wish.port, host_ip=ip, host_port=number)
                    for ip in ips
                    if self._holder.has(wish.protocol, ip, number)
                ]
            is_mapped = True  # of one family perhaps, if that of the other fails
            await self._map(held, place=place, present=True, keeps=besides)
            failpoints.hit("ports.mapped")
            await self._open_relays(held, place)
        except BaseException as error:
            if is_mapped:
                await self.withdraw(held, place=place, keeps=besides)
            else:
                self._release(held)
            if isinstance(error, Conflict | InvalidArgument | Unavailable):
                raise InternalError(
                    f"driver failed programming external connectivity on endpoint {who}: {error.message}",
                    hint=error.hint,
                ) from None
            raise
        return tuple(held)

    def _hold(self, wish: PortWish, ips: Sequence[IPAddress]) -> int:
        """One number that is free at all the addresses. Raises Conflict, InvalidArgument."""
        if not ips:
            raise InvalidArgument(f"{wish.name} cannot be published at {wish.host_ip}: no address of that family")
        tries = range(wish.first, wish.last + 1) if wish.first else [0] * _EPHEMERAL_TRIES
        problem: Conflict | None = None
        for wanted in tries:
            taken: list[tuple[IPAddress, int]] = []
            number = wanted
            try:
                for ip in ips:
                    try:
                        number = self._holder.hold(wish.protocol, ip, number, number)
                    except InvalidArgument:
                        if wish.host_ip is None and taken:
                            continue  # a host without IPv6 publishes by IPv4
                        raise
                    taken.append((ip, number))
            except BaseException as error:
                for ip, port in taken:
                    self._holder.release(wish.protocol, ip, port)
                if not isinstance(error, Conflict):
                    raise
                problem = problem or error
            else:
                return number
        assert problem is not None
        raise problem

    async def withdraw(self, published: Sequence[Published], *, place: Place, keeps: Sequence[Published] = ()) -> None:
        """Unmap and let go, in any case. keeps: what the container goes on publishing."""
        try:
            await self._map(published, place=place, present=False, keeps=keeps)
        except Unavailable as error:
            log.info("ports were not mapped: %s", error.message)
        finally:
            self._release(published)

    async def adopt(self, published: Sequence[Published], *, place: Place) -> None:
        """After a restart of the engine: hold and map what a running container has. What is lost is logged."""
        for entry in published:
            if not entry.host_port:
                continue
            try:
                self._holder.hold(entry.protocol, entry.host_ip, entry.host_port, entry.host_port)
            except TareError as error:
                log.warning("port %s of the host is not ours any more: %s", entry.host_port, error.message)
        await self._map(published, place=place, present=True, is_new=False)
        await self._open_relays(published, place)

    async def admit(self, rules: BridgeRules) -> None:
        """A bridge more."""
        async with self._lock:
            self._known[rules.bridge] = rules
            try:
                await in_thread(self._driver.admit, rules)
            except NotFound:  # somebody flushed our rules a moment ago, or this is the first bridge
                await self._make_again()

    def held(self) -> frozenset[tuple[str, IPAddress, int]]:
        """Protocol, address and number of every port of the host that is held."""
        return self._holder.held()

    def forget(self, bridge: str) -> None:
        """A bridge less."""
        self._known.pop(bridge, None)

    async def restore(self, wanted: Sequence[BridgeRules]) -> None:
        """Make the rules again, for these bridges, with everything that is published by them, all or none."""
        async with self._lock:
            self._known |= {rules.bridge: rules for rules in wanted}
            await self._make_again()

    async def _make_again(self) -> None:
        wanted = [(rules, list(self._mapped.get(bridge, ()))) for bridge, rules in self._known.items()]
        await in_thread(self._driver.apply_all, wanted)

    # --- the packet filter

    def rules_of(self, published: Iterable[Published], place: Place) -> list[tuple[BridgeRules, list[PortRule]]]:
        """What the packet filter is told of it, by bridge; the rest is for relays."""
        found = [
            (rules, [rule for rule in chosen if self._is_told(rule)])
            for rules, chosen in publications(published, place)
        ]
        return [(rules, chosen) for rules, chosen in found if chosen]

    def _is_told(self, rule: PortRule) -> bool:
        return self._is_filtered if isinstance(rule, Opening) else not self._is_relayed

    async def _map(
        self,
        published: Sequence[Published],
        *,
        place: Place,
        present: bool,
        is_new: bool = True,
        keeps: Sequence[Published] = (),
    ) -> None:
        """is_new: flows that are under way belong to somebody else. keeps: the filter knows of that, and goes on to."""
        kept = {rule for _, chosen in self.rules_of(keeps, place) for rule in chosen}
        changes = [
            (rules, [rule for rule in chosen if rule not in kept]) for rules, chosen in self.rules_of(published, place)
        ]
        async with self._lock:
            for rules, chosen in changes:
                if chosen:
                    await self._tell(rules, chosen, present=present)
            flows = [rule for _, chosen in changes for rule in chosen if rule.protocol == "udp"]
            ports = {rule.host_port for rule in flows if isinstance(rule, Publication)}
            ends = {(rule.address, rule.port) for rule in flows if isinstance(rule, Opening)}
            if flows and is_new:
                await in_thread(self._driver.flush_flows, ports, ends)

    async def _tell(self, rules: BridgeRules, publications: list[PortRule], *, present: bool) -> None:
        mapped = self._mapped.setdefault(rules.bridge, {})
        if not present:
            for publication in publications:
                mapped.pop(publication, None)
            if not mapped:
                self._mapped.pop(rules.bridge, None)
            try:
                await in_thread(partial(self._driver.publish, rules, publications, present=False))
            except (NotFound, InternalError, OSError) as error:  # then none of them went, though one was missing only
                log.info("the rules are made again: %s", error)
                await self._make_again()
            return
        try:
            await in_thread(partial(self._driver.publish, rules, publications, present=True))
        except NotFound:  # somebody flushed our rules a moment ago
            self._known.setdefault(rules.bridge, rules)
            before = dict(mapped)
            mapped.update(dict.fromkeys(publications))
            try:
                await self._make_again()
            except BaseException:
                self._mapped[rules.bridge] = before
                raise
        mapped.update(dict.fromkeys(publications))

    # --- by hand

    async def _open_relays(self, published: Iterable[Published], place: Place) -> None:
        for entry in published:
            key = entry.protocol, entry.host_ip, entry.host_port
            is_wanted = entry.protocol != "sctp" if self._is_relayed else _needs_relay(entry, place)
            address = place.carried_to(entry.host_ip.version)
            if not is_wanted or address is None or not self._holder.has(*key):
                continue
            relay = Relay(Target(str(address), entry.port))
            self._relays[key] = relay
            await relay.open(self._holder.descriptor(*key))

    def _release(self, published: Iterable[Published]) -> None:
        for entry in published:
            key = entry.protocol, entry.host_ip, entry.host_port
            if (relay := self._relays.pop(key, None)) is not None:
                relay.close()
            self._holder.release(*key)


def sides(wish: PortWish, default_ip: str, place: Place) -> tuple[list[Published], list[IPAddress]]:
    """What is open at the container's own addresses, and the host's addresses at which the port is to be held."""
    opened: list[Published] = []
    ips: list[IPAddress] = []
    for ip in host_ips(wish, default_ip):
        if place.is_routed(ip.version):
            any_ip = opened_at(ip.version)
            opened.append(Published(protocol=wish.protocol, port=wish.port, host_ip=any_ip, host_port=0))
        elif _can_serve(wish, ip, place):
            ips.append(ip)
    return opened, ips


def _can_serve(wish: PortWish, ip: IPAddress, place: Place) -> bool:
    """SCTP is only translated, never carried. Where an address was asked for, holding it tells what is wrong."""
    if ip.version in place.by_version:
        return True
    return wish.protocol != "sctp" and place.carried_to(ip.version) is not None


def _needs_relay(entry: Published, place: Place) -> bool:
    if entry.protocol == "sctp" or not entry.host_port:
        return False
    is_loopback = entry.host_ip in (_LOOPBACK6, ANY[1])
    return is_loopback or entry.host_ip.version not in place.by_version


def publications(published: Iterable[Published], place: Place) -> list[tuple[BridgeRules, list[PortRule]]]:
    """What the packet filter translates and opens of it, by bridge; the rest is for relays."""
    entries = list(published)
    found = []
    for version, (rules, address) in place.by_version.items():
        chosen: dict[PortRule, None] = {}
        for entry in entries:
            if entry.host_ip.version != version:
                continue
            if entry.host_port and entry.host_ip != _LOOPBACK6:
                chosen[_publication(entry, address)] = None
            if not entry.host_port or (rules.direct and rules.mode_of(version) == NAT):
                chosen[Opening(protocol=entry.protocol, address=address, port=entry.port)] = None
        if chosen:
            found.append((rules, list(chosen)))
    return found


def _publication(entry: Published, address: IPAddress) -> Publication:
    return Publication(
        protocol=entry.protocol,
        host_port=entry.host_port,
        address=address,
        port=entry.port,
        host_ip=None if entry.host_ip.is_unspecified else entry.host_ip,
    )
