"""Bridges and what is plugged into them: the kernel side of every network of driver "bridge".

    bridge <name> (gateway address)  <-  veth<7 hex> | eth0 in the container's namespace
    tables ip, ip6 tare-<default bridge> masquerading, forwarding, published ports, the engine's own sockets

Life of an endpoint: `namespace()`, then `plug` for each network, then the descriptor goes to the runtime; `close` of
the namespace ends it (links and addresses go with it, nobody waits). Bridges and rules stay until `remove_bridge`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from tare.aio import failpoints
from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound, TareError, Unavailable
from tare.drivers.network import conntrack
from tare.drivers.network.netlink import IPAddress, IPInterface, IPNetwork, Link, Netlink, Route, vlan_data
from tare.drivers.network.netns import Namespaces, NetNamespace, set_sysctl, switch_ipv6_off, switch_ipv6_on
from tare.drivers.network.nft import PREFIX, BridgeRules, Nft, PortRule, check_bridge_name, names_ruleset
from tare.drivers.network.watch import Watch

log = logging.getLogger(__name__)

NAME_SERVER = "127.0.0.11"
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_FORWARD6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")
MARK = "tare "
"""How the alias of every link begins that an engine has made."""
_TRIES = 3
_PORT_LOOKS, _PORT_PAUSE_S = 200, 0.0005
_ENDPOINT_KINDS = ("veth", "macvlan", "ipvlan")
_EVERYWHERE = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}


def mac_for(address: ipaddress.IPv4Address) -> str:
    """Docker's locally administered address for an IPv4 one: 02:42 and its four bytes."""
    return "02:42:" + address.packed.hex(":")


def random_mac() -> str:
    """A locally administered address for an endpoint without IPv4."""
    return "02:42:" + secrets.token_bytes(4).hex(":")


def interface_taken(name: str) -> InvalidArgument:
    """What is said when a container has an interface of this name already."""
    return InvalidArgument(f'error renaming interface to "{name}": file exists')


class Child(Struct, frozen=True, kw_only=True):
    """A link that lives on one of the host's. kind: macvlan or ipvlan; `data`: its attributes, see netlink."""

    kind: str
    parent: str
    data: bytes


class Plug(Struct, frozen=True, kw_only=True):
    """One endpoint to make, on `bridge`, or as a `child` of a link of the host.

    `gateways`: of IPv4, of IPv6, of both; a family without one has no default route by this endpoint. `direct`: the
    families (4, 6) whose default route is the link itself. `reflects`: it has published ports. `is_named`: the
    interface is called so because somebody asked for it. `sysctls`: paths below /proc/sys, with values.
    """

    bridge: str = ""
    child: Child | None = None
    interface: str
    mac: str
    addresses: tuple[IPInterface, ...]
    gateways: tuple[IPAddress, ...] = ()
    direct: tuple[int, ...] = ()
    mtu: int = 1500
    isolated: bool = False
    reflects: bool = False
    is_named: bool = False
    sysctls: tuple[tuple[str, str], ...] = ()


class BridgeDriver:
    """The kernel's networking in one network namespace (normally the daemon's). Blocking calls, any thread."""

    def __init__(self, *, rules: bool = True, home: str | None = None) -> None:
        """rules: whether to use nftables at all (`--iptables`). home: path of the namespace to work in."""
        self._namespaces = Namespaces()
        self._lock = threading.RLock()
        self._is_closed = False
        self._macs: dict[str, str] = {}
        self._home: NetNamespace | None = None
        try:
            if home is None:
                self._netlink = Netlink()
                self._nft = Nft() if rules else None
            else:
                self._home = self._namespaces.open(home)
                self._netlink = self._home.netlink
                self._nft = self._namespaces.run(self._home.fd, Nft) if rules else None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close descriptors and threads; links and rules stay. A second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if (nft := getattr(self, "_nft", None)) is not None:
            nft.close()
        if self._home is not None:
            self._home.close()
        elif (netlink := getattr(self, "_netlink", None)) is not None:
            netlink.close()
        self._namespaces.close()

    # --- bridges

    def networks_in_use(self, *, besides: str = "") -> list[IPNetwork]:
        """Destinations of the host's routes and subnets of its addresses: what a new subnet must not overlap.

        besides: a bridge whose own subnet does not count.
        """
        with self._lock:
            own = self._netlink.link(besides) if besides else None
            index = own.index if own else -1
            routes = [r.destination for r in self._netlink.routes() if r.index != index and r.destination.prefixlen]
            here = [a.interface.network for a in self._netlink.addresses() if a.index != index]
        return [*routes, *here]

    def bridge_address(self, name: str) -> ipaddress.IPv4Interface | None:
        """The first IPv4 address of an existing bridge. Raises InvalidArgument when the link is no bridge."""
        with self._lock:
            link = self._netlink.link(check_bridge_name(name))
            if link is None:
                return None
            _check_is_bridge(link)
            for address in self._netlink.addresses():
                if address.index == link.index and isinstance(address.interface, ipaddress.IPv4Interface):
                    return address.interface
        return None

    def ensure_bridge(
        self,
        name: str,
        *addresses: IPInterface,
        mtu: int = 1500,
        mark: str = "",
        is_ours: bool = False,
        has_ipv6: bool = True,
    ) -> None:
        """Make the bridge, or adopt the one there is: up, with these addresses.

        mark: an alias that says whose it is, for one that is made here, or was by an engine, or is_ours at any rate.
        has_ipv6: else the host has no IPv6 address on it, not even the link's own.
        """
        with self._lock:
            link = self._netlink.link(check_bridge_name(name))
            if is_new := link is None:
                # One that was taken away comes back with its mac: its containers remember that of their gateway.
                self._netlink.create_bridge(name, mac=self._macs.get(name) or random_mac(), mtu=mtu)
                link = self._netlink.link(name)
                if link is None:
                    raise InternalError(f"bridge {name} went away while it was made")
            _check_is_bridge(link)
            self._mark(link, mark, is_ours=is_new or is_ours)
            self._macs[name] = link.mac
            present = {a.interface for a in self._netlink.addresses() if a.index == link.index}
            if any(address.version == 6 for address in addresses):
                self._at_home(lambda: switch_ipv6_on(name))
            if not has_ipv6:
                self._at_home(lambda: switch_ipv6_off(name))
            for address in addresses:
                if address not in present:
                    self._netlink.add_address(link.index, address)
            if not link.is_up:
                self._netlink.set_up(link.index)

    def _mark(self, link: Link, mark: str, *, is_ours: bool) -> None:
        if mark and link.alias != mark and (is_ours or link.alias.startswith(MARK)):
            self._netlink.set_alias(link.index, mark)

    def marked(self, mark: str) -> dict[str, int]:
        """Links with this alias, and how many interfaces are on each, or live on it."""
        with self._lock:
            links = self._netlink.links()
        used = Counter(index for link in links for index in {link.master, link.peer if link.kind != "veth" else 0})
        return {link.name: used[link.index] for link in links if link.alias == mark}

    def remove_bridge(self, name: str, *, rules: BridgeRules | None = None, keeps_link: bool = False) -> None:
        """Delete the bridge and its rules. Idempotent. keeps_link: the link was there before us.

        rules: of a bridge that the tables are not named after; else the tables go with it.
        """
        with self._lock:
            if self._nft is not None:
                if rules is None or rules.table == PREFIX + name:
                    self._nft.remove(name)
                else:
                    with contextlib.suppress(NotFound):  # flushed
                        self._nft.admit(rules, present=False)
                self.forget_forwarding(name)
            if not keeps_link:
                self._netlink.delete_link(name)

    def reflect(self, outside: str) -> None:
        """Let a container reach its own published ports; a link that is gone needs it no more."""
        with self._lock:
            if (link := self._netlink.link(outside)) is not None:
                self._netlink.reflect(link.index)

    # --- parents of macvlan and ipvlan

    def check_link(self, name: str) -> None:
        """Raises InvalidArgument unless the host has such a link."""
        with self._lock:
            if self._netlink.link(name) is None:
                raise InvalidArgument(f"the parent interface {name} is not there", hint="ip link shows what there is")

    def ensure_dummy(self, name: str, *, mark: str = "") -> None:
        """A link that leads nowhere. Raises Unavailable where this kernel has none."""
        self._ensure(name, kind="dummy", parent=0, data=b"", hint="name a parent: -o parent=eth0", mark=mark)

    def ensure_vlan(self, name: str, parent: str, number: int, *, mark: str = "") -> None:
        """The link `parent.number` for one VLAN. Raises InvalidArgument (no such parent), Unavailable."""
        with self._lock:
            below = self._netlink.link(parent)
            if below is None and self._netlink.link(name) is None:
                raise InvalidArgument(f"the parent interface {parent} is not there", hint="ip link shows what there is")
            index = below.index if below is not None else 0
            self._ensure(
                name, kind="vlan", parent=index, data=vlan_data(number), hint="make the link yourself", mark=mark
            )

    def _ensure(self, name: str, *, kind: str, parent: int, data: bytes, hint: str, mark: str) -> None:
        with self._lock:
            link = self._netlink.link(name)
            if is_new := link is None:
                try:
                    self._netlink.create_child(name, kind=kind, parent=parent, namespace_fd=-1, data=data)
                except Unavailable:
                    raise Unavailable(f"this kernel has no {kind} links", hint=hint) from None
                link = self._netlink.link(name)
            if link is not None:
                self._mark(link, mark, is_ours=is_new)
                if not link.is_up:
                    self._netlink.set_up(link.index)

    def remove_link(self, name: str) -> None:
        """Delete a link of ours. Idempotent."""
        with self._lock:
            self._netlink.delete_link(name)

    # --- rules

    def links(self) -> set[str]:
        """Names of the host's interfaces."""
        with self._lock:
            return {link.name for link in self._netlink.links()}

    def apply_rules(self, rules: BridgeRules, publications: Iterable[PortRule] = ()) -> None:
        """Make or replace an engine's tables with one bridge and what is published there; nothing without nftables."""
        self.apply_all([(rules, publications)])

    def apply_all(self, wanted: Sequence[tuple[BridgeRules, Iterable[PortRule]]]) -> None:
        """`apply_rules` for several bridges at once: libnftables reads everything the host has each time.

        The host may reach published ports by its loopback address: the kernel routes those only where
        `route_localnet` says so; the rules keep containers from using that.
        """
        if self._nft is None or not wanted:
            return
        self._nft.apply(*wanted)
        self._let_in([rules.bridge for rules, _ in wanted])

    def admit(self, rules: BridgeRules) -> None:
        """One bridge more in tables that are there. Raises NotFound (they are not)."""
        if self._nft is not None:
            failpoints.hit("rules.admit")
            self._nft.admit(rules, present=True)
            self._let_in([rules.bridge])

    def remove_rules(self, engine: str) -> None:
        """Delete an engine's tables. Idempotent."""
        if self._nft is not None:
            self._nft.remove(engine)

    def _let_in(self, names: Iterable[str]) -> None:
        def let_in() -> None:
            for name in names:
                _switch_on(Path(f"/proc/sys/net/ipv4/conf/{name}/route_localnet"))

        self._at_home(let_in)

    def _at_home(self, work: Callable[[], object]) -> None:
        """Do something in the network namespace this driver works in."""
        if self._home is None:
            work()
        else:
            self._namespaces.run(self._home.fd, work)

    def publish(self, rules: BridgeRules, publications: Iterable[PortRule], *, present: bool) -> None:
        """Map published ports, or take them away. Raises Unavailable without nftables, NotFound (flushed rules)."""
        if self._nft is None:
            raise Unavailable("ports cannot be published with --iptables=false", hint="use --network host")
        failpoints.hit("ports.change")
        self._nft.publish(rules, publications, present=present)

    def shape(self, engine: str) -> str:
        """An engine's rules as the kernel has them; "" where they are gone."""
        if self._nft is None:
            return ""
        try:
            return self._nft.shape(engine)
        except NotFound:
            return ""

    def said(self, engine: str) -> frozenset[str] | None:
        """Every entry of an engine's sets and maps (`Nft.said`); none where they are gone, None without nftables."""
        if self._nft is None:
            return None
        try:
            return self._nft.said(engine)
        except NotFound:
            return frozenset()

    def forget(self, engine: str, said: str) -> None:
        """Take away one entry of an engine's sets and maps, as `said` tells it. One that is gone is as good."""
        if self._nft is None:
            return
        with contextlib.suppress(NotFound):
            self._nft.forget(engine, said)

    def forget_forwarding(self, bridge: str) -> None:
        """Nothing lets this bridge pass other people's chains any more. Idempotent."""
        self._touch_others(lambda nft: nft.forget_forwarding(bridge, nft.forward_drops()))

    def forward_drops(self) -> list[str]:
        """Chains of others that stop forwarded packets, as `family table chain`; empty without nftables."""
        return [drop.chain for drop in self._nft.forward_drops()] if self._nft is not None else []

    def accept_forwarding(self, bridges: Iterable[str]) -> None:
        """Let packets of these bridges pass the chains that would drop them, where nothing of ours is there yet."""
        self._touch_others(lambda nft: nft.accept_forwarding(bridges, nft.forward_drops()))

    def _touch_others(self, work: Callable[[Nft], None]) -> None:
        """Chains of others change under our hands; what cannot be done there stops nothing of ours."""
        if self._nft is None:
            return
        problem: TareError | None = None
        for _ in range(_TRIES):
            try:
                work(self._nft)
            except (NotFound, InternalError) as error:
                problem = error
            else:
                return
        log.warning("a chain of somebody else's could not be changed: %s", problem)

    def enable_forwarding(self, *, ipv6: bool = False) -> None:
        """Let the kernel route between interfaces. Only written where it is off."""
        self._at_home(lambda: _enable_forwarding(_FORWARD6 if ipv6 else _FORWARD))

    def flush_flows(self, ports: Collection[int], ends: Collection[conntrack.End] = ()) -> None:
        """Forget what the kernel remembers of UDP flows to these ports, of the host and at ends (see `conntrack`)."""
        self._at_home(lambda: conntrack.forget_udp(ports, ends))

    def watch(self) -> Watch:
        """News of links and of rules in this namespace. The caller closes it."""
        found: list[Watch] = []
        self._at_home(lambda: found.append(Watch()))
        return found[0]

    # --- endpoints

    def namespace(self, *, bare: int | None = None) -> NetNamespace:
        """A new namespace with loopback only, or a `bare` one furnished as such. The caller closes it."""
        failpoints.hit("namespace.make")
        return self._namespaces.create(bare=bare)

    def open_namespace(self, pid: int) -> NetNamespace:
        """The namespace of a running process. Raises NotFound."""
        return self._namespaces.open(f"/proc/{pid}/ns/net")

    def plug(self, namespace: NetNamespace, plug: Plug) -> str:
        """Connect a namespace to a bridge; returns the name of the host's end, "" where there is none.

        On failure nothing is left: the pair dies with whichever end is deleted.
        """
        with self._lock:
            if plug.child is not None:
                self._create_child(namespace, plug, plug.child)
                self._configure(namespace, plug)
                return ""
            bridge = self._netlink.link(plug.bridge)
            if bridge is None:
                raise InternalError(f"bridge {plug.bridge} is missing", hint="restart the engine to make it again")
            failpoints.hit("veth.make")
            outside = self._create_pair(namespace, plug, bridge)
            try:
                failpoints.hit("veth.made")
                self._set_port(outside, plug)
                self._configure(namespace, plug)
            except BaseException:
                with contextlib.suppress(InternalError):
                    self._netlink.delete_link(outside)
                raise
        self._until_running(outside)
        return outside

    def _until_running(self, outside: str) -> None:
        """Wait until the bridge takes packets from a new port, a fifth of a millisecond as a rule.

        A worker of the kernel switches it on. What is sent before is lost, and a name or a connection then waits for its
        repetition, a second. On a machine so busy that the worker does not come, the container is started all the same.
        """
        for _ in range(_PORT_LOOKS):
            with self._lock:
                link = self._netlink.link(outside)
            if link is None or link.is_running:
                return
            time.sleep(_PORT_PAUSE_S)

    def _set_port(self, outside: str, plug: Plug) -> None:
        if (plug.isolated or plug.reflects) and (link := self._netlink.link(outside)) is not None:
            if plug.isolated:
                self._netlink.isolate(link.index)
            if plug.reflects:
                self._netlink.reflect(link.index)

    def plug_running(self, namespace: NetNamespace, plug: Plug) -> str:
        """Connect a running container; returns the host's end. Raises InvalidArgument when it has such an interface.

        Where no name is asked for it is the first free one of eth0, eth1, ….
        """
        names = {link.name for link in namespace.netlink.links()}
        if plug.is_named:
            if plug.interface in names:
                raise interface_taken(plug.interface)
            return self.plug(namespace, plug)
        number = next(number for number in range(len(names) + 1) if f"eth{number}" not in names)
        return self.plug(namespace, replace(plug, interface=f"eth{number}"))

    def mend(self, namespace: NetNamespace, plug: Plug) -> str:
        """See that a running container hangs on its bridge; returns the host's end.

        A pair whose bridge went away is put on the new one, a pair that was deleted is made again.
        """
        with self._lock:
            inside = next((link for link in namespace.netlink.links() if link.mac == plug.mac), None)
            if inside is None:
                # A default route that is there leads elsewhere: whether it is to be turned is the caller's to say.
                routes = namespace.netlink.routes()
                have = {route.destination.version for route in routes if not route.destination.prefixlen}
                ways = tuple(gateway for gateway in plug.gateways if gateway.version not in have)
                return self.plug_running(namespace, replace(plug, gateways=ways))
            bridge = self._netlink.link(plug.bridge)
            outside = self._netlink.link_at(inside.peer)
            if bridge is None or outside is None or outside.kind != "veth":
                raise NotFound(f"the host's end of {inside.name} or its bridge {plug.bridge} is not there")
            if outside.master != bridge.index:
                self._netlink.set_master(outside.index, bridge.index)
                self._set_port(outside.name, plug)
            with contextlib.suppress(TareError):  # an engine that was killed may have blocked it
                self._netlink.block(outside.index, is_blocked=False)
            return outside.name

    def outside(self, namespace: NetNamespace, mac: str) -> str:
        """The name of the host's end of a container's interface, or ""."""
        with self._lock:
            inside = next((link for link in namespace.netlink.links() if link.mac == mac), None)
            if inside is None:
                return ""
            found = self._netlink.link_at(inside.peer)
            return found.name if found is not None else ""

    def cut(
        self,
        namespace: NetNamespace,
        mac: str,
        addresses: Collection[str] = (),
        *,
        outside: str = "",
        besides: Collection[int] = (),
    ) -> int:
        """Let nothing pass the connection with this mac, or else with these addresses, of a running container.

        outside: the host's end. besides: interfaces that are on their way out already. Returns the number of the interface, for `NetNamespace.netlink.delete_index`, which
        waits for a grace period; 0: it is gone. This does not wait. Idempotent.
        """
        with self._lock:
            link = _find(namespace.netlink, mac, addresses, besides=besides)
            if link is None or link.kind not in _ENDPOINT_KINDS:
                return 0
            try:
                end = self._netlink.link(outside) if outside else None
                if end is not None:
                    self._netlink.block(end.index)
                else:
                    for address in namespace.netlink.addresses():
                        if address.index == link.index:
                            namespace.netlink.delete_address(link.index, address.interface)
            except (Conflict, NotFound, InternalError):
                namespace.netlink.delete_index(link.index)
                return 0
            return link.index

    def sweep(
        self,
        namespace: NetNamespace,
        *,
        macs: Collection[str],
        addresses: Collection[str],
        bridges: Collection[str],
        parents: Collection[str],
    ) -> int:
        """Delete a container's interfaces on our bridges and parents but for those with these macs or addresses.

        What a killed engine was about to plug in, or to take away. Returns how many went.
        """
        with self._lock:
            by_address = {a.index for a in namespace.netlink.addresses() if str(a.interface.ip) in addresses}
            swept = 0
            for link in namespace.netlink.links():
                if link.kind not in _ENDPOINT_KINDS or link.mac in macs or link.index in by_address:
                    continue
                end = self._netlink.link_at(link.peer) if link.peer else None
                if end is None:
                    continue
                if link.kind == "veth":
                    master = self._netlink.link_at(end.master) if end.peer == link.index and end.master else None
                    is_ours = master is not None and master.name in bridges
                else:
                    is_ours = end.name in parents
                if is_ours:
                    namespace.netlink.delete_index(link.index)
                    swept += 1
            return swept

    def set_gateway(
        self,
        namespace: NetNamespace,
        mac: str,
        gateway: IPAddress | None,
        *,
        version: int = 4,
        addresses: Collection[str] = (),
        is_direct: bool = False,
        besides: Collection[int] = (),
    ) -> None:
        """Let the default route of a running container go by the interface with this mac, or else these addresses.

        gateway None: there is none, unless the link itself is_direct.
        """
        with self._lock:
            inside = namespace.netlink
            for route in inside.routes():
                if not route.destination.prefixlen and route.destination.version == version:
                    inside.delete_route(route)
            if gateway is None and not is_direct:
                return
            link = _find(inside, mac, addresses, besides=besides)
            if link is None:
                raise NotFound(f"no interface with mac {mac} in the container")
            way = None if is_direct else gateway
            inside.add_route(Route(destination=_EVERYWHERE[version], gateway=way, index=link.index))

    def name_sockets(self, namespace: NetNamespace, *, is_new: bool) -> tuple[socket.socket, socket.socket]:
        """Where a container asks for names: udp and tcp sockets behind 127.0.0.11:53 inside, the caller closes them.

        is_new: nobody served names in this namespace before.
        """
        redirects = self._nft is not None
        return self._namespaces.run(namespace.fd, lambda: _name_sockets(redirects=redirects, is_new=is_new))

    def unplug(self, outside: str) -> None:
        """Cut one connection of a namespace that lives on. Waits for a grace period. Idempotent."""
        with self._lock:
            self._netlink.delete_link(outside)

    def _create_pair(self, namespace: NetNamespace, plug: Plug, bridge: Link) -> str:
        for _ in range(3):
            outside = f"veth{secrets.token_hex(4)[:7]}"
            with contextlib.suppress(Conflict):
                self._netlink.create_veth(
                    outside,
                    master=bridge.index,
                    peer_name=plug.interface,
                    peer_namespace_fd=namespace.fd,
                    peer_mac=plug.mac,
                    mtu=plug.mtu,
                )
                return outside
        raise Conflict(f"cannot make {plug.interface}: the name is taken in the container's network namespace")

    def _create_child(self, namespace: NetNamespace, plug: Plug, child: Child) -> None:
        parent = self._netlink.link(child.parent)
        if parent is None:
            raise NotFound(f"the parent interface {child.parent} is not there")
        try:
            self._netlink.create_child(
                plug.interface,
                kind=child.kind,
                parent=parent.index,
                namespace_fd=namespace.fd,
                data=child.data,
                mac=plug.mac if child.kind == "macvlan" else "",
                mtu=plug.mtu,
            )
        except Unavailable as error:
            raise Unavailable(error.message, hint=f"this kernel has no {child.kind} links") from None

    def _configure(self, namespace: NetNamespace, plug: Plug) -> None:
        inside = namespace.netlink
        link = inside.link(plug.interface)
        if link is None:
            raise InternalError(f"{plug.interface} did not appear in the container's network namespace")
        if any(address.version == 6 for address in plug.addresses):
            self._namespaces.enable_ipv6(namespace.fd, plug.interface)
        for address in plug.addresses:
            inside.add_address(link.index, address)
        if not link.is_up:
            inside.set_up(link.index)
        if plug.sysctls:
            self._namespaces.run(namespace.fd, lambda: _set_sysctls(plug))
        for gateway in plug.gateways:
            inside.add_route(Route(destination=_EVERYWHERE[gateway.version], gateway=gateway, index=link.index))
        for version in plug.direct:
            inside.add_route(Route(destination=_EVERYWHERE[version], index=link.index))


def _set_sysctls(plug: Plug) -> None:
    for path, value in plug.sysctls:
        set_sysctl(path.replace("/IFNAME/", f"/{plug.interface}/"), value)


def _find(inside: Netlink, mac: str, addresses: Collection[str], *, besides: Collection[int] = ()) -> Link | None:
    """The interface of an endpoint: by its mac, and where its parent lends it another (passthru, ipvlan) by address."""
    links = [link for link in inside.links() if link.index not in besides]
    if (found := next((link for link in links if mac and link.mac == mac), None)) is not None:
        return found
    indexes = {address.index for address in inside.addresses() if str(address.interface.ip) in addresses}
    return next((link for link in links if link.index in indexes), None)


def _check_is_bridge(link: Link) -> None:
    if link.kind != "bridge":
        raise InvalidArgument(f"{link.name} exists and is not a bridge")


def _enable_forwarding(path: Path) -> None:
    try:
        if path.read_text().strip() != "1":
            path.write_text("1\n")
    except OSError as error:
        raise InternalError(f"cannot write {path}: {error.strerror}") from None


def _switch_on(path: Path) -> None:
    try:
        path.write_text("1\n")
    except OSError as error:
        raise InternalError(f"cannot write {path}: {error.strerror}") from None


def _name_sockets(*, redirects: bool, is_new: bool) -> tuple[socket.socket, socket.socket]:
    """redirects: take any ports, and let the packet filter of this namespace lead port 53 to them."""
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | flags)
    try:
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | flags)
        try:
            for each in (udp, tcp):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                each.bind((NAME_SERVER, 0 if redirects else 53))
            tcp.listen(64)
            if redirects:
                nft = Nft()
                try:
                    ports = {"udp_port": udp.getsockname()[1], "tcp_port": tcp.getsockname()[1]}
                    nft.run(names_ruleset(NAME_SERVER, **ports, replaces=not is_new))
                finally:
                    nft.close()
        except BaseException:
            tcp.close()
            raise
    except BaseException:
        udp.close()
        raise
    return udp, tcp
